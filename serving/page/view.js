// The 3D view's frame, seen from the page.

import { byId } from "./dom.js";

const PATIENCE_MS = 30000;

export class View {
  constructor() {
    this.frame = byId("view");
    this.isReady = false;
    this.isTurning = !matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.wanted = null;
    byId("turn").addEventListener("click", () => this.turn(!this.isTurning));
    byId("reset").addEventListener("click", () => this.send({ reset: true }));
    window.addEventListener("message", (event) => {
      if (event.source === this.frame.contentWindow) this.hear(event.data);
    });
  }

  /** Show a geometry, {numbers, positions}; the viewer is loaded when first needed. */
  show(geometry, label) {
    this.wanted = { ...geometry, label };
    if (!this.frame.src) {
      this.frame.src = "./page/viewer.html";
      this.alarm = setTimeout(() => this.fail("it has not loaded yet"), PATIENCE_MS);
    }
    if (this.isReady) this.begin();
  }

  /** Stand still while nobody looks. */
  hide() {
    this.send({ turn: false });
  }

  turn(isTurning) {
    this.isTurning = isTurning;
    byId("turn").setAttribute("aria-pressed", String(isTurning));
    this.send({ turn: isTurning });
  }

  begin() {
    this.send({ show: this.wanted });
    this.turn(this.isTurning);
  }

  hear({ state, why }) {
    if (state === "ready") {
      this.isReady = true;
      this.setVisible(true); // perhaps after the alarm
      this.begin();
    } else if (state === "held") this.turn(false);
    else if (state === "failed") this.fail(why);
    if (state === "shown") this.frame.dataset.shown = "yes";
  }

  fail(why) {
    byId("no-view").textContent = `No 3D view: ${why}.`;
    this.setVisible(false);
  }

  setVisible(isVisible) {
    clearTimeout(this.alarm);
    this.frame.hidden = !isVisible;
    byId("view-tools").hidden = !isVisible;
    byId("no-view").hidden = isVisible;
  }

  send(message) {
    // The frame has no origin that could be named.
    if (this.isReady) this.frame.contentWindow.postMessage(message, "*");
  }
}
