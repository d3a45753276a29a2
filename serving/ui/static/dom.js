// Elements from code. Text is only ever set as text, so that nothing a document says is taken for markup.

import { icon } from "./icons.js";
import { say } from "./words.js";

/** Make an element: `on…` properties are handlers, `true` an empty attribute, null and false none; children may be null. */
export function make(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name === "value") made.value = value;
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return made;
}

export const button = (label, properties = {}, drawing = null) =>
  make("button", { type: "button", ...properties }, drawing && icon(drawing), make("span", {}, label));

/** A button that shows a drawing only; its label is for those who cannot see it, and a hint for those who can. */
export const iconButton = (label, drawing, properties = {}) =>
  make("button", { type: "button", class: "quiet", "aria-label": label, title: label, ...properties }, icon(drawing));

/** Say something to those who listen instead of look. */
export function announce(text) {
  document.getElementById("status").textContent = text;
}

/** A button that copies what `text()` returns and says so. */
export function copyButton(label, text) {
  const made = button(label, { class: "quiet" }, "copy");
  made.addEventListener("click", async () => {
    const done = await copied(text());
    made.lastChild.textContent = say(done ? "copied" : "copy_failed");
    announce(made.lastChild.textContent);
    setTimeout(() => (made.lastChild.textContent = label), 2000);
  });
  return made;
}

async function copied(text) {
  // The clipboard is there only for pages that came over TLS or from this machine.
  if (navigator.clipboard) return navigator.clipboard.writeText(text).then(() => true, () => false);
  const field = make("textarea", { class: "unseen", value: text });
  document.body.append(field);
  field.select();
  const done = document.execCommand("copy");
  field.remove();
  return done;
}

/** Ask a yes-or-no question in a dialog; resolves to whether the answer was yes. */
export function confirmed(question, detail, yes) {
  return new Promise((resolve) => {
    const dialog = make(
      "dialog",
      {
        class: "confirm",
        "aria-labelledby": "confirm-question",
        onclose: () => (dialog.remove(), resolve(dialog.returnValue === "yes")),
      },
      make("h2", { id: "confirm-question" }, question),
      make("p", {}, detail),
      make(
        "div",
        { class: "row" },
        button(yes, { class: "primary danger", onclick: () => dialog.close("yes") }),
        button(say("cancel"), { onclick: () => dialog.close("no"), autofocus: true }),
      ),
    );
    document.body.append(dialog);
    dialog.showModal();
  });
}

/** What went wrong and what to do about it, as the server said it. */
export const problemBox = (title, error, ...actions) =>
  make(
    "div",
    { class: "problem", role: "alert" },
    make("h3", {}, icon("warning"), title),
    error?.message ? make("p", {}, error.message) : null,
    error?.wayOut ? make("p", { class: "way-out" }, error.wayOut) : null,
    actions.length ? make("div", { class: "row" }, ...actions) : null,
  );
