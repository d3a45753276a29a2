// Which documents a question is asked of: folder, kind, language and date, folded away until somebody wants them.

import { get } from "./api.js";
import { iconButton, make } from "./dom.js";
import { kindLabel } from "./places.js";
import { date, languageName, number, say } from "./words.js";

const NAMES = { folder: (value) => value || say("folder_top"), kind: kindLabel, language: languageName };

let facets = null;

/** Return how many documents there are of each folder, kind and language, and their number; asked for once a view. */
export async function loadFacets() {
  const found = await get("/v1/documents", { limit: 1 });
  facets = found.facets;
  return found;
}

/** Return `{key, label}` for each filter that is set. */
export function filterLabels(filters, titles = {}) {
  return Object.entries(filters).map(([key, value]) => {
    if (key === "date") return { key, label: dateLabel(value) };
    if (key === "document") return { key, label: titles[value] || say("one_document") };
    return { key, label: NAMES[key] ? NAMES[key](value) : `${key}: ${value}` };
  });
}

function dateLabel(range) {
  const [from, to] = range.split("..").map(date);
  return from && to ? `${from} – ${to}` : from ? say("date_since", { date: from }) : say("date_until", { date: to });
}

/** The filters that are set, each of which can be taken away. */
export function filterChips(filters, titles, changed) {
  return make(
    "ul",
    { class: "chips", "aria-label": say("filters_set") },
    ...filterLabels(filters, titles).map(({ key, label }) =>
      make(
        "li",
        {},
        make("span", {}, label),
        iconButton(say("filter_remove", { name: label }), "close", { onclick: () => changed(without(filters, key)) }),
      ),
    ),
  );
}

/** Fields for all filters; `changed` gets the whole of them. */
export function filterFields(filters, changed) {
  const [from, to] = (filters.date || "..").split("..");
  const set = (key, value) => changed(value ? { ...filters, [key]: value } : without(filters, key));
  const day = (name, value, range) =>
    field(
      say(name),
      make("input", { type: "date", value, onchange: (event) => set("date", rangeOf(range(event.target.value))) }),
    );
  return make(
    "div",
    { class: "fields" },
    ...Object.keys(NAMES).map((key) => facetSelect(key, facets?.[key] || {}, filters[key], (value) => set(key, value))),
    day("date_from", from, (value) => [value, to]),
    day("date_to", to, (value) => [from, value]),
  );
}

export function facetSelect(key, counts, chosen, changed) {
  const values = Object.entries(counts).filter(([value]) => value).sort(([left], [right]) => left.localeCompare(right));
  const select = make(
    "select",
    { onchange: () => changed(select.value) },
    make("option", { value: "" }, say("any")),
    ...values.map(([value, count]) => make(
      "option",
      { value, selected: value === chosen },
      `${NAMES[key](value)} (${number(count)})`,
    )),
  );
  return field(say(`filter_${key}`), select);
}

export const field = (label, input) => make("label", {}, make("span", {}, label), input);

function without(filters, key) {
  const { [key]: _, ...others } = filters;
  return others;
}

const rangeOf = ([from, to]) => (from || to ? `${from}..${to}` : "");
