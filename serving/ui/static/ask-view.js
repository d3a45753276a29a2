// Questions and answers: an empty page with a field, or a conversation with the field below it.

import { get, documentPath } from "./api.js";
import { newTurn, run } from "./asking.js";
import { Composer } from "./composer.js";
import * as conversations from "./conversations.js";
import { announce, make } from "./dom.js";
import { loadFacets } from "./filters.js";
import { hashOf } from "./route.js";
import { TurnView, spoken } from "./turn.js";
import { language, say } from "./words.js";

// A turn goes on when its conversation is not looked at; what is drawn now, and hears of it, is found here.
const shown = new Map();
const titles = {};
let present = null;
let unsent = {};

/** `changed` is called when the list of conversations may have changed. */
export class AskView {
  constructor({ path, parameters }, changed) {
    this.changed = changed;
    this.wanted = path[1];
    this.conversation = this.wanted ? conversations.find(this.wanted) : null;
    const filters = parameters.document ? { document: parameters.document } : this.conversation?.filters || {};
    this.composer = new Composer({ filters, titles, asks: (question, chosen) => this.ask(question, chosen) });
    if (unsent.of === this.wanted) this.composer.text.value = unsent.text || "";
    this.turns = make("div", { class: "turns" });
    this.lead = make("div", { class: "lead" });
    this.below = make("div", { class: "below" });
    this.root = make("div", { class: "ask" }, this.lead, this.turns, this.composer.root, this.below);
    this.title = this.conversation?.turns[0].question || say("view_ask");
    this.timer = setInterval(() => shown.get(this.running())?.tick(), 1000);
    this.draw();
    this.load();
    present = this;
  }

  leave() {
    unsent = { of: this.wanted, text: this.composer.text.value };
    clearInterval(this.timer);
    shown.clear();
    present = null;
  }

  /** Put the cursor where one goes on. */
  focus() {
    this.composer.text.focus({ preventScroll: true });
  }

  /** Return the words that a quote or a passage of this conversation had at a place, as the newest turn has them. */
  wordsAt({ source, start, end }) {
    const { turns } = this.conversation || { turns: [] };
    const cited = turns.flatMap(({ answer, hits }) => (answer ? [...answer.hits, ...answer.quotes] : hits || []));
    return cited.findLast((one) => one.document === source && one.start === Number(start) && one.end === Number(end))?.text;
  }

  stop() {
    const turn = this.running();
    turn?.stop();
    return Boolean(turn);
  }

  running() {
    return this.conversation?.turns.find((turn) => turn.stop);
  }

  draw() {
    const begun = Boolean(this.conversation?.turns.length);
    this.root.classList.toggle("begun", begun);
    const gone = this.wanted && !this.conversation;
    this.lead.replaceChildren(
      make("h1", { class: begun ? "unseen" : "" }, say(begun ? "conversation" : gone ? "not_kept" : "welcome")),
      make("p", { class: "soft", hidden: begun }, say(gone ? "not_kept_means" : "welcome_means")),
    );
    for (const turn of this.conversation?.turns || []) this.add(turn);
    this.composer.setBusy(Boolean(this.running()));
    requestAnimationFrame(() => this.turns.lastElementChild?.scrollIntoView({ block: "start" }));
  }

  async load() {
    const { document } = this.composer.filters;
    const wanted = [
      loadFacets().then((found) => (this.composer.draw(), found.total)),
      this.conversation ? [] : get("/v1/suggestions", { language: language(), limit: 6 }).then((found) => found.questions),
      document && !titles[document] ? get(documentPath(document)).then((found) => (titles[document] = found.title)) : null,
    ];
    const [total, suggested, named] = await Promise.allSettled(wanted);
    if (named.value) this.composer.draw();
    if (document || this.conversation) return;
    if (suggested.value?.length) this.suggest(suggested.value);
    else if (total.value === 0) await this.begin();
  }

  suggest(questions) {
    const offered = questions.map(({ question, title }) =>
      make("li", {}, make("button", { type: "button", onclick: () => this.ask(question, this.composer.filters) },
        make("span", {}, question), make("span", { class: "soft" }, title))),
    );
    this.below.replaceChildren(make("h2", {}, say("suggested")), make("ul", { class: "suggestions" }, ...offered));
  }

  /** Say how to begin, if there is nothing to ask of. A machine that only answers lists no documents, and yet has some. */
  async begin() {
    const problem = await get("/readyz").then(() => null, (error) => error);
    if (problem?.slug !== "index-missing") return;
    this.below.replaceChildren(
      make("div", { class: "empty" }, make("h2", {}, say("nothing_indexed")), make("p", {}, say("nothing_indexed_means")),
        make("a", { class: "button primary", href: hashOf(["documents"]) }, say("add_documents"))),
    );
  }

  add(turn) {
    const view = new TurnView(turn, {
      asks: (question, filters) => this.ask(question, filters),
      edits: (question, filters) => {
        this.composer.filters = filters;
        this.composer.draw();
        this.composer.write(question);
      },
      again: (one) => this.again(one),
      kept: () => conversations.keep(this.conversation),
    });
    shown.set(turn, view);
    this.turns.append(view.root);
  }

  ask(question, filters) {
    if (this.running()) return;
    const first = !this.conversation;
    this.conversation ??= conversations.begin();
    Object.assign(this.composer, { filters });
    this.conversation.filters = filters;
    const turn = newTurn(question, filters);
    this.conversation.turns.push(turn);
    this.start(turn);
    // The address now names the conversation, which draws the view anew.
    if (first) location.hash = hashOf(["c", this.conversation.id]);
    else {
      this.add(turn);
      shown.get(turn).root.scrollIntoView({ block: "start" });
    }
  }

  again(turn) {
    if (this.running()) return;
    this.start(turn);
  }

  start(turn) {
    const { conversation } = this;
    const earlier = conversation.turns.slice(0, conversation.turns.indexOf(turn));
    const changed = (one, what) => {
      shown.get(one)?.changed(what);
      if (what === "token") return;
      announce(spoken(one));
      conversations.keep(conversation);
      present?.composer.setBusy(Boolean(present.running()));
      this.changed();
    };
    run(turn, earlier, changed);
  }
}
