// All rows as CSV (RFC 4180): values as the server gave them, to the last digit.

const FORMULA = /^[=+\-@\t\r]/;

/** The text; `targets` are the model's, `rows` those of the page. */
export function csvText(rows, targets) {
  const hasIntervals = rows.some((row) => row.level != null);
  const head = ["name", "input", ...targets.flatMap((target) => columns(target, hasIntervals)),
    "in_domain", "domain_score", "geometry", "conformers", "warnings", "error_code", "error",
    "model", "version"];
  const body = rows.filter((row) => row.result).map((row) => line(row, targets, hasIntervals));
  return [head, ...body].map((row) => row.map(cell).join(",")).join("\r\n") + "\r\n";
}

/** Hand a text to the user as a file. */
export function download(text, name) {
  // Spreadsheets take UTF-8 for something else unless it is marked; plain ASCII needs no mark.
  const mark = /[^\0-\x7f]/.test(text) ? "\uFEFF" : "";
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([mark + text], { type: "text/csv;charset=utf-8" }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

function columns({ name, unit }, hasIntervals) {
  const value = `${name} (${unit})`;
  return hasIntervals ? [value, `${name}_low (${unit})`, `${name}_high (${unit})`] : [value];
}

function line(row, targets, hasIntervals) {
  const { result } = row;
  const start = [row.name, row.text];
  const model = [row.model?.name, row.model?.version ?? row.model?.alias];
  if (!result.ok) {
    const empty = Array(targets.length * (hasIntervals ? 3 : 1) + 5).fill("");
    return [...start, ...empty, result.error.code, result.error.message, ...model];
  }
  const values = targets.flatMap(({ name }) => {
    const ends = result.intervals[name] ?? [null, null];
    return hasIntervals ? [result.values[name], ...ends] : [result.values[name]];
  });
  return [...start, ...values, result.domain.inside, result.domain.score, result.geometry.source,
    result.geometry.conformers, result.warnings.join("; "), "", "", ...model];
}

function cell(value) {
  if (value === null || value === undefined) return "";
  if (typeof value !== "string") return String(value);
  // A spreadsheet would run such a text as a formula.
  const safe = FORMULA.test(value) ? `'${value}` : value;
  return /[",\r\n]/.test(safe) || safe !== safe.trim() ? `"${safe.replaceAll('"', '""')}"` : safe;
}
