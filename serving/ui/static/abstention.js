// No answer, said well: why, what was searched, the nearest passages, and how to ask better.

import { button, make } from "./dom.js";
import { filterLabels } from "./filters.js";
import { hitList, quoteCards } from "./quotes.js";
import { hashOf } from "./route.js";
import { say, sayOr } from "./words.js";

// What helps depends on why nothing was found: other words do not help where every passage was filtered out.
const TIPS = {
  nothing_found: ["tip_filters", "tip_documents"],
  weak_retrieval: ["tip_words", "tip_one_thing", "tip_documents"],
  not_in_passages: ["tip_look", "tip_words", "tip_one_thing"],
  unproven: ["tip_look", "tip_one_thing"],
  unsupported: ["tip_quotes", "tip_one_thing"],
  changed: ["tip_again"],
};

/** `asks` is called with a question and filters; `edits` with the question that is to be put differently. */
export function abstentionView(turn, { asks, edits }) {
  const { answer, filters } = turn;
  const filtered = Object.keys(filters).length > 0;
  const tips = (TIPS[answer.reason] || ["tip_words"]).filter((tip) => tip !== "tip_filters" || filtered);
  const searched = [
    say("searched_for", { query: answer.query || turn.question }),
    ...filterLabels(filters).map(({ label }) => label),
  ];
  return make(
    "div",
    { class: "abstention" },
    make("p", { class: "says" }, answer.answer),
    make("p", {}, sayOr(`because_${answer.reason}`, "")),
    answer.quotes.length ? quoteCards(answer.quotes) : null,
    make("h3", {}, say("what_was_searched")),
    make("p", { class: "soft" }, `${searched.join(" · ")} · ${say("passages_found", { n: answer.hits.length })}`),
    answer.hits.length ? hitList(answer.hits, { open: true, summary: say("nearest") }) : null,
    make("h3", {}, say("ask_better")),
    make("ul", { class: "tips" }, ...tips.map((tip) => make("li", {}, say(tip)))),
    make(
      "div",
      { class: "row" },
      filtered ? button(say("without_filters"), { class: "primary", onclick: () => asks(turn.question, {}) }) : null,
      answer.reason === "changed"
        ? button(say("ask_again"), { class: "primary", onclick: () => asks(turn.question, filters) })
        : null,
      button(say("rephrase"), { onclick: () => edits(turn.question, filters) }),
      make("a", { class: "button", href: hashOf(["documents"]) }, say("see_documents")),
    ),
  );
}
