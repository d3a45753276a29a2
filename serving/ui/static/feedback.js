// Thumbs up or down, once per answer, with what training learns from: the answer, its quotes and its hits as they came.

import { post } from "./api.js";
import { announce, button, make } from "./dom.js";
import { say } from "./words.js";

const PLACE = ["document", "source", "title", "page", "start", "end", "text"];
const SCORES = ["score", "dense", "keyword", "reranked"];

export function feedbackView(turn, kept) {
  const box = make("div", { class: "feedback" });
  draw(box, turn, kept);
  return box;
}

function draw(box, turn, kept) {
  if (turn.feedback) {
    box.replaceChildren(make("span", { class: "soft" }, say("thanks")));
    return;
  }
  const choose = (verdict) => () => form(box, turn, verdict, kept);
  box.replaceChildren(
    make("span", { class: "soft" }, say("was_it_good")),
    button(say("good"), { class: "quiet", onclick: choose("good") }, "up"),
    button(say("bad"), { class: "quiet", onclick: choose("bad") }, "down"),
  );
}

function form(box, turn, verdict, kept) {
  const comment = make(
    "textarea",
    { rows: 2, maxlength: 4000, "aria-label": say("comment"), placeholder: say(`comment_${verdict}`) },
  );
  const failed = make("span", { class: "failed", role: "alert" });
  const send = button(say("send"), { class: "primary", type: "submit" });
  const filled = make(
    "form",
    { class: "comment" },
    make("span", { class: "soft" }, say(`said_${verdict}`)),
    comment,
    make("div", { class: "row" }, send, button(say("cancel"), { onclick: () => draw(box, turn, kept) }), failed),
  );
  filled.addEventListener("submit", async (event) => {
    event.preventDefault();
    send.disabled = true;
    try {
      await post("/v1/feedback", saidOf(turn, verdict, comment.value));
      turn.feedback = verdict;
      kept();
      draw(box, turn, kept);
      announce(say("thanks"));
    } catch (error) {
      send.disabled = false;
      failed.textContent = error.wayOut ? `${error.message} ${error.wayOut}` : say("not_sent");
    }
  });
  box.replaceChildren(filled);
  comment.focus();
}

function saidOf({ question, answer }, verdict, comment) {
  // A follow-up says little by itself; what was searched for stands alone.
  return {
    question: answer.query || question,
    verdict,
    answer: answer.answer,
    release: answer.release,
    quotes: answer.quotes.map((quote) => only(quote, PLACE)),
    hits: answer.hits.map((hit) => only(hit, [...PLACE, ...SCORES])),
    comment,
  };
}

const only = (value, names) => Object.fromEntries(names.map((name) => [name, value[name]]));
