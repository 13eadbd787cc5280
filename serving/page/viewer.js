// The 3D view. It runs in a frame of no origin and knows nothing but the atoms it is told of.
"use strict";

const SYMBOLS = { 1: "H", 6: "C", 7: "N", 8: "O", 9: "F" };
const TURN_SPEED = 0.4;
const STEP_DEGREES = 12;
const KEYS = {
  ArrowLeft: ["y", -STEP_DEGREES],
  ArrowRight: ["y", STEP_DEGREES],
  ArrowUp: ["x", -STEP_DEGREES],
  ArrowDown: ["x", STEP_DEGREES],
};

const box = document.getElementById("view");
let viewer = null;

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
  const atoms = numbers.map((number, i) => `${SYMBOLS[number]} ${positions[i].join(" ")}`);
  viewer.removeAllModels();
  viewer.addModel([numbers.length, "", ...atoms].join("\n"), "xyz");
  viewer.setStyle({}, { stick: { radius: 0.11 }, sphere: { scale: 0.27 } });
  box.setAttribute("aria-label", label);
  reset();
  say({ state: "shown" });
}

function reset() {
  viewer.resize();
  viewer.setView([0, 0, 0, 0, 0, 0, 0, 1]);
  viewer.zoomTo();
  viewer.zoom(0.9);
  viewer.rotate(-18, "x");
  viewer.render();
}

function turn(on) {
  viewer.spin(on ? "y" : false, TURN_SPEED);
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
