// A question and what came of it: the search, the draft while it is written, and at last the checked answer.

import { abstentionView } from "./abstention.js";
import { button, copyButton, make, problemBox } from "./dom.js";
import { feedbackView } from "./feedback.js";
import { icon } from "./icons.js";
import { partsOf } from "./marks.js";
import { hitList, quoteCards } from "./quotes.js";
import { sourceLine } from "./places.js";
import { hashOf } from "./route.js";
import { say, seconds } from "./words.js";

const SLOW_S = 10;

/** Draws a turn, and again whenever its status changes. `does` has `asks`, `edits`, `again` and `kept`. */
export class TurnView {
  constructor(turn, does) {
    this.turn = turn;
    this.does = does;
    this.body = make("div", { class: "body" });
    this.root = make("article", { class: "turn" }, make("h2", { class: "question" }, turn.question), this.body);
    this.draw();
  }

  /** Draw what has changed; tokens change the draft only, once a frame. */
  changed(what) {
    if (what !== "token") this.draw();
    else this.frame ??= requestAnimationFrame(() => ((this.frame = null), this.drawDraft()));
  }

  draw() {
    const { turn } = this;
    this.draft = null;
    this.root.setAttribute("aria-busy", String(Boolean(turn.stop)));
    this.body.replaceChildren(...this.parts().filter(Boolean));
    if (turn.text) this.drawDraft();
    this.tick();
  }

  parts() {
    const { turn } = this;
    const again = () => button(say("ask_again"), { class: "primary", onclick: () => this.does.again(turn) });
    const documents = () => make("a", { class: "button", href: hashOf(["documents"]) }, say("add_documents"));
    if (turn.status === "answered") return [turn.answer.abstained ? abstentionView(turn, this.does) : null, ...this.answered()];
    if (turn.status === "waiting") return [this.progress(), make("p", { class: "soft" }, say("overloaded"))];
    if (turn.status === "failed") {
      const missing = turn.problem?.slug === "index-missing";
      const box = problemBox(say(missing ? "nothing_indexed" : "failed"), turn.problem, missing ? documents() : again());
      return [box, this.unchecked(), this.hits(false)];
    }
    if (turn.status === "unreachable") return [problemBox(say("unreachable"), new Error(say("unreachable_means")), again())];
    if (turn.status === "cut") return [
      problemBox(say("cut"), new Error(say("cut_means")), again()),
      this.unchecked(),
      this.hits(false),
    ];
    if (turn.status === "cancelled") {
      return [make("p", { class: "stopped" }, say("cancelled"), again()), this.unchecked(), this.hits(false)];
    }
    return [this.progress(), this.unchecked(), this.hits(true)];
  }

  progress() {
    const waits = this.turn.status === "waiting";
    this.line = make("span", { class: "line" });
    const bar = make("div", { class: "bar", "aria-hidden": "true" }, make("i"));
    const stop = button(say("stop"), { class: "quiet", onclick: () => this.turn.stop?.() }, "stop");
    const now = waits ? button(say("ask_now"), { class: "quiet", onclick: () => this.turn.hurry?.() }) : null;
    return make("div", { class: "progress" }, bar, make("div", { class: "row" }, this.line, now, stop));
  }

  /** Say how long it has taken; called every second while the turn runs. */
  tick() {
    const { turn } = this;
    if (!turn.stop || !this.line) return;
    const passed = Math.round((Date.now() - turn.began) / 1000);
    const found = turn.hits ? say("passages_found", { n: turn.hits.length }) : "";
    const reading = passed >= SLOW_S ? "still_reading" : "reading";
    const now = {
      waiting: () => say("waiting", { n: Math.max(1, Math.ceil((turn.until - Date.now()) / 1000)) }),
      searching: () => say("searching"),
      reading: () => `${found} · ${say(turn.text ? "writing" : reading, { n: passed })}`,
    };
    this.line.textContent = now[turn.status]();
  }

  hits(open) {
    const { hits } = this.turn;
    return hits?.length ? hitList(hits, { open, summary: say("passages_found", { n: hits.length }) }) : null;
  }

  unchecked() {
    this.draft = make("div", {});
    return make(
      "section",
      { class: "draft", hidden: true },
      make("h3", {}, say(this.turn.stop ? "unchecked" : "never_checked")),
      this.draft,
    );
  }

  drawDraft() {
    if (!this.draft) return;
    const parts = partsOf(this.turn.text);
    const drawn = { quote: ["blockquote"], thought: ["p"], answer: ["p", { class: "worded" }] };
    this.draft.replaceChildren(...parts.map(({ kind, text }) => make(drawn[kind][0], drawn[kind][1], text)));
    this.draft.parentElement.hidden = parts.length === 0;
    this.tick();
  }

  answered() {
    const { turn } = this;
    const { answer } = turn;
    const items = (answer.notes || []).map((note) => make("li", {}, note));
    const notes = items.length ? make("ul", { class: "notes", lang: "en" }, ...items) : null;
    const took = Object.values(answer.timings || {}).reduce((sum, one) => sum + one, 0);
    const about = make("span", { class: "soft" }, answer.cached ? say("from_memory") : say("took", { seconds: seconds(took) }));
    const copy = answer.abstained ? null : copyButton(say("copy_answer"), () => copied(answer));
    const foot = make(
      "footer",
      { class: "foot" },
      feedbackView(turn, this.does.kept),
      make("div", { class: "row" }, about, copy),
    );
    if (answer.abstained) return [notes, foot];
    const differs = answer.query && answer.query !== turn.question;
    return [
      differs ? make("p", { class: "soft" }, icon("search"), " ", say("searched_for", { query: answer.query })) : null,
      make("p", { class: "answer" }, answer.answer),
      quoteCards(answer.quotes),
      notes,
      hitList(answer.hits, { open: false, summary: say("passages_looked_at", { n: answer.hits.length }) }),
      foot,
    ];
  }
}

/** Return what is said of a turn to those who listen, when its status changes. */
export function spoken({ status, hits, answer, problem }) {
  if (status === "searching") return say("searching");
  if (status === "reading") return `${say("passages_found", { n: hits.length })}, ${say("reading")}`;
  if (status === "waiting") return say("overloaded");
  if (status === "answered") {
    if (answer.abstained) return answer.answer;
    return `${say("answer")}: ${answer.answer} ${say("proven", { n: answer.quotes.length })}`;
  }
  return status === "failed" ? problem?.message || say("failed") : say(status);
}

function copied({ answer, quotes }) {
  return [answer, ...quotes.map((quote) => `„${quote.text}“\n— ${sourceLine(quote)}`)].join("\n\n");
}
