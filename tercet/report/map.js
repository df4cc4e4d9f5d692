"use strict";
// The map of texts: what is shown, found, hidden and pointed at, and all that people can do to it.
class TextMap {
  static OPACITY = { plain: 210, none: 140, dim: 26, found: 255 };
  static FOUND_SIZE = 24; // against the usual 16
  static STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };

  constructor(root) {
    const data = JSON.parse(root.querySelector('script[type="application/json"]').textContent);
    const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer;
    Object.assign(this, data, { root, xy: new Float32Array(bytes(data.places)), topics: new Int32Array(bytes(data.topics)) });
    this.count = this.topics.length;
    this.frame = root.querySelector(".map-view");
    this.card = root.querySelector(".map-card");
    this.ring = root.querySelector(".map-ring");
    this.places = new Places(this.xy);
    this.search = new Search(this.texts);
    this.view = new View(data.home);
    this.hidden = new Set(); // topics
    this.over = this.kept = -1; // the texts under the pointer and in the card that stays
    this.only = null; // the topic that the legend is pointed at
    this.found = { marks: null, list: [], words: [] };
    this.shades = new Uint32Array(this.count); // opacity, blue, green, red from the highest byte down
    this.order = [0, 1, 2].map(() => new Uint32Array(this.count)); // what is dim, plain and found
    this.sizes = new Uint8Array(this.count);
    this.shuffled = shuffled(this.count);
    this.dark = matchMedia("(prefers-color-scheme: dark)");
    this.painter = painterIn(this.frame, this.xy, (painter) => this.withoutWebgl(painter));
    this.write();
    this.listen();
    new ResizeObserver(() => this.resize()).observe(this.frame);
    this.resize();
    this.restate();
  }
  withoutWebgl(painter) {
    this.root.querySelector(".map-slow").hidden = false;
    if (!this.painter) return; // still under construction
    this.painter = painter;
    this.resize();
    this.restate();
  }

  seen(i) { return !this.hidden.has(this.topics[i]); }
  nameOf(topic) { return topic < 0 ? "no topic" : this.names[topic]; }
  colourOf(topic) { return (topic < 0 ? this.none : this.colours[topic])[this.dark.matches ? 1 : 0]; }

  // The names on the map, the largest topic's first: it has the first choice of where to stand.
  write() {
    const counts = new Map();
    for (const topic of this.topics) counts.set(topic, (counts.get(topic) || 0) + 1);
    const order = [...counts.keys()].filter((topic) => topic >= 0).sort((a, b) => counts.get(b) - counts.get(a));
    this.labels = order.map((topic) => {
      const element = document.createElement("bdi");
      element.textContent = this.names[topic];
      return { topic, element, x: this.middles[topic][0], y: this.middles[topic][1] };
    });
    this.root.querySelector(".map-labels").append(...this.labels.map((label) => label.element));
  }

  resize() {
    const { width, height } = this.frame.getBoundingClientRect();
    if (!width || !height) return;
    const density = Math.min(window.devicePixelRatio || 1, 3);
    this.view.resize(width, height);
    [this.painter.canvas.width, this.painter.canvas.height] = [Math.round(width * density), Math.round(height * density)];
    this.usual = Math.max(1.5, Math.min(4, 0.19 * Math.sqrt(width * height / this.count)));
    for (const label of this.labels) [label.width, label.height] = [label.element.offsetWidth, label.element.offsetHeight];
    this.placed = null;
    this.draw();
  }

  // Which points are drawn, in which order and colour; the dim ones lie below, what was found on top.
  restate() {
    const { marks } = this.found, { order, shades, sizes, topics } = this, filled = [0, 0, 0];
    const colours = new Map([-1, ...this.labels.map((label) => label.topic)].map((topic) => [topic, bytesOf(this.colourOf(topic))]));
    for (const i of this.shuffled) {
      const topic = topics[i];
      if (this.hidden.has(topic)) continue;
      let kind = topic < 0 ? "none" : "plain";
      if (this.only !== null && topic !== this.only) kind = "dim";
      else if (marks) kind = marks[i] ? "found" : "dim";
      shades[i] = colours.get(topic) | TextMap.OPACITY[kind] << 24;
      sizes[i] = kind === "found" ? TextMap.FOUND_SIZE : USUAL_SIZE;
      const tier = kind === "found" ? 2 : kind === "plain" ? 1 : 0;
      order[tier][filled[tier]++] = i;
    }
    const drawn = new Uint32Array(filled[0] + filled[1] + filled[2]);
    for (const tier of [2, 1, 0]) drawn.set(order[tier].subarray(0, filled[tier]), filled.slice(0, tier).reduce((a, b) => a + b, 0));
    this.painter.update(drawn, shades, sizes);
    for (const { topic, element } of this.labels) {
      element.style.setProperty("--colour", this.colourOf(topic));
      element.classList.toggle("dim", this.only !== null && topic !== this.only);
    }
    for (const row of this.root.querySelectorAll("[data-topic]")) row.style.setProperty("--colour", this.colourOf(+row.dataset.topic));
    this.placed = null;
    this.draw();
  }

  draw() {
    if (!this.waiting) this.waiting = requestAnimationFrame(() => { this.waiting = 0; this.drawNow(); });
  }
  drawNow() {
    const radius = Math.min(9, this.usual * Math.max(0.6, this.view.zoom) ** 0.3);
    this.painter.paint(this.view, radius);
    this.drawNames();
    const i = this.kept >= 0 ? this.kept : this.over;
    this.ring.hidden = this.card.hidden = i < 0;
    if (i >= 0) this.drawCard(i, radius);
  }
  drawNames() {
    // Where they stand depends on the zoom alone, so that panning does not make them jump.
    const key = `${this.view.scale}`;
    if (this.placed !== key) {
      this.placed = key;
      const shown = this.labels.filter(({ topic }) => !this.hidden.has(topic));
      const boxes = shown.map(({ x, y, width, height }) => ({ x: x * this.view.scale, y: -y * this.view.scale, width, height }));
      for (const label of this.labels) label.moved = null;
      roomFor(boxes).forEach((moved, i) => { shown[i].moved = moved; });
    }
    for (const { element, x, y, width, height, moved } of this.labels) {
      element.style.visibility = moved ? "visible" : "hidden";
      if (!moved) continue;
      const [left, top] = this.view.toScreen(x, y);
      element.style.transform = `translate(${left + moved[0] - width / 2}px, ${top + moved[1] - height / 2}px)`;
    }
  }
  drawCard(i, radius) {
    const { width, height } = this.view, { card, ring } = this;
    const [left, top] = this.view.toScreen(this.xy[2 * i], this.xy[2 * i + 1]);
    const gap = radius + 8, inside = left > 0 && top > 0 && left < width && top < height;
    ring.style.transform = `translate(${left}px, ${top}px)`;
    ring.style.setProperty("--radius", `${radius + 3}px`);
    if (this.told !== i) this.fillCard(i);
    const across = left + gap + card.offsetWidth < width ? left + gap : left - gap - card.offsetWidth;
    const down = top + gap + card.offsetHeight < height ? top + gap : top - gap - card.offsetHeight;
    const within = (v, size, most) => Math.max(4, Math.min(most - size - 4, v));
    card.style.transform = `translate(${within(across, card.offsetWidth, width)}px, ${within(down, card.offsetHeight, height)}px)`;
    card.classList.toggle("kept", this.kept >= 0);
    ring.hidden = card.hidden = !inside;
  }
  fillCard(i) {
    this.told = i;
    const [name, text] = this.card.children, marked = this.search.marked(this.texts[i], this.found.words);
    name.textContent = this.nameOf(this.topics[i]);
    name.style.setProperty("--colour", this.colourOf(this.topics[i]));
    text.replaceChildren(...marked.map(([part, hit]) => (hit ? Object.assign(document.createElement("mark"), { textContent: part }) : part)));
    if (!this.texts[i]) text.textContent = "(an empty text)";
    this.card.scrollTop = 0;
  }
  // Keeps a text's card open and tells it to people who hear the page.
  keep(i, tell = false) {
    this.kept = i;
    if (i >= 0 && tell) {
      this.root.querySelector(".map-said").textContent = `${this.nameOf(this.topics[i])}: ${this.texts[i] || "an empty text"}`;
      this.reveal(i);
    }
    this.draw();
  }
  reveal(i) {
    const [x, y] = [this.xy[2 * i], this.xy[2 * i + 1]], [left, top] = this.view.toScreen(x, y);
    const { width, height } = this.view;
    if (left > 40 && top > 40 && left < width - 40 && top < height - 40) return;
    this.glide(x, y, this.view.scale);
  }
  glide(x, y, scale) {
    const from = [this.view.x, this.view.y, Math.log(this.view.scale)], to = [x, y, Math.log(scale)], start = performance.now();
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    const step = (now) => {
      if (this.gliding !== step) return; // another move has begun
      const t = calm ? 1 : Math.min(1, Math.max(0, (now - start) / 250)), eased = t * t * (3 - 2 * t);
      const [vx, vy, vs] = from.map((v, k) => v + (to[k] - v) * eased);
      Object.assign(this.view, { x: vx, y: vy, scale: t === 1 ? scale : Math.exp(vs) });
      this.draw();
      if (t < 1) requestAnimationFrame(step);
    };
    this.gliding = step;
    requestAnimationFrame(step);
  }
  pan(right, down) { this.gliding = null; this.view.pan(right, down); this.draw(); }
  zoom(factor, left = this.view.width / 2, top = this.view.height / 2) {
    this.gliding = null;
    this.view.zoomAt(left, top, factor);
    this.draw();
  }
  whole() { this.glide(0, 0, this.view.fit); }

  find(query) {
    this.found = this.search.find(query);
    this.next = -1;
    this.told = -1;
    this.countFound();
    this.restate();
  }
  countFound() {
    const { marks, list } = this.found, hidden = marks ? list.filter((i) => !this.seen(i)).length : 0;
    const said = marks ? `${grouped(list.length)} of ${grouped(this.count)} texts` + (hidden ? `, ${grouped(hidden)} of them hidden` : "") : "";
    this.root.querySelector(".map-found").textContent = said;
    for (const button of this.root.querySelectorAll("[data-step]")) button.disabled = list.length === hidden;
  }
  step(by) {
    const list = this.found.list.filter((i) => this.seen(i));
    if (!list.length) return;
    const at = list.indexOf(this.next), from = at < 0 && by < 0 ? 0 : at;
    this.next = list[(from + by + list.length) % list.length];
    this.keep(this.next, true);
  }
  hide(topics) {
    this.hidden = new Set(topics);
    if (this.kept >= 0 && !this.seen(this.kept)) this.kept = -1;
    this.over = -1;
    this.countFound();
    this.restate();
  }
  point(left, top) {
    const [x, y] = this.view.toMap(left, top);
    this.over = this.places.nearest(x, y, 12 / this.view.scale, (i) => this.seen(i));
    return this.over;
  }
  // From the text that is kept, or from the middle of what is seen, to the next on one side.
  walk(direction) {
    const { xy, view } = this, seen = (i) => this.seen(i);
    let next = this.places.nearest(view.x, view.y, Math.max(view.width, view.height) / view.scale, seen);
    if (this.kept >= 0) next = this.places.toward(xy[2 * this.kept], xy[2 * this.kept + 1], direction, this.kept, seen);
    if (next >= 0) this.keep(next, true);
  }
}

// "#rrggbb" as one number, red lowest.
const bytesOf = (hex) => [1, 3, 5].reduce((sum, at, k) => sum | parseInt(hex.slice(at, at + 2), 16) << 8 * k, 0);
const grouped = (n) => n.toLocaleString("en").replaceAll(",", "\u202f");

// The numbers below count, mixed, the same way each time: drawn so, no topic lies over all others.
function shuffled(count) {
  const order = Uint32Array.from({ length: count }, (_, i) => i);
  for (let i = count - 1, state = 1; i > 0; i--) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    const j = Math.floor(state / 2 ** 32 * (i + 1));
    [order[i], order[j]] = [order[j], order[i]];
  }
  return order;
}
