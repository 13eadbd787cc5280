// Numbers and units as people read them.

const RAISED = { 2: "\u00b2", 3: "\u00b3" };
const SYMBOLS = { 1: "H", 6: "C", 7: "N", 8: "O", 9: "F" };

/** `a0^3` as a0 with a raised 3, and the like. */
export function unitText(unit) {
  return unit.replace("a0", "a\u2080").replace(/\^(\d)/g, (_, n) => RAISED[n])
    .replace("(mol K)", "(mol\u00b7K)");
}

/** Decimals that mean something: a tenth of what chemists take as good enough, or less if the
 * interval is wider. */
export function decimals(value, target, interval) {
  const accuracy = target.chemical_accuracy;
  const places = accuracy
    ? Math.ceil(-Math.log10(accuracy)) + 1
    : 4 - Math.floor(Math.log10(Math.abs(value) || 1));
  const width = interval ? interval[1] - interval[0] : 0;
  const most = width > 0 ? 1 - Math.floor(Math.log10(width)) : Infinity;
  return Math.max(0, Math.min(places, most, 8));
}

export function valueText(value, target, interval) {
  return value === null ? "\u2013" : plain(value, decimals(value, target, interval));
}

export function intervalText(interval, value, target) {
  if (!interval || value === null) return "";
  const places = decimals(value, target, interval);
  return `${plain(interval[0], places)} to ${plain(interval[1], places)}`;
}

/** Whether a result holds any interval. */
export function hasInterval({ intervals }) {
  return Object.values(intervals).some((ends) => ends);
}

export function percent(share) {
  return `${Math.round(share * 1000) / 10}%`;
}

export function count(number) {
  return number.toLocaleString("en");
}

/** The formula in Hill's order, as [symbol, count] pairs. */
export function formula(numbers) {
  const counts = {};
  for (const number of numbers) counts[SYMBOLS[number]] = (counts[SYMBOLS[number]] ?? 0) + 1;
  const order = "C" in counts ? ["C", "H", "F", "N", "O"] : ["F", "H", "N", "O"];
  return order.filter((symbol) => symbol in counts).map((symbol) => [symbol, counts[symbol]]);
}

function plain(value, places) {
  const text = value.toFixed(places);
  return Number(text) === 0 ? (0).toFixed(places) : text; // no -0.00
}
