// The place a quote is from, beside the answer: the page as it is printed, or the text with the quote marked.

import { documentPath } from "./api.js";
import { iconButton, make, problemBox } from "./dom.js";
import { DocumentText } from "./document-text.js";
import { countPoints, cutAt } from "./offsets.js";
import { pagePicture } from "./page-picture.js";
import { fileName, pageLabel } from "./places.js";
import { hashOf } from "./route.js";
import { say } from "./words.js";

// Whoever prefers the text of one document prefers it of the next.
let preferred = "printed";

export class SourceView {
  /** `place` is of an address: `{source, start, end, page}`, all strings; `words` are what was quoted there, if it is known. */
  constructor(place, words, closes) {
    this.words = words;
    this.document = place.source;
    this.mark = place.end ? { start: Number(place.start), end: Number(place.end) } : null;
    this.page = place.page ? Number(place.page) : null;
    this.heading = make("h2", { tabindex: -1 }, "…");
    this.where = make("p", { class: "soft" });
    this.whole = make("a", { class: "button", href: this.wholeHash() }, say("open_document"));
    this.tabs = make("div", { class: "tabs", role: "tablist" });
    this.content = make("div", { class: "content", tabindex: 0, id: "source-content" });
    this.reading = new DocumentText(this.document, { scroller: this.content, mark: this.mark });
    this.parts = [
      make("header", {}, make("div", {}, this.heading, this.where), iconButton(say("close"), "close", { onclick: closes })),
      this.tabs,
      this.content,
      make("footer", { class: "row" },
        this.whole,
        make(
          "a",
          { class: "button", href: documentPath(this.document, "/file"), target: "_blank", rel: "noopener" },
          say("original"),
        )),
    ];
  }

  async load() {
    try {
      this.content.replaceChildren(this.reading.root);
      const about = await this.reading.open(this.mark?.start ?? 0, this.mark?.end);
      if (this.mark && this.words) this.settle(about);
      this.heading.textContent = about.title;
      this.where.textContent = [pageLabel(about.source, this.page), fileName(about.source)].filter(Boolean).join(" · ");
      if (about.kind === "pdf" && about.pages.length) this.choose(preferred, about);
    } catch (error) {
      const gone = error.status === 404;
      this.heading.textContent = say("source");
      this.content.replaceChildren(
        problemBox(say(gone ? "document_gone" : "not_loaded"), gone ? new Error(say("document_gone_means")) : error)
      );
    }
  }

  /** A conversation is kept for longer than what it quotes stands still: mark its words where they are now, or nothing. */
  settle(about) {
    const found = placeOf(this.words, this.mark, about);
    if (found?.start === this.mark.start) return;
    const { start } = found ?? this.mark;
    this.mark = this.reading.mark = found;
    this.page = found && about.pages.length ? about.pages.findLastIndex((offset) => offset <= start) + 1 : null;
    this.whole.href = this.wholeHash();
    this.reading.show(about, start);
    if (!found) this.tabs.before(problemBox(say("place_changed"), new Error(say("place_changed_means"))));
  }

  wholeHash() {
    return hashOf(["documents", this.document], this.mark ?? {});
  }

  choose(tab, about) {
    preferred = tab;
    this.tabs.replaceChildren(
      ...["printed", "text"].map((name) =>
        make("button", {
          type: "button",
          role: "tab",
          "aria-selected": String(name === tab),
          "aria-controls": "source-content",
          tabindex: name === tab ? 0 : -1,
          onclick: () => this.choose(name, about),
          onkeydown: (event) => {
            if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
            this.choose(name === "text" ? "printed" : "text", about);
            this.tabs.querySelector("[aria-selected=true]").focus();
          },
        }, say(`tab_${name}`)),
      ),
    );
    if (tab === "printed") {
      const { title, pages } = about;
      this.content.replaceChildren(
        pagePicture({ document: this.document, title, pages: pages.length, page: this.page, ...this.mark })
      );
    } else {
      this.content.replaceChildren(this.reading.root);
      this.reading.go(this.mark?.start ?? 0);
    }
  }

  close() {
    this.reading.close();
  }
}

/** Return where the words of a place are in what was fetched of a document: there, elsewhere, or null. */
function placeOf(words, { start, end }, { text, start: from }) {
  if (cutAt(text, [start - from, end - from])[1] === words) return { start, end };
  const units = text.indexOf(words);
  if (units < 0) return null;
  const found = from + countPoints(text.slice(0, units));
  return { start: found, end: found + countPoints(words) };
}
