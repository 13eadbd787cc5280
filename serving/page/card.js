// All that is known of one molecule.

import { byId, formulaParts, make } from "./dom.js";
import { formula, hasInterval, intervalText, percent, unitText, valueText } from "./numbers.js";

const GROUPS = [
  ["Electrons", ["homo", "lumo", "gap", "mu", "alpha", "r2"]],
  ["Energies", ["u0", "u", "h", "g", "zpve", "cv"]],
  ["Atomization", ["u0_atom", "u_atom", "h_atom", "g_atom"]],
  ["Rotation", ["a", "b", "c"]],
];
const SYMBOLS = {
  mu: "\u03bc", alpha: "\u03b1", homo: "\u03b5 HOMO", lumo: "\u03b5 LUMO", gap: "\u0394\u03b5",
  r2: "\u27e8R\u00b2\u27e9", zpve: "ZPVE", u0: "U\u2080", u: "U", h: "H", g: "G", cv: "C\u1d65",
  u0_atom: "\u0394U\u2080", u_atom: "\u0394U", h_atom: "\u0394H", g_atom: "\u0394G",
  a: "A", b: "B", c: "C",
};

/** What chemists write for a target. */
export function symbol(name) {
  return SYMBOLS[name] ?? name;
}

/** Fill the card with a row; `targets` are the model's. */
export function fillCard(row, targets) {
  const { result } = row;
  const counts = result.ok ? formulaParts(formula(result.geometry.numbers)) : [];
  byId("card-name").replaceChildren(
    ...(row.name ? [row.name] : counts.length ? counts : ["No prediction"]));
  byId("formula").replaceChildren(...(row.name ? counts : []));
  byId("source").textContent = row.text === row.name ? "" : row.text;
  byId("card-error").hidden = result.ok;
  byId("card-error").textContent = result.ok ? "" : capital(result.error.message);
  byId("space").hidden = !result.ok;
  byId("values").replaceChildren(...(result.ok ? tableParts(row, targets) : []));
  byId("doubts").replaceChildren(...(result.ok ? doubts(result, row.level) : []));
  byId("space-text").textContent = result.ok ? geometryText(result.geometry) : "";
  byId("made-by").textContent = result.ok ? `Predicted by ${modelText(row.model)}.` : "";
}

/** Show a row's drawing, or say why there is none. */
export function showDrawing(row) {
  const image = byId("drawing");
  const { source, why } = row.drawing ?? {};
  byId("structure").hidden = Boolean(why) && !row.result.ok;
  image.hidden = !source;
  if (source) image.src = source;
  else image.removeAttribute("src");
  image.alt = source ? `Structure of ${row.name || row.text}` : "";
  byId("no-drawing").hidden = Boolean(source);
  byId("no-drawing").textContent = why ? `No drawing: ${why}` : "drawing";
}

export function modelText({ name, version, alias }) {
  if (version === null) return `${name}, ${alias ?? "unregistered"}`;
  return `${name} version ${version}${alias ? `, ${alias}` : ""}`;
}

export function geometryText({ source, conformers, refined }) {
  if (source === "smiles" && conformers > 1) {
    return `Likeliest of ${conformers} force-field conformers${refined ? ", refined by the model" : ""}; `
      + "A, B and C are its own, other values average over all";
  }
  const text = {
    smiles: "Force-field geometry made from the SMILES",
    dft: "Geometry as given, taken as B3LYP",
    approximate: refined ? "Approximate geometry as given" : "Geometry as given, approximate",
  }[source];
  return refined ? `${text}, refined by the model` : text;
}

/** What can be had, before anything is asked for. */
export function offer(targets) {
  const byName = Object.fromEntries(targets.map((target) => [target.name, target]));
  return GROUPS.map(([title, names]) => make("div", {}, make("h2", {}, title),
    make("ul", {}, ...names.filter((name) => name in byName)
      .map((name) => make("li", {}, capital(byName[name].description))))));
}

function tableParts(row, targets) {
  const hasIntervals = hasInterval(row.result);
  const byName = Object.fromEntries(targets.map((target) => [target.name, target]));
  const head = make("tr", {},
    make("th", { scope: "col" }, "Property"),
    make("th", { scope: "col", className: "n value" }, "Value"),
    hasIntervals ? make("th", { scope: "col", className: "n ends" }, `${percent(row.level)} interval`) : null,
    make("th", { scope: "col", className: "unit" }, "Unit"));
  const bodies = GROUPS.map(([title, names]) => make("tbody", {},
    make("tr", {}, make("th", { scope: "rowgroup", colSpan: hasIntervals ? 4 : 3, className: "group" }, title)),
    ...names.filter((name) => name in row.result.values)
      .map((name) => valueRow(row.result, byName[name], hasIntervals))));
  return [make("thead", {}, head), ...bodies];
}

function valueRow(result, target, hasIntervals) {
  const value = result.values[target.name];
  const interval = result.intervals[target.name];
  const line = make("tr", {},
    make("th", { scope: "row" }, make("div", { className: "property" },
      make("span", { className: "what" }, capital(target.description)),
      make("span", { className: "symbol" }, symbol(target.name)))),
    make("td", { className: "n value" }, valueText(value, target, interval)),
    hasIntervals ? make("td", { className: "n ends" }, intervalText(interval, value, target)) : null,
    make("td", { className: "unit" }, unitText(target.unit)));
  line.dataset.target = target.name;
  return line;
}

function doubts(result, level) {
  const { inside, score, reasons } = result.domain;
  const others = result.warnings.filter((warning) => !reasons.includes(warning));
  const verdict = inside === null ? "Not compared with the molecules it was trained on"
    : `${inside ? "Like" : "Unlike"} the molecules it was trained on`;
  const measure = score === null ? null : make("p", {}, strangeness(score));
  const promise = inside === false && hasInterval(result)
    ? make("p", {}, `Intervals are widened, but that ${percent(level)} of them hold was measured for `
      + "molecules like QM9's alone")
    : null;
  return [
    make("div", { className: inside ? "verdict inside" : "verdict care" },
      make("strong", {}, verdict), measure, list(reasons), promise),
    ...(others.length ? [make("div", { className: "verdict care" },
      make("strong", {}, "Take care"), list(others))] : []),
  ];
}

/** What the server's score says: a share of molecules. */
export function strangeness(score) {
  const share = score < 0.01 ? "fewer than 1" : String(Math.round(score * 100));
  return `Of 100 molecules like QM9's, ${share} would be as far from them or farther`;
}

function list(texts) {
  if (!texts.length) return null;
  return make("ul", { className: "doubts" }, ...texts.map((text) => make("li", {}, capital(text))));
}

function capital(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
