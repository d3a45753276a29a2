// A document's text, of which only what is looked at is loaded: some text around a place, and more as one scrolls on.

import { documentPath, get } from "./api.js";
import { make } from "./dom.js";
import { cutAt, countPoints } from "./offsets.js";
import { pageLabel } from "./places.js";
import { say } from "./words.js";

const AROUND = 3000;
const MORE = 8000;

/** Offsets are code points of the whole document, as everywhere in Beleg. */
export class DocumentText {
  /** `scroller` is the element that scrolls; `mark` is `{start, end}` or null. */
  constructor(document, { scroller, mark = null }) {
    this.document = document;
    this.scroller = scroller;
    this.mark = mark;
    this.text = make("div", { class: "text" });
    this.root = make("div", { class: "document-text" });
    this.watch = new IntersectionObserver((entries) => {
      for (const entry of entries) if (entry.isIntersecting) this.more(entry.target === this.above);
    }, { root: scroller.scrollHeight > scroller.clientHeight ? scroller : null, rootMargin: "600px" });
  }

  close() {
    this.watch.disconnect();
  }

  /** Load the text around a place, show it, and scroll there. Returns what the server said of the document. */
  async open(start = 0, end = start) {
    const mine = (this.opening = {});
    const found = await this.fetch(Math.max(0, start - AROUND), end + AROUND);
    // Not if another place has been opened meanwhile.
    if (this.opening === mine) this.show(found, start);
    return found;
  }

  /** Show what was fetched in place of everything before, and scroll to a place in it. */
  show(found, start) {
    this.shown = { from: found.start, to: found.end, length: found.length, loading: false };
    this.above = make("div", { class: "edge" });
    this.beneath = make("div", { class: "edge" });
    this.text.replaceChildren(this.drawn(found));
    this.root.replaceChildren(this.above, this.text, this.beneath);
    requestAnimationFrame(() => {
      if (start > 0) this.jump(start);
      // Watched only now: at first the beginning is in sight, although nobody wants what stands before the place.
      this.watchEdges();
    });
  }

  watchEdges() {
    this.watch.disconnect();
    this.watch.observe(this.above);
    this.watch.observe(this.beneath);
  }

  /** Scroll to a place, which is loaded first where need be. */
  async go(offset) {
    if (!this.shown || offset < this.shown.from || offset >= this.shown.to) {
      await this.open(offset);
    } else {
      this.opening = null;
      this.jump(offset);
    }
  }

  jump(offset) {
    const marked = this.text.querySelector("mark");
    const places = [...this.text.querySelectorAll("[data-start]")];
    const heading = places.findLast((place) => Number(place.dataset.start) <= offset);
    const target = this.mark && offset === this.mark.start ? marked : heading;
    const block = target === marked ? "center" : "start";
    target?.scrollIntoView({ block });
  }

  async more(before) {
    const { shown } = this;
    const { from, to, length, loading } = shown;
    if (loading || (before ? from <= 0 : to >= length)) return;
    shown.loading = true;
    try {
      const found = await (before ? this.fetch(Math.max(0, from - MORE), from) : this.fetch(to, to + MORE));
      // It continues a text that is no longer there.
      if (this.shown !== shown) return;
      const height = this.scroller.scrollHeight;
      this.text[before ? "prepend" : "append"](this.drawn(found));
      if (before) this.scroller.scrollTop += this.scroller.scrollHeight - height;
      shown.from = Math.min(from, found.start);
      shown.to = Math.max(to, found.end);
      // Still in sight perhaps, of which the observer would not tell again.
      this.watchEdges();
    } catch {
      if (this.shown === shown) this.beneath.replaceChildren(make("p", { class: "soft" }, say("text_cut")));
    } finally {
      shown.loading = false;
    }
  }

  fetch(start, end) {
    return get(documentPath(this.document, "/text"), { start, end });
  }

  /** Return a stretch of text with its headings, page breaks and mark. All of its characters are in it, in their order. */
  drawn({ text, start, pages, headings, source }) {
    const end = start + countPoints(text);
    const breaks = new Map(pages.map((offset, index) => [offset, index + 1]));
    const spans = headings.filter((one) => one.end > start && one.start < end);
    const edges = [
      ...breaks.keys(),
      ...spans.flatMap((one) => [one.start, one.end]),
      ...(this.mark ? [this.mark.start, this.mark.end] : []),
    ];
    const cuts = [...new Set(edges.filter((edge) => edge > start && edge < end))].sort((left, right) => left - right);
    const pieces = cutAt(text, cuts.map((cut) => cut - start));
    const made = make("span", {});
    pieces.forEach((piece, index) => {
      const at = index ? cuts[index - 1] : start;
      if (breaks.has(at)) made.append(pageBreak(pageLabel(source, breaks.get(at)), at));
      if (!piece) return;
      const marked = this.mark && this.mark.start <= at && at < this.mark.end;
      const heading = spans.find((one) => one.start <= at && at < one.end);
      const drawn = marked ? make("mark", {}, piece) : piece;
      made.append(heading ? headed(heading, drawn) : drawn);
    });
    return made;
  }
}

// Its label is drawn by the style sheet, and is no part of the text.
const pageBreak = (label, at) =>
  make("span", { class: "break", role: "separator", "aria-label": label, "data-label": label, "data-start": at });

function headed({ level, start }, drawn) {
  const place = { role: "heading", "aria-level": Math.min(level + 1, 6), "data-start": start };
  return make("span", { class: `heading level-${Math.min(level, 4)}`, ...place }, drawn);
}
