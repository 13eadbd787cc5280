// From what a user pastes or drops to molecules: {name, text, record}, where record is an entry of a
// request to /predict and text is what is shown of it; a name that nobody gave is empty. The server
// judges whether it makes sense.

const FORMATS = {
  smi: smilesLines, smiles: smilesLines, csv: csvTable, tsv: csvTable,
  xyz: xyzFrames, sdf: molBlocks, sd: molBlocks, mol: molBlocks,
};
const COUNT = /^\s*\d{1,9}\s*$/;
const ATOM = /^\s*[A-Za-z]{1,3}\d*(\s+[-+.\d][-+.\deEdD*^]*){3}/;

/** Molecules of a text whose format is told by its looks. */
export function readText(text) {
  if (/^M {2}END|^\$\$\$\$|V[23]000\s*$/m.test(text)) return molBlocks(text);
  const all = lines(text);
  const first = all.find((line) => line.trim()) ?? "";
  if (COUNT.test(first) || ATOM.test(first)) return xyzFrames(text);
  const frame = frameFrom(all, 0);
  if (frame < all.length) {
    return [all.slice(0, frame), all.slice(frame)].flatMap((part) => readText(part.join("\n")));
  }
  if (/[,;\t]/.test(first) && smilesColumn(cells(first, separator(first))) >= 0) return csvTable(text);
  return smilesLines(text);
}

/** Molecules of a file, whose name tells the format; other names leave it to the looks. */
export function readFile(name, text) {
  const suffix = name.split(".").pop().toLowerCase();
  const clean = text.replace(/^\uFEFF/, "");
  const found = (FORMATS[suffix] ?? readText)(clean);
  return found.map((item, i) => ({
    ...item,
    name: item.name || ("smiles" in item.record ? "" : found.length > 1 ? `${name}, ${i + 1}` : name),
  }));
}

/** Say of the geometries of molecules where they come from; SMILES have none. */
export function withGeometry(molecules, geometry) {
  if (!geometry) return molecules;
  return molecules.map((item) =>
    "smiles" in item.record ? item : { ...item, record: { ...item.record, geometry } });
}

export function hasGeometry(molecules) {
  return molecules.some((item) => !("smiles" in item.record));
}

function lines(text) {
  return text.split(/\r\n|\r|\n/);
}

function smilesLines(text) {
  const found = [];
  for (const line of lines(text)) {
    const [, smiles, name] = line.match(/^\s*(\S+)\s*(.*)$/) ?? [];
    if (smiles && !smiles.startsWith("#")) found.push(ofSmiles(smiles, name.trim()));
  }
  return found;
}

function ofSmiles(smiles, name) {
  return { name, text: smiles, record: { smiles } };
}

function xyzFrames(text) {
  const all = lines(text);
  const found = [];
  let at = 0;
  while (at < all.length) {
    if (!all[at].trim()) {
      at += 1;
      continue;
    }
    const count = COUNT.test(all[at]) ? Number(all[at]) : null;
    let end = count === null ? all.length : at + count + 2;
    let next = end;
    while (next < all.length && !all[next].trim()) next += 1;
    if (next < all.length && !COUNT.test(all[next])) end = frameFrom(all, next); // QM9's own files have more behind
    const comment = count === null ? "" : (all[at + 1] ?? "").trim();
    const isName = comment && !comment.includes("=") && !ATOM.test(comment);
    const xyz = all.slice(at, end).join("\n");
    found.push({ name: isName ? nameOf(comment) : "", text: "XYZ", record: { xyz } });
    at = end;
  }
  return found;
}

// Where the next molecule with its number of atoms begins.
function frameFrom(all, at) {
  const found = all.findIndex((line, i) => i >= at && COUNT.test(line) && ATOM.test(all[i + 2] ?? ""));
  return found < 0 ? all.length : found;
}

function nameOf(comment) {
  const [first, second] = comment.split(/\s+/);
  return first === "gdb" ? `gdb ${second}` : comment.slice(0, 80);
}

function molBlocks(text) {
  return text.replace(/\r\n?/g, "\n").split(/^\$\$\$\$.*\n?/m)
    .filter((block) => block.trim())
    .map((block) => ({
      name: block.split("\n")[0].trim().slice(0, 80),
      text: "mol block",
      record: { sdf: block },
    }));
}

function csvTable(text) {
  const mark = separator(lines(text).find((line) => line.trim()) ?? "");
  const rows = table(text, mark).filter((row) => row.some((cell) => cell.trim()));
  const head = rows.shift() ?? [];
  const at = smilesColumn(head);
  if (at < 0) throw new Error("the table has no column named smiles");
  const named = head.findIndex((cell) => /^(name|title|id|compound)$/i.test(cell.trim()));
  return rows.filter((row) => (row[at] ?? "").trim())
    .map((row) => ofSmiles(row[at].trim(), named < 0 ? "" : (row[named] ?? "").trim()));
}

function smilesColumn(head) {
  return head.findIndex((cell) => /^(canonical_?)?smiles$/i.test(cell.trim()));
}

function separator(line) {
  return ["\t", ";", ","].find((mark) => line.includes(mark)) ?? ",";
}

function cells(line, mark) {
  return table(line, mark)[0] ?? [];
}

// RFC 4180: cells in quotes may hold separators, line ends and doubled quotes.
function table(text, mark) {
  const rows = [];
  let row = [];
  let cell = "";
  let quoted = false;
  for (let i = 0; i < text.length; i += 1) {
    const letter = text[i];
    if (quoted) {
      if (letter !== '"') cell += letter;
      else if (text[i + 1] === '"') { cell += '"'; i += 1; } else quoted = false;
    } else if (letter === '"' && !cell) quoted = true;
    else if (letter === mark) { row.push(cell); cell = ""; } else if (letter === "\n" || letter === "\r") {
      if (letter === "\r" && text[i + 1] === "\n") i += 1;
      rows.push([...row, cell]);
      row = [];
      cell = "";
    } else cell += letter;
  }
  if (cell || row.length) rows.push([...row, cell]);
  return rows;
}
