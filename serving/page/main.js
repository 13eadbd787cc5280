// The page: reads the form, runs the molecules, shows what comes.

import { fillCard, modelText, offer, showDrawing } from "./card.js";
import { csvText, download } from "./csv.js";
import { byId, make } from "./dom.js";
import { draw, forget } from "./drawings.js";
import { EXAMPLES } from "./examples.js";
import { hasGeometry, readFile, readText, withGeometry } from "./input.js";
import { count } from "./numbers.js";
import { run } from "./run.js";
import { Service } from "./service.js";
import { Table } from "./table.js";
import { View } from "./view.js";

const service = new Service(askForKey);
const view = new View();
const table = new Table(openCard, drawSeen);
const page = { facts: null, files: [], rows: [], running: null, shown: null };

// ---- The form

function molecules() {
  const typed = byId("text").value;
  const found = [...(typed.trim() ? readText(typed) : []), ...page.files.flatMap((file) => file.molecules)];
  return withGeometry(found, byId("geometry").value);
}

function showInputs() {
  byId("files").hidden = page.files.length === 0;
  byId("files").replaceChildren(...page.files.map((file) => {
    const off = make("button", { type: "button", ariaLabel: `Leave out ${file.name}` }, "\u2715");
    off.addEventListener("click", () => {
      page.files = page.files.filter((other) => other !== file);
      showInputs();
    });
    return make("li", {}, `${file.name}: ${plural(file.molecules.length)}`, off);
  }));
  let found = [];
  try {
    found = molecules();
  } catch {
    // Half a table may be in the field; Predict says what is wrong with it.
  }
  byId("geometry-choice").hidden = !hasGeometry(found);
}

async function addFiles(files) {
  for (const file of files) {
    try {
      const found = readFile(file.name, await file.text());
      if (!found.length) throw new Error("it holds no molecules");
      page.files.push({ name: file.name, molecules: found });
    } catch (error) {
      showInputs(); // those before it have been taken
      complain(`${file.name}: ${error.message}`);
      return;
    }
  }
  showInputs();
  await predict();
}

// ---- Predicting

async function predict() {
  page.running?.abort();
  complain("");
  let found;
  try {
    found = molecules();
  } catch (error) {
    complain(error.message);
    return;
  }
  if (!found.length) {
    complain("Give at least one molecule: a SMILES such as CCO, or a file.");
    byId("text").focus();
    return;
  }
  begin(found);
  await work(page.rows);
}

function begin(found) {
  closeCard();
  forget(page.rows);
  page.rows = found.map((item, i) => ({ ...item, name: item.name || standIn(item, i + 1), place: i + 1 }));
  byId("many").hidden = true;
  byId("offer").hidden = true;
}

// A SMILES says by itself which molecule it is.
function standIn({ text, record }, place) {
  return "smiles" in record ? "" : `${text} ${place}`;
}

async function work(rows) {
  const stop = new AbortController();
  page.running = stop;
  byId("stop").hidden = false;
  showProgress(rows, 0);
  try {
    page.facts ??= await readFacts(stop.signal);
    if (rows.length > 1) showMany();
    await run(rows, service, page.facts.limits, (done) => {
      showProgress(rows, done);
      if (rows.length > 1) table.show();
    }, stop.signal);
    if (rows.length === 1) openCard(rows[0]);
    say(`Done: ${summary(rows)}`);
  } catch (error) {
    if (stop.signal.aborted) say(`Stopped: ${summary(rows)}`);
    else complain(`The server could not answer: ${error.message}`);
  } finally {
    if (page.running === stop) finish();
  }
}

function finish() {
  page.running = null;
  byId("stop").hidden = true;
  byId("progress").hidden = true;
  if (page.rows.length > 1 && page.facts) showTitle();
}

function showProgress(rows, done) {
  byId("progress").hidden = false;
  byId("bar").max = rows.length;
  byId("bar").value = done;
  byId("progress-text").textContent = rows.length > 1
    ? `${count(done)} of ${count(rows.length)}${errorsText(rows)}` : "predicting";
  if (rows.length > 1 && page.facts) showTitle();
}

function showMany() {
  byId("many").hidden = false;
  table.take(page.rows, page.facts.targets);
}

function showTitle() {
  byId("many-title").textContent = summary(page.rows);
}

function summary(rows) {
  const done = rows.filter((row) => row.result).length;
  const of = done < rows.length ? `${count(done)} of ` : "";
  return `${of}${plural(rows.length)}${errorsText(rows)}`;
}

function errorsText(rows) {
  const errors = rows.filter((row) => row.result && !row.result.ok).length;
  return errors ? `, ${count(errors)} with an error` : "";
}

function plural(number) {
  return number === 1 ? "1 molecule" : `${count(number)} molecules`;
}

async function readFacts(signal) {
  const facts = await service.model(signal);
  byId("model").textContent = modelText(facts);
  return facts;
}

// ---- Cards and drawings

function openCard(row) {
  page.shown = row;
  const card = byId("card");
  fillCard(row, page.facts.targets);
  showDrawing(row);
  if (!card.open) {
    const isAlone = page.rows.length === 1;
    card.classList.toggle("alone", isAlone);
    byId("close").hidden = isAlone;
    if (isAlone) {
      // Part of the page: `show()` would take the focus away from the text field.
      card.setAttribute("role", "region");
      card.setAttribute("open", "");
    } else {
      card.removeAttribute("role");
      card.showModal();
      byId("close").focus();
      card.scrollTop = 0;
    }
  }
  if (row.result.ok) view.show(row.result.geometry, `Geometry of ${row.name || row.text}`);
  else view.hide();
  draw([row], service).then(() => page.shown === row && showDrawing(row));
}

function closeCard() {
  page.shown = null;
  if (byId("card").open) byId("card").close();
}

function drawSeen(rows) {
  draw(rows.filter((row) => row.result), service).then(() => table.showDrawings());
}

// ---- Messages

function complain(text) {
  byId("message").textContent = text;
  byId("message").hidden = !text;
}

function say(text) {
  byId("said").textContent = text;
}

function askForKey(again) {
  byId("key-form").hidden = false;
  byId("key").value = "";
  byId("key").focus();
  complain(again ? "The server does not take that key." : "");
  return new Promise((given) => {
    byId("key-form").onsubmit = (event) => {
      event.preventDefault();
      const key = byId("key").value.trim();
      if (!key) return;
      byId("key-form").hidden = true;
      byId("key").value = "";
      complain("");
      given(key);
    };
  });
}

// ---- Wiring

function listen() {
  byId("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    predict();
  });
  byId("text").addEventListener("input", showInputs);
  byId("text").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) byId("ask").requestSubmit();
  });
  byId("file").addEventListener("change", (event) => {
    addFiles([...event.target.files]);
    event.target.value = "";
  });
  byId("stop").addEventListener("click", () => page.running?.abort());
  byId("close").addEventListener("click", closeCard);
  byId("card").addEventListener("close", () => { page.shown = null; view.hide(); });
  byId("card").addEventListener("click", (event) => {
    if (event.target.matches(":modal")) closeCard(); // beside the card, not in it
  });
  byId("csv-many").addEventListener("click", () => save(page.rows));
  byId("csv-one").addEventListener("click", () => page.shown && save([page.shown]));
  listenForDrops();
  byId("examples").replaceChildren(...EXAMPLES.map(([label, text]) => {
    const button = make("button", { type: "button", className: "link" }, label);
    button.addEventListener("click", () => {
      page.files = [];
      byId("text").value = text;
      showInputs();
      predict();
    });
    return button;
  }));
}

function save(rows) {
  download(csvText(rows, page.facts.targets), "qm9flow.csv");
}

function listenForDrops() {
  let depth = 0;
  const isFile = (event) => event.dataTransfer?.types.includes("Files");
  const show = (on) => { byId("drop").hidden = !on; };
  addEventListener("dragenter", (event) => {
    if (!isFile(event)) return;
    depth += 1;
    show(true);
  });
  addEventListener("dragleave", (event) => {
    if (!isFile(event)) return;
    depth -= 1;
    show(depth > 0);
  });
  addEventListener("dragover", (event) => isFile(event) && event.preventDefault());
  addEventListener("drop", (event) => {
    if (!isFile(event)) return;
    event.preventDefault();
    depth = 0;
    show(false);
    closeCard();
    addFiles([...event.dataTransfer.files]);
  });
}

listen();
showInputs();
readFacts().then((facts) => {
  page.facts ??= facts;
  byId("offer").replaceChildren(...offer(facts.targets));
  byId("offer").hidden = page.rows.length > 0;
}).catch((error) => {
  byId("model").textContent = "no model";
  complain(`The server could not say what it serves: ${error.message}`);
});
