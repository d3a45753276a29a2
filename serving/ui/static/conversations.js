// Conversations, kept by this browser and nowhere else. Where it may keep nothing they last as long as the page.

const PREFIX = "beleg.conversation.";
const MOST = 100;
// Half of what browsers keep for a page: a longer one would push out all others, and then perhaps not fit either.
const LONGEST = 2_500_000;
const RUNNING = ["searching", "reading", "waiting"];

const open = new Map();

/** Return a conversation with no turns, which is kept with its first answer. */
export function begin(filters = {}) {
  const id = Date.now().toString(36) + Math.random().toString(36).slice(2, 8);
  const conversation = { id, time: Date.now(), turns: [], filters };
  open.set(id, conversation);
  return conversation;
}

/** Return a conversation, or null if this browser does not have it. */
export function find(id) {
  if (!open.has(id)) {
    const kept = read(PREFIX + id);
    if (kept) open.set(id, kept);
  }
  return open.get(id) || null;
}

/** Return all that have at least one question, newest first. */
export function list() {
  const found = new Map(keys().map((key) => [key, read(key)]).filter(([, one]) => one).map(([, one]) => [one.id, one]));
  for (const one of open.values()) if (one.turns.length) found.set(one.id, one);
  return [...found.values()].sort((left, right) => right.time - left.time);
}

/** Keep a conversation, unless it was deleted meanwhile, here or in another tab. */
export function keep(conversation) {
  if (open.get(conversation.id) !== conversation) return;
  conversation.time = Date.now();
  const turns = conversation.turns.map(({ question, filters, status, hits, text, answer, feedback }) => ({
    // What was running when the page was left is found as a question that was broken off.
    // An answer has its hits itself.
    question, filters, status: RUNNING.includes(status) ? "cut" : status, hits: answer ? null : hits, text, answer, feedback,
  }));
  const value = JSON.stringify({ ...conversation, turns });
  if (value.length > LONGEST) return;
  const others = list().filter((one) => one.id !== conversation.id);
  for (const old of others.slice(MOST - 1)) forget(old.id);
  for (const old of [null, ...others.slice(0, MOST - 1).reverse()]) {
    // When the browser's room is used up, the oldest make place.
    if (old) forget(old.id);
    try {
      localStorage.setItem(PREFIX + conversation.id, value);
      return;
    } catch (error) {
      if (error.name !== "QuotaExceededError") return;
    }
  }
}

export function forget(id) {
  open.delete(id);
  try {
    localStorage.removeItem(PREFIX + id);
  } catch {
    // Nothing was kept.
  }
}

export function forgetAll() {
  for (const one of list()) forget(one.id);
}

/** Forget as well what another tab has deleted; takes the event that tells of it. */
export function forgetDeleted({ key, newValue }) {
  if (key === null) open.clear();
  else if (key.startsWith(PREFIX) && newValue === null) open.delete(key.slice(PREFIX.length));
}

function keys() {
  try {
    return Object.keys(localStorage).filter((key) => key.startsWith(PREFIX));
  } catch {
    return [];
  }
}

function read(key) {
  try {
    const found = JSON.parse(localStorage.getItem(key));
    return found && Array.isArray(found.turns) && found.turns.length ? found : null;
  } catch {
    return null;
  }
}
