// One document: its text with an outline of its headings, and the way to ask of it alone.

import { documentPath, get } from "./api.js";
import { make, problemBox } from "./dom.js";
import { DocumentText } from "./document-text.js";
import { icon } from "./icons.js";
import { kindLabel, pagesLabel } from "./places.js";
import { hashOf } from "./route.js";
import { date, languageName, say } from "./words.js";

export class DocumentView {
  constructor({ path, parameters }) {
    this.document = path[1];
    this.start = Number(parameters.start) || 0;
    const mark = parameters.end ? { start: this.start, end: Number(parameters.end) } : null;
    this.title = say("view_documents");
    this.heading = make("h1", { tabindex: -1 }, "…");
    this.root = make("div", { class: "document" });
    this.text = new DocumentText(this.document, { scroller: document.scrollingElement, mark });
    this.loaded = this.load();
  }

  leave() {
    this.text.close();
  }

  focus() {
    this.loaded.then(() => this.heading.focus({ preventScroll: true }));
  }

  async load() {
    this.root.replaceChildren(this.heading);
    try {
      const about = await get(documentPath(this.document));
      document.title = `${about.title} · Beleg`;
      this.heading.textContent = about.title;
      this.root.replaceChildren(
        make("header", {}, this.heading, ...this.about(about)),
        ...this.outline(about.headings),
        this.text.root,
      );
      await this.text.open(this.start);
    } catch (error) {
      const gone = error.status === 404;
      const back = make("a", { class: "button", href: hashOf(["documents"]) }, say("see_documents"));
      this.heading.textContent = say(gone ? "document_gone" : "not_loaded");
      this.root.replaceChildren(
        this.heading,
        problemBox(say(gone ? "document_gone" : "not_loaded"), gone ? new Error(say("document_gone_means")) : error, back),
      );
    }
  }

  about(one) {
    const facts = [
      kindLabel(one.kind),
      languageName(one.language),
      pagesLabel(one.source, one.pages),
      say("count_passages", { n: one.chunks }),
      date(one.date),
    ];
    return [
      make("p", { class: "soft" }, facts.filter(Boolean).join(" · ")),
      make("p", { class: "soft small source" }, one.source),
      make("div", { class: "row" },
        make(
          "a",
          { class: "button primary", href: hashOf([], { document: this.document }) },
          icon("search"),
          say("ask_document"),
        ),
        make(
          "a",
          { class: "button", href: documentPath(this.document, "/file"), target: "_blank", rel: "noopener" },
          icon("file"),
          say("original"),
        )),
    ];
  }

  outline(headings) {
    if (headings.length < 2) return [];
    const links = headings.map((one) =>
      make(
        "li",
        { class: `level-${Math.min(one.level, 4)}` },
        make("button", { type: "button", onclick: () => this.text.go(one.start) }, one.text),
      ));
    return [
      make(
        "nav",
        { class: "outline", "aria-label": say("outline") },
        make(
          "details",
          { open: matchMedia("(min-width: 60rem)").matches },
          make("summary", {}, say("outline")),
          make("ol", {}, ...links),
        ),
      ),
    ];
  }
}
