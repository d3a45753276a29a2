// Everything that the page says, in German or English; numbers, dates and languages as people of that language write them.

import { DE } from "./words-de.js";
import { EN } from "./words-en.js";

const WORDS = { de: DE, en: EN };
const KEY = "beleg.language";

let current = remembered() || ((navigator.language || "en").toLowerCase().startsWith("de") ? "de" : "en");

export const language = () => current;

export function setLanguage(chosen) {
  current = chosen;
  try {
    localStorage.setItem(KEY, chosen);
  } catch {
    // A browser that keeps nothing asks its own language the next time.
  }
}

/** Return a text; `{name}` in it is replaced, and an entry of two forms is chosen by `values.n`. */
export function say(key, values = {}) {
  const entry = WORDS[current][key];
  const text = typeof entry === "object" ? entry[values.n === 1 ? "one" : "other"] : entry;
  return text.replace(/\{(\w+)\}/g, (_, name) => (typeof values[name] === "number" ? number(values[name]) : values[name]));
}

/** Return a text if there is one by that name, else the other. */
export const sayOr = (key, otherwise) => (key in WORDS[current] ? say(key) : otherwise);

export const number = (value) => new Intl.NumberFormat(current).format(value);

export const seconds = (value) => new Intl.NumberFormat(current, { maximumFractionDigits: value < 10 ? 1 : 0 }).format(value);

export function date(value) {
  // As UTC: a date without a time is the same day everywhere.
  const style = { dateStyle: "medium", timeZone: "UTC" };
  return value ? new Intl.DateTimeFormat(current, style).format(new Date(`${value}T00:00:00Z`)) : "";
}

export function moment(value) {
  return new Intl.DateTimeFormat(current, { dateStyle: "medium", timeStyle: "short" }).format(new Date(value));
}

export function languageName(code) {
  if (!code || code === "und") return say("language_unknown");
  try {
    return new Intl.DisplayNames(current, { type: "language" }).of(code);
  } catch {
    return code;
  }
}

function remembered() {
  try {
    const kept = localStorage.getItem(KEY);
    return kept in WORDS ? kept : null;
  } catch {
    return null;
  }
}
