// The field that questions are written in, with the filters that go with them.

import { iconButton, make } from "./dom.js";
import { filterChips, filterFields } from "./filters.js";
import { say } from "./words.js";

/**
 * `asks` is called with the question and the filters. The composer keeps what is being written until it is asked.
 */
export class Composer {
  constructor({ filters, titles, asks }) {
    this.filters = filters;
    this.titles = titles;
    this.asks = asks;
    this.text = make("textarea", {
      id: "question",
      rows: 1,
      maxlength: 4000,
      "aria-label": say("question"),
      placeholder: say("question_hint"),
      enterkeyhint: "send",
      oninput: () => this.fit(),
      onkeydown: (event) => {
        // Enter also ends the choice of a character in Chinese or Japanese; that is not asking.
        if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
        event.preventDefault();
        this.submit();
      },
    });
    this.send = iconButton(say("ask"), "ask", { class: "send", type: "submit" });
    this.chips = make("div", {});
    this.fields = make("div", {});
    this.details = make("details", { class: "filters" }, make("summary", {}, say("narrow")), this.fields);
    this.root = make("form", { class: "composer", onsubmit: (event) => (event.preventDefault(), this.submit()) },
      make("div", { class: "field" }, this.text, this.send), this.chips, this.details);
    this.draw();
  }

  draw() {
    const set = (filters) => {
      this.filters = filters;
      this.draw();
    };
    this.chips.replaceChildren(...(Object.keys(this.filters).length ? [filterChips(this.filters, this.titles, set)] : []));
    const at = [...this.fields.querySelectorAll("select, input")].indexOf(document.activeElement);
    this.fields.replaceChildren(filterFields(this.filters, set));
    this.fields.querySelectorAll("select, input")[at]?.focus();
  }

  write(question) {
    this.text.value = question;
    this.fit();
    this.text.focus();
  }

  submit() {
    const question = this.text.value.trim();
    if (!question || this.busy) return;
    this.text.value = "";
    this.fit();
    this.asks(question, this.filters);
  }

  /** While an answer is being made no other is asked for, but the next question can be written. */
  setBusy(busy) {
    this.busy = busy;
    this.send.disabled = busy;
  }

  fit() {
    this.text.style.height = "auto";
    this.text.style.height = `${this.text.scrollHeight}px`;
  }
}
