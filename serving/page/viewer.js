// The 3D view. It runs in a frame of no origin and knows nothing but the atoms it is told of.
"use strict";

const SYMBOLS = { 1: "H", 6: "C", 7: "N", 8: "O", 9: "F" };
const DEGREES_A_SECOND = 24;
const FRAME_MS = 33;
const SLOW_MS = 250;
const SLOW_FRAMES = 6;
const POWER_STEPS = 60;
const STEP_DEGREES = 12;
const KEYS = {
  ArrowLeft: ["y", -STEP_DEGREES],
  ArrowRight: ["y", STEP_DEGREES],
  ArrowUp: ["x", -STEP_DEGREES],
  ArrowDown: ["x", STEP_DEGREES],
};

const box = document.getElementById("view");
let viewer = null;
let frame = 0;

function say(message) {
  window.parent.postMessage(message, "*");
}

function open() {
  if (!window.$3Dmol) throw new Error("the viewer is not installed on the server");
  const probe = document.createElement("canvas");
  if (!probe.getContext("webgl2") && !probe.getContext("webgl")) {
    throw new Error("this browser offers no WebGL");
  }
  viewer = window.$3Dmol.createViewer(box, { backgroundAlpha: 0, antialias: true });
  if (!viewer) throw new Error("this browser offers no WebGL");
}

function show({ numbers, positions, label }) {
  const places = faceOn(positions);
  const atoms = numbers.map((number, i) => `${SYMBOLS[number]} ${places[i].join(" ")}`);
  viewer.removeAllModels();
  viewer.addModel([numbers.length, "", ...atoms].join("\n"), "xyz");
  viewer.setStyle({}, { stick: { radius: 0.11 }, sphere: { scale: 0.27 } });
  box.setAttribute("aria-label", label);
  reset();
  say({ state: "shown" });
}

// Turned so that the molecule is widest across, then up and down: it shows its face, not its edge.
function faceOn(positions) {
  const mean = [0, 1, 2].map((k) => positions.reduce((sum, p) => sum + p[k], 0) / positions.length);
  const centred = positions.map((p) => p.map((value, k) => value - mean[k]));
  const spread = [0, 1, 2].map((i) => [0, 1, 2].map((j) =>
    centred.reduce((sum, p) => sum + p[i] * p[j], 0)));
  const across = axis(spread, [0.7, 0.5, 0.5], null);
  const up = axis(spread, [0.5, -0.7, 0.5], across);
  return centred.map((p) => [dot(p, across), dot(p, up), dot(p, cross(across, up))]);
}

// The direction of largest spread, perpendicular to `beside`, by power iteration from `start`.
function axis(spread, start, beside) {
  let found = unit(apart(start, beside));
  for (let i = 0; i < POWER_STEPS; i += 1) {
    const next = apart(spread.map((row) => dot(row, found)), beside);
    if (dot(next, next) < 1e-12) return found; // a single atom, or a line
    found = unit(next);
  }
  return found;
}

function apart(v, beside) {
  return beside ? v.map((value, k) => value - dot(v, beside) * beside[k]) : v;
}

function unit(v) {
  const length = Math.sqrt(dot(v, v));
  return v.map((value) => value / length);
}

function dot(a, b) {
  return a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
}

function cross(a, b) {
  return [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
}

function reset() {
  viewer.resize();
  viewer.setView([0, 0, 0, 0, 0, 0, 0, 1]);
  viewer.zoomTo();
  viewer.zoom(1.15);
  viewer.rotate(14, "x");
  viewer.render();
}

// Thirty frames a second are enough; where a frame takes a quarter of a second, as without a graphics
// card, the view holds still rather than keep the machine busy.
function turn(on) {
  cancelAnimationFrame(frame);
  if (!on) return;
  let last = null;
  let slow = 0;
  const step = (now) => {
    const passed = last === null ? FRAME_MS : now - last;
    if (passed >= FRAME_MS) {
      slow = passed > SLOW_MS ? slow + 1 : 0;
      if (slow >= SLOW_FRAMES) {
        stopTurning();
        return;
      }
      last = now;
      viewer.rotate((DEGREES_A_SECOND * Math.min(passed, SLOW_MS)) / 1000, "y");
      viewer.render();
    }
    frame = requestAnimationFrame(step);
  };
  frame = requestAnimationFrame(step);
}

function stopTurning() {
  turn(false);
  say({ state: "held" });
}

function listen() {
  box.addEventListener("pointerdown", stopTurning);
  box.addEventListener("keydown", (event) => {
    const move = KEYS[event.key];
    const zoom = { "+": 1.15, "-": 1 / 1.15 }[event.key];
    if (!move && !zoom) return;
    event.preventDefault();
    stopTurning();
    if (move) viewer.rotate(move[1], move[0]);
    else viewer.zoom(zoom);
    viewer.render();
  });
  new ResizeObserver(() => {
    viewer.resize();
    viewer.render();
  }).observe(box);
  window.addEventListener("message", (event) => {
    if (event.source !== window.parent) return;
    const asked = event.data;
    if (asked.show) show(asked.show);
    if (asked.reset) reset();
    if ("turn" in asked) turn(asked.turn);
  });
}

try {
  open();
  listen();
  say({ state: "ready" });
} catch (error) {
  say({ state: "failed", why: error.message });
}
