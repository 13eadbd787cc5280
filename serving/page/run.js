// Many molecules, in requests of bounded size that take about a second each.

import { Refused } from "./service.js";

const FIRST_SIZE = 8;
const WANTED_SECONDS = 1.5;
const BODY_SHARE = 0.9;

/** Predict rows in order, filling in their results; `told(done)` is called after each request. */
export async function run(rows, service, limits, told, signal) {
  let size = Math.min(FIRST_SIZE, limits.molecules);
  let at = 0;
  while (at < rows.length) {
    const batch = bounded(rows.slice(at, at + size), limits.body_bytes * BODY_SHARE);
    const started = performance.now();
    try {
      const answer = await service.predict(batch.map((row) => row.record), signal);
      batch.forEach((row, i) => fill(row, answer, answer.results[i]));
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      if (isTooMuch(error) && batch.length > 1) {
        size = Math.ceil(batch.length / 2);
        continue;
      }
      if (!isTooMuch(error)) throw error;
      fail(batch[0], error);
    }
    at += batch.length;
    size = next(size, batch.length, (performance.now() - started) / 1000, limits.molecules);
    told(at);
  }
}

function bounded(rows, bytes) {
  let sum = 0;
  const fits = rows.findIndex((row) => {
    sum += new Blob([JSON.stringify(row.record)]).size + 1;
    return sum > bytes;
  });
  return fits < 0 ? rows : rows.slice(0, Math.max(fits, 1));
}

function next(size, done, seconds, most) {
  const fitting = Math.round((done * WANTED_SECONDS) / Math.max(seconds, 0.01));
  return Math.max(1, Math.min(fitting, 2 * size, most));
}

function isTooMuch(error) {
  return [413, 504].includes(error.status) || error.code === "too_many_molecules";
}

function fill(row, answer, result) {
  row.result = result;
  row.model = answer.model;
  row.level = answer.level;
}

function fail(row, error) {
  row.result = { ok: false, error: { code: error.code || "refused", message: error.message } };
}
