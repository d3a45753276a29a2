// Files on their way into the index. They go on when another view is looked at, and are forgotten with the page.

import { Problem, documentPath, get, jobEnded, problemOf, uploadPath } from "./api.js";

const AT_ONCE = 2;

/** All uploads of this page, oldest first: `{name, status, share, document, problem}`. */
export const uploads = [];

let listener = () => {};
let active = 0;

/** Have `changed(upload, what)` called whenever an upload has changed; `what` is "share" for the many small changes. */
export function onUploads(changed) {
  listener = changed;
}

/** Send files, given as `{path, file}`; `path` has the folders that were chosen with a file. */
export function upload(files) {
  const queued = { status: "queued", share: 0, document: null, problem: null };
  for (const { path, file } of files) uploads.push({ name: path, file, ...queued });
  listener(null, "status");
  next();
}

export function forgetEnded() {
  uploads.splice(0, uploads.length, ...uploads.filter(({ status }) => !["done", "failed"].includes(status)));
  listener(null, "status");
}

function next() {
  while (active < AT_ONCE) {
    const one = uploads.find((upload) => upload.status === "queued");
    if (!one) return;
    active++;
    one.status = "sending";
    process(one).finally(() => {
      active--;
      delete one.file;
      listener(one, "status");
      next();
    });
  }
}

async function process(one) {
  try {
    const accepted = await send(one);
    set(one, { status: "reading" });
    const job = await jobEnded(accepted.job);
    const { documents } = await get(`/v1/jobs/${encodeURIComponent(accepted.job)}/documents`, { limit: 1000 });
    const outcome = documents.find(({ source }) => source.endsWith(accepted.path));
    if (outcome?.status === "failed") throw new Problem(0, { detail: outcome.reason, way_out: outcome.way_out });
    if (job.status !== "done") throw new Problem(0, { detail: job.error?.message, way_out: job.error?.way_out });
    Object.assign(one, { status: "done", document: await get(documentPath(accepted.document)) });
  } catch (problem) {
    Object.assign(one, { status: "failed", problem });
  }
}

// fetch cannot say how much of a file has been sent.
function send(one) {
  return new Promise((resolve, reject) => {
    const sending = new XMLHttpRequest();
    sending.open("PUT", uploadPath(one.name));
    sending.setRequestHeader("Content-Type", "application/octet-stream");
    sending.upload.onprogress = ({ loaded, total }) => set(one, { share: total ? loaded / total : 0 }, "share");
    sending.onerror = () => reject(new Problem(0, {}));
    sending.onload = () => {
      if (sending.status === 202) resolve(JSON.parse(sending.responseText));
      else reject(problemOf(sending.status, sending.responseText, null));
    };
    sending.send(one.file);
  });
}

function set(one, change, what = "status") {
  Object.assign(one, change);
  listener(one, what);
}

/** Return `{path, file}` for everything that was dropped, folders with all that is in them. */
export async function dropped(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.length) return [...transfer.files].map((file) => ({ path: file.name, file }));
  return (await Promise.all(entries.map(within))).flat();
}

async function within(entry) {
  const path = entry.fullPath.replace(/^\//, "");
  // What an operating system hides in a folder is no document.
  if (entry.name.startsWith(".")) return [];
  if (entry.isFile) return [{ path, file: await new Promise((resolve, reject) => entry.file(resolve, reject)) }];
  const reader = entry.createReader();
  const found = [];
  for (;;) {
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length) return (await Promise.all(found.map(within))).flat();
    found.push(...some);
  }
}

/** Return `{path, file}` for the files of an input. */
export function chosen(input) {
  const files = [...input.files].map((file) => ({ path: file.webkitRelativePath || file.name, file }));
  return files.filter(({ path }) => !/(^|\/)\./.test(path));
}
