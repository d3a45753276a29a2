// The frame around the views: which one is open, the language, the conversations beside it, and the source of a quote.

import { AskView } from "./ask-view.js";
import * as conversations from "./conversations.js";
import { DocumentView } from "./document-view.js";
import { DocumentsView } from "./documents-view.js";
import { make } from "./dom.js";
import { icon } from "./icons.js";
import { closedHash, hashOf, routeOf } from "./route.js";
import { sideView } from "./side.js";
import { SourceView } from "./source.js";
import { language, say, setLanguage } from "./words.js";

const $ = (id) => document.getElementById(id);
const narrow = matchMedia("(max-width: 60rem)");
const PLACE = ["source", "start", "end", "page"];

let view = null;
let source = null;
let opener = null;
let sideOpen = false;
let lastAsked = "#/";

function show({ first = false } = {}) {
  const route = routeOf(location.hash);
  const asks = route.path[0] !== "documents";
  const key = keyOf(route);
  if (view?.key !== key) {
    const listed = view instanceof DocumentsView && route.path[0] === "documents" && route.path.length === 1;
    if (listed && view.language === language()) view.update(route);
    else open(route, asks, first);
    Object.assign(view, { key, language: language() });
  }
  if (asks) lastAsked = location.hash || "#/";
  document.title = `${view.title} · Beleg`;
  showSource(asks ? route.parameters : {});
  frame(asks, route);
}

function open(route, asks, first) {
  view?.leave();
  const One = asks ? AskView : route.path[1] ? DocumentView : DocumentsView;
  view = asks ? new AskView(route, () => drawSide()) : new One(route);
  $("main").replaceChildren(view.root);
  if (!first || asks) view.focus();
  if (!asks) scrollTo(0, 0);
}

// The source of a quote is part of the address, but opening one must not draw the conversation anew.
function keyOf({ path, parameters }) {
  const own = Object.entries(parameters).filter(([name]) => path[0] === "documents" || !PLACE.includes(name));
  return JSON.stringify([path, own, language()]);
}

function showSource(parameters) {
  const key = parameters.source ? JSON.stringify(PLACE.map((name) => parameters[name])) : "";
  if ((source?.key || "") === key) return;
  source?.close();
  source = null;
  $("source").hidden = !key;
  document.body.classList.toggle("with-source", Boolean(key));
  if (key) {
    opener = document.activeElement?.closest("[data-place]") || opener;
    source = new SourceView(parameters, view.wordsAt(parameters), closeSource);
    source.key = key;
    $("source").replaceChildren(...source.parts);
    $("source").setAttribute("aria-label", say("source"));
    source.heading.focus({ preventScroll: true });
    source.load();
    opener?.scrollIntoView({ block: "nearest" });
  } else {
    $("source").replaceChildren();
    opener?.focus({ preventScroll: true });
    opener = null;
  }
}

function closeSource() {
  location.hash = closedHash();
}

function frame(asks, route) {
  document.documentElement.lang = language();
  const tab = (name, href, current) => make("a", { href, "aria-current": current ? "page" : null }, say(name));
  // From the documents one comes back to where one was.
  $("views").replaceChildren(
    tab("view_ask", asks ? "#/" : lastAsked, asks),
    tab("view_documents", hashOf(["documents"]), !asks),
  );
  $("views").setAttribute("aria-label", say("views"));
  $("languages").setAttribute("aria-label", say("language"));
  $("languages").replaceChildren(
    ...["de", "en"].map((one) =>
      make(
        "button",
        {
          type: "button",
          class: "quiet",
          lang: one,
          "aria-pressed": String(one === language()),
          title: one === "de" ? "Deutsch" : "English",
          onclick: () => speak(one),
        },
        one.toUpperCase(),
      ),
    ),
  );
  $("skip").textContent = say("skip");
  $("history").setAttribute("aria-label", say("earlier"));
  $("history").title = say("earlier");
  $("history").hidden = !asks;
  drawSide(route);
  $("top").hidden = false;
}

function drawSide(route = routeOf(location.hash)) {
  const asks = route.path[0] !== "documents";
  const current = route.path[0] === "c" ? route.path[1] : null;
  const side = $("side");
  side.hidden = !asks || (narrow.matches && !sideOpen);
  side.setAttribute("aria-label", say("earlier"));
  $("history").setAttribute("aria-expanded", String(sideOpen));
  // What is covered cannot be reached, by keyboard either.
  $("main").inert = narrow.matches && (sideOpen || Boolean(source));
  if (side.hidden) return;
  const focused = side.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
  const removed = (id) => (id && id === current ? (location.hash = hashOf([])) : drawSide());
  side.replaceChildren(...sideView({ current, removed, closes: closeSide }));
  if (focused) side.querySelector(`a[href="${CSS.escape(focused)}"]`)?.focus();
}

function closeSide() {
  if (!sideOpen) return;
  sideOpen = false;
  drawSide();
  $("history").focus();
}

function speak(chosen) {
  setLanguage(chosen);
  source?.close();
  source = null;
  show();
  $("languages").querySelector("[aria-pressed=true]").focus();
}

function pressed(event) {
  const typing = event.target.closest?.("input, textarea, select, dialog");
  if (event.key === "/" && !typing && view instanceof AskView) {
    event.preventDefault();
    view.focus();
  }
  if (event.key !== "Escape" || event.target.closest?.("dialog")) return;
  if (sideOpen) closeSide();
  else if (source && ($("source").contains(document.activeElement) || !view.stop?.())) closeSource();
  else view.stop?.();
}

$("history").append(icon("history"));
$("history").addEventListener("click", () => {
  sideOpen = !sideOpen;
  drawSide();
  if (sideOpen) $("side").querySelector("a, button").focus();
});
$("skip").addEventListener("click", (event) => {
  // Not to `#main`: the part behind the hash is the page's own address.
  event.preventDefault();
  $("main").focus();
});
document.addEventListener("click", (event) => {
  if (sideOpen && !event.target.closest("#side, #history, dialog")) closeSide();
});
narrow.addEventListener("change", () => drawSide());
addEventListener("hashchange", () => show());
addEventListener("storage", (event) => {
  conversations.forgetDeleted(event);
  drawSide();
});
addEventListener("keydown", pressed);
show({ first: true });
