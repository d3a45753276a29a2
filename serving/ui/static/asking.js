// One question on its way: what the server streams becomes the state of a turn. Draws nothing.

import { Problem, Unreachable, post } from "./api.js";
import { eventsOf } from "./stream.js";

const REMEMBERED_TURNS = 6;
const MOST_RETRIES = 5;
// What waiting does not mend: somebody has to do something first.
const LASTING = ["index-missing", "index-mismatch"];

/**
 * Return a new turn. `status` is one of: waiting (for a place), searching, reading, answered, cut (the connection was lost),
 * failed (with `problem`), unreachable, cancelled.
 */
export function newTurn(question, filters) {
  return { question, filters, status: "searching", hits: null, text: "", answer: null, problem: null, feedback: null };
}

/**
 * Ask, and call `changed(turn, what)` whenever the turn has changed; `what` is "token" for the many small changes.
 *
 * The turn gets `stop()`, and while it waits for a place `hurry()`.
 */
export async function run(turn, earlier, changed) {
  const controller = new AbortController();
  turn.stop = () => controller.abort();
  turn.began = Date.now();
  const body = { question: turn.question, filters: turn.filters, history: historyOf(earlier), stream: true };
  for (let tries = 0; ; tries++) {
    try {
      await attempt(turn, body, controller.signal, changed);
    } catch (error) {
      if (!controller.signal.aborted && tries < MOST_RETRIES && worthWaiting(error)) {
        await waited(turn, error.retryAfter, controller.signal, changed);
        if (!controller.signal.aborted) continue;
      }
      settle(turn, error, controller.signal.aborted);
    }
    delete turn.stop;
    changed(turn, "status");
    return;
  }
}

async function attempt(turn, body, signal, changed) {
  Object.assign(turn, { status: "searching", hits: null, text: "", answer: null, problem: null });
  changed(turn, "status");
  const response = await post("/v1/ask", body, { signal });
  for await (const { name, data } of eventsOf(response)) {
    if (name === "hits") {
      // A second time if documents changed meanwhile: then everything begins again.
      Object.assign(turn, { status: "reading", hits: data.hits, text: "" });
      changed(turn, "status");
    } else if (name === "token") {
      turn.text += data.text;
      changed(turn, "token");
    } else if (name === "answer") {
      Object.assign(turn, { status: "answered", answer: data, hits: data.hits, text: "" });
      return;
    } else if (name === "error") {
      throw new Problem(data.status, data, null);
    }
  }
  throw new Unreachable();
}

function settle(turn, error, stopped) {
  if (stopped) turn.status = "cancelled";
  else if (error instanceof Problem) Object.assign(turn, { status: "failed", problem: error });
  else turn.status = turn.hits ? "cut" : "unreachable";
}

const worthWaiting = (error) =>
  error instanceof Problem && error.status === 503 && error.retryAfter && !LASTING.includes(error.slug);

async function waited(turn, seconds, signal, changed) {
  Object.assign(turn, { status: "waiting", until: Date.now() + seconds * 1000 });
  changed(turn, "status");
  await new Promise((resolve) => {
    turn.hurry = resolve;
    signal.addEventListener("abort", resolve);
    setTimeout(resolve, seconds * 1000);
  });
  delete turn.hurry;
}

function historyOf(turns) {
  return turns
    .filter((turn) => turn.answer)
    .slice(-REMEMBERED_TURNS)
    .map((turn) => ({ question: turn.question, answer: turn.answer.answer.slice(0, 20000) }));
}
