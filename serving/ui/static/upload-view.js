// Where files are dropped or chosen, and what becomes of each of them.

import { button, make } from "./dom.js";
import { icon } from "./icons.js";
import { pagesLabel } from "./places.js";
import { hashOf } from "./route.js";
import { chosen, dropped, forgetEnded, onUploads, upload, uploads } from "./uploads.js";
import { languageName, say } from "./words.js";

const FOLDERS = "webkitdirectory" in HTMLInputElement.prototype;

/** `changed` is called when an upload has ended. `root` takes files that are dropped on it. */
export function uploadView(root, changed) {
  const list = make("ul", { class: "uploads" });
  const clear = button(say("uploads_clear"), { class: "quiet", onclick: forgetEnded });
  const pick = (folder) => {
    const input = make("input", { type: "file", multiple: true, webkitdirectory: folder });
    input.addEventListener("change", () => upload(chosen(input)));
    input.click();
  };
  const zone = make("div", { class: "zone" }, icon("upload"), make("p", {}, say("drop_here")),
    make("div", { class: "row" },
      button(say("choose_files"), { class: "primary", onclick: () => pick(false) }, "file"),
      FOLDERS ? button(say("choose_folder"), { onclick: () => pick(true) }, "folder") : null));

  const items = new Map();
  const draw = (one, what) => {
    if (what === "share" && items.has(one)) {
      items.get(one).querySelector("progress")?.setAttribute("value", one.share);
      return;
    }
    items.clear();
    for (const each of uploads) items.set(each, item(each));
    list.replaceChildren(...items.values());
    clear.hidden = !uploads.some(({ status }) => ["done", "failed"].includes(status));
    if (one?.problem) heed(one.problem);
    if (one && ["done", "failed"].includes(one.status)) changed();
  };
  onUploads(draw);
  draw();

  let inside = 0;
  const over = (by) => root.classList.toggle("dropping", (inside = Math.max(0, inside + by)) > 0);
  root.addEventListener("dragenter", () => over(1));
  root.addEventListener("dragleave", () => over(-1));
  root.addEventListener("dragover", (event) => event.preventDefault());
  root.addEventListener("drop", async (event) => {
    event.preventDefault();
    over(-inside);
    upload(await dropped(event.dataTransfer));
  });
  return make("section", { "aria-label": say("add_documents") }, zone, list, clear);
}

/** Offer no changes any more, for as long as the page is open, if a problem says that the server takes none. */
export function heed({ slug }) {
  if (slug === "uploads-off") document.body.classList.add("unchangeable");
}

function item({ name, status, share, document, problem }) {
  const says = {
    queued: () => make("span", { class: "soft" }, say("upload_queued")),
    sending: () => make("progress", { value: share, max: 1, "aria-label": say("upload_sending", { name }) }),
    reading: () => make("span", { class: "soft" }, say("upload_reading")),
    done: () => make("span", { class: "soft" }, icon("check"), outcome(document)),
    failed: () => make(
      "span",
      { class: "failed" },
      icon("warning"),
      `${problem.message || say("unreachable")} ${problem.wayOut || ""}`,
    ),
  };
  const title = document ? make("a", { href: hashOf(["documents", document.document]) }, name) : make("span", {}, name);
  return make("li", { "data-status": status }, title, says[status]());
}

function outcome(document) {
  const { language, source, pages, chunks } = document;
  return [languageName(language), pagesLabel(source, pages), say("count_passages", { n: chunks })].filter(Boolean).join(" · ");
}
