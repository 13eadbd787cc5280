// Drawings of rows, asked for when they are to be seen and kept afterwards.

import { svgSource } from "./dom.js";

const AT_A_TIME = 25;

/** Give rows their `drawing`: {source} of an image, or {why} there is none. */
export async function draw(rows, service) {
  const wanted = rows.filter((row) => !row.drawn);
  for (let at = 0; at < wanted.length; at += AT_A_TIME) {
    const batch = wanted.slice(at, at + AT_A_TIME);
    const drawn = drawBatch(batch, service);
    for (const row of batch) row.drawn = drawn;
  }
  await Promise.all(rows.map((row) => row.drawn));
}

export function forget(rows) {
  for (const { drawing } of rows) if (drawing?.source) URL.revokeObjectURL(drawing.source);
}

async function drawBatch(rows, service) {
  try {
    const { results } = await service.draw(rows.map((row) => row.record));
    rows.forEach((row, i) => { row.drawing = ofResult(results[i]); });
  } catch (error) {
    for (const row of rows) row.drawing = { why: error.message };
  }
}

function ofResult(result) {
  return result.ok ? { source: svgSource(result.svg) } : { why: result.error.message };
}
