// The table of many molecules: a row each, sorted, in pages.

import { symbol } from "./card.js";
import { byId, make } from "./dom.js";
import { count, hasInterval, intervalText, percent, unitText, valueText } from "./numbers.js";

const ROWS_A_PAGE = 50;
const FIRST_COLUMNS = ["homo", "lumo", "gap", "mu", "alpha", "u0_atom"];
const STRANGE = "unlike the training molecules";
const UNSURE = "which stereoisomer?";
const OPEN = "stereoisomers or more";

export class Table {
  /** `open(row)` shows a row's card; `seen(rows)` is told which rows are on the page. */
  constructor(open, seen) {
    this.open = open;
    this.seen = seen;
    this.chosen = new Set(FIRST_COLUMNS);
    this.order = { key: "place", isUp: true };
    this.first = 0;
    byId("back").addEventListener("click", () => this.page(-1));
    byId("on").addEventListener("click", () => this.page(1));
  }

  /** Take other rows. */
  take(rows, targets) {
    this.rows = rows;
    this.first = 0;
    this.order = { key: "place", isUp: true };
    if (this.targets !== targets) {
      this.targets = targets;
      this.offerColumns();
    }
    this.show();
  }

  show() {
    const sorted = this.sorted();
    const page = sorted.slice(this.first, this.first + ROWS_A_PAGE);
    const shown = this.targets.filter((target) => this.chosen.has(target.name));
    byId("results").replaceChildren(this.head(shown),
      make("tbody", {}, ...page.map((row) => this.line(row, shown))));
    byId("many-hint").textContent = this.hint();
    byId("pager").hidden = sorted.length <= ROWS_A_PAGE;
    byId("back").disabled = this.first === 0;
    byId("on").disabled = this.first + ROWS_A_PAGE >= sorted.length;
    byId("place").textContent = `${count(this.first + 1)} to ${count(this.first + page.length)} `
      + `of ${count(sorted.length)}`;
    this.onPage = page;
    this.seen(page);
  }

  /** Put drawings that have arrived into the rows on the page, and leave the rest alone. */
  showDrawings() {
    byId("results").querySelectorAll("tbody tr").forEach((line, i) => {
      const source = this.onPage[i]?.drawing?.source;
      const image = line.querySelector("img");
      if (source && image.getAttribute("src") !== source) image.src = source;
    });
  }

  hint() {
    const row = this.rows.find(({ result }) => result?.ok && hasInterval(result));
    const small = row ? `The small figures are ${percent(row.level)} intervals. ` : "";
    return `${small}Open a row for all its values, its drawing and its geometry.`;
  }

  page(step) {
    this.first += step * ROWS_A_PAGE;
    this.show();
  }

  offerColumns() {
    byId("choices").replaceChildren(...this.targets.map((target) => {
      const box = make("input", { type: "checkbox", checked: this.chosen.has(target.name) });
      box.name = target.name;
      box.addEventListener("change", () => {
        if (box.checked) this.chosen.add(target.name);
        else this.chosen.delete(target.name);
        this.show();
      });
      return make("label", {}, box, `${symbol(target.name)}, ${target.description}`);
    }));
  }

  head(shown) {
    return make("thead", {}, make("tr", {},
      this.heading("place", "#", "", "n"),
      this.heading("name", "Molecule", "", ""),
      ...shown.map((t) => this.heading(t.name, symbol(t.name), unitText(t.unit), "n", t.description)),
      this.heading("notes", "Notes", "", "notes")));
  }

  heading(key, text, unit, className, title = "") {
    const isSorted = this.order.key === key;
    const arrow = isSorted ? (this.order.isUp ? "\u25b2" : "\u25bc") : "";
    const button = make("button", { type: "button", title }, text,
      make("span", { className: "unit" }, unit),
      make("span", { className: "arrow", ariaHidden: "true" }, arrow));
    button.addEventListener("click", () => this.sortBy(key));
    const cell = make("th", { scope: "col", className }, button);
    if (isSorted) cell.setAttribute("aria-sort", this.order.isUp ? "ascending" : "descending");
    return cell;
  }

  sortBy(key) {
    const isUp = this.order.key === key ? !this.order.isUp : true;
    this.order = { key, isUp };
    this.first = 0;
    this.show();
    [...byId("results").querySelectorAll("th button")]
      .find((button) => button.closest("th").hasAttribute("aria-sort"))?.focus();
  }

  sorted() {
    const { key, isUp } = this.order;
    const sign = isUp ? 1 : -1;
    const keyed = this.rows.map((row, place) => [this.keyOf(row, place, key), place, row]);
    keyed.sort(([a, i], [b, j]) => {
      if (a === null || b === null) return (a === null) - (b === null) || i - j;
      const order = typeof a === "string" ? a.localeCompare(b, "en", { numeric: true }) : a - b;
      return sign * order || i - j;
    });
    return keyed.map(([, , row]) => row);
  }

  keyOf(row, place, key) {
    if (key === "place") return place;
    if (key === "name") return row.name || row.text;
    const { result } = row;
    if (key === "notes") return !result ? null : !result.ok ? 0 : result.domain.inside === false ? 1 : noteOf(row) ? 2 : 3;
    return result?.ok ? result.values[key] : null;
  }

  line(row, shown) {
    const name = make("button", { type: "button", disabled: !row.result,
      className: row.name ? "link" : "link smiles" }, row.name || row.text);
    const image = make("img", { alt: "" });
    if (row.drawing?.source) image.src = row.drawing.source;
    const line = make("tr", {},
      make("td", { className: "n soft" }, String(row.place)),
      make("th", { scope: "row" }, make("div", { className: "molecule" }, image,
        make("div", {}, name, make("small", { className: "note" }, noteOf(row))))),
      ...this.cells(row, shown));
    line.addEventListener("click", () => row.result && this.open(row));
    return line;
  }

  cells(row, shown) {
    const { result } = row;
    if (!result) return [make("td", { colSpan: shown.length + 1, className: "soft" }, "waiting")];
    if (!result.ok) {
      const why = make("span", { className: "why" }, result.error.message);
      return [make("td", { colSpan: shown.length + 1, className: "bad" }, why)];
    }
    const values = shown.map((target) => {
      const value = result.values[target.name];
      const interval = result.intervals[target.name];
      const ends = intervalText(interval, value, target);
      const cell = make("td", { className: "n" }, valueText(value, target, interval),
        ends ? make("small", {}, ends) : null);
      cell.dataset.target = target.name;
      return cell;
    });
    return [...values, make("td", { className: "notes", title: result.warnings.join("; ") }, noteOf(row))];
  }
}

// In a column of its own where there is room, else beside the name: it must not be scrolled to.
function noteOf({ result }) {
  if (!result?.ok) return "";
  if (result.domain.inside === false) return STRANGE;
  return result.warnings.some((warning) => warning.includes(OPEN)) ? UNSURE : "";
}
