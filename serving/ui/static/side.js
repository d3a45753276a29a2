// The conversations that this browser keeps: beside the page, or over it on a phone.

import * as conversations from "./conversations.js";
import { confirmed, iconButton, button, make } from "./dom.js";
import { icon } from "./icons.js";
import { hashOf } from "./route.js";
import { moment, say } from "./words.js";

/** `current` is the id of the open conversation; `removed` is called with the id of one that is gone. */
export function sideView({ current, removed, closes }) {
  const kept = conversations.list();
  const forget = async (one, event) => {
    const item = event.currentTarget.closest("li");
    const next = (item.nextElementSibling || item.previousElementSibling)?.querySelector("a");
    conversations.forget(one.id);
    next?.focus();
    removed(one.id);
  };
  const forgetAll = async () => {
    if (!(await confirmed(say("forget_all"), say("forget_all_means"), say("forget_all_yes")))) return;
    conversations.forgetAll();
    removed(current);
  };
  return [
    make(
      "div",
      { class: "row" },
      make("a", { class: "button new", href: hashOf([]), onclick: closes }, icon("plus"), say("new_question")),
      iconButton(say("close"), "close", { class: "quiet only-phone", onclick: closes }),
    ),
    make("h2", {}, say("earlier")),
    kept.length
      ? make(
          "ul",
          {},
          ...kept.map((one) =>
            make(
              "li",
              {},
              make(
                "a",
                { href: hashOf(["c", one.id]), "aria-current": one.id === current ? "page" : null, onclick: closes },
                make("span", { class: "title" }, one.turns[0].question),
                make("span", { class: "soft" }, moment(one.time)),
              ),
              iconButton(say("forget", { name: one.turns[0].question }), "trash", { onclick: (event) => forget(one, event) }),
            ),
          ),
        )
      : make("p", { class: "soft" }, say("none_earlier")),
    kept.length > 1 ? button(say("forget_all_button"), { class: "quiet", onclick: forgetAll }) : null,
    make("p", { class: "soft small" }, say("kept_here")),
  ].filter(Boolean);
}
