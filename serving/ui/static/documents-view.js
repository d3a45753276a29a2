// What is indexed: found by words and filters, page by page; added to and taken away from.

import { documentPath, get, jobEnded, request } from "./api.js";
import { announce, button, confirmed, iconButton, make, problemBox } from "./dom.js";
import { facetSelect, field } from "./filters.js";
import { kindLabel, pagesLabel } from "./places.js";
import { hashOf } from "./route.js";
import { heed, uploadView } from "./upload-view.js";
import { date, languageName, number, say } from "./words.js";

const LIMIT = 50;
const SORTS = ["title", "-date", "date", "pages"];
const COLUMNS = ["title", "kind", "language", "pages", "passages", "date"];
const FACETS = ["folder", "kind", "language"];

export class DocumentsView {
  constructor({ parameters }) {
    this.title = say("view_documents");
    this.root = make("div", { class: "documents" });
    this.heading = make("h1", { tabindex: -1 }, say("view_documents"));
    this.controls = make("div", { class: "fields" });
    this.list = make("div", { class: "list" });
    this.root.append(this.heading, uploadView(this.root, () => this.load()), this.controls, this.list);
    this.update({ parameters });
  }

  leave() {
    clearTimeout(this.typing);
  }

  focus() {
    this.heading.focus({ preventScroll: true });
  }

  update({ parameters }) {
    this.parameters = parameters;
    this.load();
  }

  /** Another search or page is another address, so that the back button leads back. */
  set(change, { quietly = false } = {}) {
    const hash = hashOf(["documents"], { ...this.parameters, offset: "", ...change });
    if (quietly) location.replace(hash);
    else location.hash = hash;
  }

  async load() {
    const mine = (this.newest = {});
    // Another list has been asked for since, or another view is looked at: what comes now would only do harm.
    const late = () => this.newest !== mine || !this.root.isConnected;
    try {
      const found = await get("/v1/documents", { limit: LIMIT, ...this.parameters });
      if (late()) return;
      const deleted = found.documents.length === 0 && Number(this.parameters.offset) > 0;
      if (deleted) this.set({ offset: "" }, { quietly: true });
      this.draw(found);
    } catch (error) {
      if (late()) return;
      const again = button(say("try_again"), { class: "primary", onclick: () => this.load() });
      this.list.replaceChildren(problemBox(say(error.status ? "failed" : "unreachable"), error.status ? error : null, again));
    }
  }

  draw(found) {
    const narrowed = [...FACETS, "query"].some((key) => this.parameters[key]);
    const nothing = found.total === 0 && !narrowed;
    this.root.classList.toggle("none", nothing);
    if (nothing) {
      this.controls.replaceChildren();
      this.list.replaceChildren(
        make("div", { class: "empty" }, make("h2", {}, say("nothing_indexed")), make("p", {}, say("nothing_indexed_begin")))
      );
      return;
    }
    this.drawControls(found.facets);
    const rows = found.documents.map((one) => this.row(one));
    const heads = COLUMNS.map((name) => make("th", { scope: "col" }, say(`column_${name}`)));
    this.list.replaceChildren(
      make("p", { class: "soft", role: "status" }, say("documents_found", { n: found.total })),
      found.total
        ? make("table", {}, make("thead", {}, make("tr", {}, ...heads, make("td", {}))), make("tbody", {}, ...rows))
        : make(
          "p",
          {},
          say("no_such_documents"),
          " ",
          button(say("without_filters"), { onclick: () => (location.hash = hashOf(["documents"])) }),
        ),
      this.paging(found.total),
    );
  }

  drawControls(facets) {
    // The field in which somebody types must not be replaced under their hands.
    if (!this.search) {
      this.search = make("input", { type: "search", value: this.parameters.query || "", maxlength: 200 });
      this.search.addEventListener("input", () => {
        clearTimeout(this.typing);
        this.typing = setTimeout(() => this.set({ query: this.search.value.trim() }, { quietly: true }), 250);
      });
      this.searchField = field(say("find_documents"), this.search);
    } else if (document.activeElement !== this.search) this.search.value = this.parameters.query || "";
    const chosen = this.parameters.sort || "title";
    const sort = make("select", { onchange: () => this.set({ sort: sort.value }) },
      ...SORTS.map((name) => make("option", { value: name, selected: name === chosen }, say(`sort_${name}`))));
    const others = [
      ...FACETS.map((key) => facetSelect(key, facets[key] || {}, this.parameters[key], (value) => this.set({ [key]: value }))),
      field(say("sort"), sort),
    ];
    const at = [...this.controls.querySelectorAll("select")].indexOf(document.activeElement);
    if (this.searchField.parentElement) while (this.searchField.nextSibling) this.searchField.nextSibling.remove();
    else this.controls.append(this.searchField);
    this.controls.append(...others);
    this.controls.querySelectorAll("select")[at]?.focus();
  }

  row(one) {
    const cell = (name, text) => make("td", { class: name, "data-label": say(`column_${name}`) }, text);
    const row = make("tr", {},
      make("th", { scope: "row" },
        make("a", { href: hashOf(["documents", one.document]) }, one.title),
        make("span", { class: "soft" }, [one.folder, one.name].filter(Boolean).join("/"))),
      cell("kind", kindLabel(one.kind)),
      cell("language", languageName(one.language)),
      cell("pages", pagesLabel(one.source, one.pages)),
      cell("passages", number(one.chunks)),
      cell("date", date(one.date)),
      make(
        "td",
        { class: "actions" },
        iconButton(say("delete_document", { title: one.title }), "trash", { onclick: () => this.remove(one, row) }),
      ));
    return row;
  }

  async remove(one, row) {
    const means = say(one.uploaded ? "delete_uploaded_means" : "delete_kept_means");
    if (!(await confirmed(say("delete_question", { title: one.title }), means, say("delete")))) return;
    row.classList.add("going");
    row.querySelector(".actions").replaceChildren(make("span", { class: "soft" }, say("deleting")));
    try {
      const accepted = await (await request(documentPath(one.document), { method: "DELETE" })).json();
      const job = await jobEnded(accepted.job);
      if (job.status !== "done") throw new Error(job.error?.message || say("failed"));
      announce(say("deleted", { title: one.title }));
      await this.load();
      this.focus();
    } catch (error) {
      heed(error);
      row.classList.remove("going");
      row.querySelector(".actions").replaceChildren(
        make("span", { class: "failed", role: "alert" }, `${error.message} ${error.wayOut || ""}`)
      );
    }
  }

  paging(total) {
    const offset = Number(this.parameters.offset) || 0;
    if (total <= LIMIT) return "";
    const turn = (by) => this.set({ offset: offset + by || "" });
    return make("nav", { class: "row paging", "aria-label": say("pages") },
      iconButton(say("page_before"), "back", { disabled: offset === 0, onclick: () => turn(-LIMIT) }),
      make("span", { class: "soft" }, say("range", { from: offset + 1, to: Math.min(total, offset + LIMIT), n: total })),
      iconButton(say("page_after"), "forward", { disabled: offset + LIMIT >= total, onclick: () => turn(LIMIT) }));
  }
}
