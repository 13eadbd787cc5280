// The 3D view. It runs in a frame of no origin and knows nothing but the atoms it is told of.
"use strict";

const SYMBOLS = { 1: "H", 6: "C", 7: "N", 8: "O", 9: "F" };
const DEGREES_A_SECOND = 24;
const FRAME_MS = 33;
const SLOW_MS = 250;
const SLOW_FRAMES = 6;
const POWER_STEPS = 60;
const TILT_DEGREES = 14;
const FIELD_OF_VIEW_DEGREES = 20; // 3Dmol's
const ATOM_ANGSTROM = 0.8; // around an atom's centre: half of a large one, and some air
const LEAST_ANGSTROM = 2.2; // no atom alone fills the view
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
let shown = []; // positions, turned and centred as they are shown

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
  shown = centred(faceOn(positions));
  const atoms = numbers.map((number, i) => `${SYMBOLS[number]} ${shown[i].join(" ")}`);
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
  const around = positions.map((p) => p.map((value, k) => value - mean[k]));
  const spread = [0, 1, 2].map((i) => [0, 1, 2].map((j) =>
    around.reduce((sum, p) => sum + p[i] * p[j], 0)));
  const across = axis(spread, [0.7, 0.5, 0.5], null);
  const up = axis(spread, [0.5, -0.7, 0.5], across);
  return around.map((p) => [dot(p, across), dot(p, up), dot(p, cross(across, up))]);
}

// With as much on the left as on the right, and so on.
function centred(positions) {
  const middle = [0, 1, 2].map((k) => {
    const all = positions.map((p) => p[k]);
    return (Math.min(...all) + Math.max(...all)) / 2;
  });
  return positions.map((p) => p.map((value, k) => value - middle[k]));
}

// How far away all is seen, and stays seen while it turns about the vertical.
function distance() {
  const tilt = (TILT_DEGREES * Math.PI) / 180;
  const wide = Math.max(...shown.map(([x, , z]) => Math.hypot(x, z)));
  const high = Math.max(...shown.map(([x, y, z]) =>
    Math.abs(y) * Math.cos(tilt) + Math.hypot(x, z) * Math.sin(tilt)));
  const half = Math.max(LEAST_ANGSTROM, high + ATOM_ANGSTROM,
    ((wide + ATOM_ANGSTROM) * box.clientHeight) / box.clientWidth);
  // What is nearer looks larger.
  return half / Math.tan((FIELD_OF_VIEW_DEGREES * Math.PI) / 360) + wide;
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
  viewer.zoomTo(); // sets how deep the view is
  viewer.setView([0, 0, 0, viewer.CAMERA_Z - distance(), 0, 0, 0, 1]);
  viewer.rotate(TILT_DEGREES, "x");
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
