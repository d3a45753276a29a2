// Quotes as cards and passages as a list; both lead to their place in the document.

import { copyButton, make } from "./dom.js";
import { icon } from "./icons.js";
import { pageLabel, sourceLine } from "./places.js";
import { placeHash } from "./route.js";
import { say } from "./words.js";

export function quoteCards(quotes, explained = true) {
  return make(
    "section",
    { class: "quotes" },
    explained
      ? make(
          "details",
          { class: "verbatim" },
          make("summary", {}, icon("check"), say("proven", { n: quotes.length })),
          make("p", {}, say("proven_means")),
        )
      : null,
    make("ol", {}, ...quotes.map((quote) => make("li", {}, card(quote)))),
  );
}

function card(quote) {
  return make(
    "article",
    { class: "quote" },
    make(
      "h3",
      {},
      make(
        "a",
        { href: placeHash(quote), "data-place": `${quote.document}:${quote.start}`, title: say("open_place") },
        make("span", { class: "title" }, quote.title),
        " ",
        make("span", { class: "page" }, pageLabel(quote.source, quote.page)),
      ),
    ),
    make("blockquote", {}, quote.text),
    make(
      "footer",
      {},
      make("span", { class: "checked" }, icon("check"), say("verbatim")),
      copyButton(say("copy_quote"), () => `„${quote.text}“\n— ${sourceLine(quote)}`),
    ),
  );
}

/** The passages that were looked at, folded away unless `open`. */
export function hitList(hits, { open, summary }) {
  return make(
    "details",
    { class: "hits", open },
    make("summary", {}, summary),
    make(
      "ol",
      {},
      ...hits.map((hit) =>
        make(
          "li",
          {},
          make(
            "a",
            { href: placeHash(hit), "data-place": `${hit.document}:${hit.start}` },
            make("span", { class: "title" }, hit.title),
            " ",
            make("span", { class: "page" }, pageLabel(hit.source, hit.page)),
            make("span", { class: "excerpt" }, hit.text.slice(0, 240).replace(/\s+/g, " ")),
          ),
        ),
      ),
    ),
  );
}
