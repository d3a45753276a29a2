// Where in a document something stands, in the words of its kind: page, sheet, slide.

import { say, sayOr } from "./words.js";

const UNITS = { xlsx: "sheet", ods: "sheet", csv: "rows", tsv: "rows", pptx: "slide", odp: "slide", eml: "message" };

const suffixOf = (source) => source.slice(source.lastIndexOf(".") + 1).toLowerCase();

/** Return “page 3”, “sheet 2” and the like, or nothing for a document without pages. */
export function pageLabel(source, page) {
  return page === null || page === undefined ? "" : say(`at_${UNITS[suffixOf(source)] || "page"}`, { n: page });
}

export const pagesLabel = (source, pages) => (pages ? say(`count_${UNITS[suffixOf(source)] || "page"}`, { n: pages }) : "");

export const kindLabel = (kind) => sayOr(`kind_${kind}`, String(kind).toUpperCase());

export const fileName = (source) => source.slice(source.lastIndexOf("/") + 1);

/** Return one line that says where a quote is from: title, page, file. */
export function sourceLine({ title, source, page }) {
  return [title, pageLabel(source, page), fileName(source)].filter(Boolean).join(", ");
}
