// The one place that knows the server's addresses, and what its errors look like.

/** An error that the server explained: problem+json, or the little that is known without it. */
export class Problem extends Error {
  constructor(status, body, retryAfter) {
    super(body.detail || body.title || `HTTP ${status}`);
    this.status = status;
    this.slug = String(body.type || "").replace("urn:beleg:", "");
    this.wayOut = body.way_out || "";
    this.retryAfter = retryAfter;
  }
}

/** Nobody answered: the server is down, or the network is. */
export class Unreachable extends Error {}

export async function request(path, options = {}) {
  let response;
  try {
    response = await fetch(path, { cache: "no-store", ...options });
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new Unreachable(error.message);
  }
  if (response.ok) return response;
  throw problemOf(response.status, await response.text().catch(() => ""), response.headers.get("Retry-After"));
}

export function problemOf(status, text, retryAfter) {
  let body = {};
  try {
    body = JSON.parse(text);
  } catch {
    // A proxy's page: there is nothing in it to show.
  }
  return new Problem(status, body, Number(retryAfter) || null);
}

export async function get(path, parameters = {}, options = {}) {
  const response = await request(path + queryOf(parameters), options);
  return response.json();
}

export const post = (path, body, options = {}) =>
  request(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), ...options });

export const documentPath = (document, part = "") => `/v1/documents/${encodeURIComponent(document)}${part}`;

export const pagePath = (document, page, start, end, width) =>
  documentPath(document, `/pages/${page}.png`) + queryOf({ start, end, width });

export const uploadPath = (name) => `/v1/documents/${name.split("/").map(encodeURIComponent).join("/")}`;

function queryOf(parameters) {
  const given = Object.entries(parameters).filter(([, value]) => value !== undefined && value !== null && value !== "");
  return given.length ? `?${new URLSearchParams(given)}` : "";
}

// Of a server or a proxy in front of it that is only just starting.
const AWAY = [502, 503, 504];

/** Wait until a job has ended and return it. That nobody answers says nothing of it: jobs outlive the network and restarts. */
export async function jobEnded(id) {
  for (let wait = 400; ; wait = Math.min(wait * 1.5, 3000)) {
    try {
      const job = await get(`/v1/jobs/${encodeURIComponent(id)}`);
      if (["done", "failed", "cancelled"].includes(job.status)) return job;
    } catch (error) {
      if (!(error instanceof Unreachable || AWAY.includes(error.status))) throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, wait));
  }
}
