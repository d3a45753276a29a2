// A PDF's page as it is printed, with the quote marked on it by the server.

import { pagePath } from "./api.js";
import { iconButton, make } from "./dom.js";
import { say } from "./words.js";

const WIDTHS = [800, 1100, 1500, 2000];

/** Return a viewer for the pages of a document that begins with the page of the quote. */
export function pagePicture({ document, title, pages, page, start, end }) {
  let at = Math.min(Math.max(1, page || 1), pages);
  let zoom = 0;
  const picture = make("img", { class: "page-picture" });
  const failed = make("p", { class: "soft", hidden: true }, say("no_picture"));
  const count = make("span", { class: "soft", "aria-live": "polite" });
  const back = iconButton(say("page_before"), "back", { onclick: () => turn(-1) });
  const forward = iconButton(say("page_after"), "forward", { onclick: () => turn(1) });
  const smaller = iconButton(say("smaller"), "minus", { onclick: () => scale(-1) });
  const larger = iconButton(say("larger"), "plus", { onclick: () => scale(1) });
  const paper = make("div", { class: "paper", tabindex: 0, role: "group", "aria-label": say("tab_printed") }, picture, failed);
  const root = make(
    "div",
    { class: "printed" },
    make("div", { class: "tools" }, back, count, forward, make("i", {}), smaller, larger),
    paper,
  );

  function show() {
    paper.classList.add("loading");
    picture.hidden = false;
    failed.hidden = true;
    picture.alt = say(at === page ? "picture_marked" : "picture", { n: at, title });
    picture.src = pagePath(document, at, start, end, WIDTHS[zoom]);
    picture.className = `page-picture zoom-${zoom}`;
    count.textContent = say("page_of", { n: at, pages });
    back.disabled = at === 1;
    forward.disabled = at === pages;
    smaller.disabled = zoom === 0;
    larger.disabled = zoom === WIDTHS.length - 1;
  }
  function turn(by) {
    at += by;
    show();
  }
  function scale(by) {
    zoom += by;
    show();
  }
  picture.addEventListener("load", () => paper.classList.remove("loading"));
  picture.addEventListener("error", () => {
    paper.classList.remove("loading");
    picture.hidden = true;
    failed.hidden = false;
  });
  show();
  return root;
}
