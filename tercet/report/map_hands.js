"use strict";
// What pointers, keys, buttons and the legend do to the map; begins it.
TextMap.prototype.listen = function listen() {
  this.listenPointers();
  this.listenKeys();
  this.listenSearch();
  this.listenLegend();
  this.dark.addEventListener("change", () => { this.told = -1; this.restate(); });
};

TextMap.prototype.listenPointers = function listenPointers() {
  const { frame } = this, down = new Map(); // pointer -> where it is
  let moved = 0;
  const at = (event) => {
    const box = frame.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  const spread = () => {
    const [[a, b], [c, d]] = [...down.values()];
    return { left: (a + c) / 2, top: (b + d) / 2, size: Math.max(1, Math.hypot(a - c, b - d)) };
  };
  frame.addEventListener("pointerdown", (event) => {
    if (event.target.closest(".map-card.kept, button") || event.button > 0) return;
    frame.setPointerCapture(event.pointerId);
    down.set(event.pointerId, at(event));
    if (down.size === 1) moved = 0;
  });
  frame.addEventListener("pointermove", (event) => {
    const [left, top] = at(event), before = down.get(event.pointerId);
    if (before) {
      moved += Math.hypot(left - before[0], top - before[1]);
      if (moved < 4 || down.size > 2) return; // a click may tremble
      const old = down.size === 2 ? spread() : null;
      down.set(event.pointerId, [left, top]);
      const now = old && spread();
      this.pan(old ? now.left - old.left : left - before[0], old ? now.top - old.top : top - before[1]);
      if (old) this.zoom(now.size / old.size, now.left, now.top);
      return;
    }
    const past = this.over, over = event.target.closest(".map-card, button") ? -1 : this.point(left, top);
    frame.classList.toggle("over", over >= 0);
    if (over !== past) this.draw();
  });
  const up = (event) => {
    if (!down.delete(event.pointerId) || event.type !== "pointerup" || moved >= 4) return;
    this.keep(this.point(...at(event)));
  };
  frame.addEventListener("pointerup", up);
  frame.addEventListener("pointercancel", up);
  frame.addEventListener("pointerleave", () => { this.over = -1; this.draw(); });
  frame.addEventListener("dblclick", (event) => {
    if (!event.target.closest(".map-card, button")) this.zoom(2, ...at(event));
  });
  frame.addEventListener("wheel", (event) => {
    if (event.target.closest(".map-card.kept")) return;
    event.preventDefault();
    const pixels = event.deltaY * [1, 20, 400][event.deltaMode];
    this.zoom(Math.exp(-Math.max(-300, Math.min(300, pixels)) * (event.ctrlKey ? 0.01 : 0.0022)), ...at(event));
  }, { passive: false });
  for (const button of this.root.querySelectorAll("[data-zoom]")) {
    const factor = +button.dataset.zoom;
    button.addEventListener("click", () => (factor ? this.glide(this.view.x, this.view.y, this.view.scale * factor) : this.whole()));
  }
};

TextMap.prototype.listenKeys = function listenKeys() {
  const acts = {
    "+": () => this.zoom(1.4), "=": () => this.zoom(1.4), "-": () => this.zoom(1 / 1.4),
    0: () => this.whole(), Home: () => this.whole(), Escape: () => this.keep(-1),
    "/": () => this.root.querySelector("input[type=search]").focus(),
    n: () => this.step(1), p: () => this.step(-1),
  };
  this.frame.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target !== this.frame) return;
    const direction = TextMap.STEPS[event.key], act = acts[event.key];
    if (!direction && !act) return;
    event.preventDefault();
    if (act) act();
    else if (event.shiftKey) this.pan(-60 * direction[0], 60 * direction[1]);
    else this.walk(direction);
  });
};

TextMap.prototype.listenSearch = function listenSearch() {
  const field = this.root.querySelector("input[type=search]");
  let timer = 0;
  const now = () => {
    clearTimeout(timer);
    if (this.asked !== field.value) this.find(this.asked = field.value);
  };
  field.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(now, 150); });
  field.addEventListener("change", now);
  field.addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    event.preventDefault();
    now();
    this.step(event.shiftKey ? -1 : 1);
  });
  for (const button of this.root.querySelectorAll("[data-step]")) button.addEventListener("click", () => this.step(+button.dataset.step));
  field.value = this.asked = ""; // browsers bring back what was typed before a reload
};

TextMap.prototype.listenLegend = function listenLegend() {
  const legend = this.root.querySelector(".map-legend"), rows = [...legend.querySelectorAll("[data-topic]")];
  const boxes = rows.map((row) => row.querySelector("input"));
  const apply = () => this.hide(rows.filter((_, k) => !boxes[k].checked).map((row) => +row.dataset.topic));
  const only = (topic) => {
    if (topic === this.only) return;
    this.only = topic;
    this.restate();
  };
  rows.forEach((row, k) => {
    boxes[k].checked = true;
    boxes[k].addEventListener("change", apply);
    row.addEventListener("pointerenter", () => only(boxes[k].checked ? +row.dataset.topic : null));
    row.querySelector("button").addEventListener("click", () => {
      boxes.forEach((box, other) => { box.checked = other === k; });
      apply();
    });
  });
  legend.addEventListener("pointerleave", () => only(null));
  for (const button of legend.querySelectorAll("[data-all]")) {
    button.addEventListener("click", () => {
      for (const box of boxes) box.checked = button.dataset.all === "1";
      apply();
    });
  }
};

const textMap = new TextMap(document.body);
