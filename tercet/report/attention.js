// Draws attention maps from the weights beside them. A weight's byte: 0 is exactly zero, c is ((c - 1) / 254)².
(() => {
  const MEAN = -1;
  const bytesOf = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const percent = (w) => (w === 0 ? "masked" : w < 0.0005 ? "< 0.1 %" : `${(100 * w).toFixed(w < 0.0995 ? 1 : 0)} %`);

  // The colours of bytes 1 ... 255, between four stops of the style sheet, as [r, g, b].
  const ramp = () => {
    const style = getComputedStyle(document.documentElement);
    const stops = [0, 1, 2, 3].map((i) => {
      const hex = style.getPropertyValue(`--map-${i}`).trim();
      return [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
    });
    return Array.from({ length: 256 }, (_, code) => {
      const along = 3 * Math.max(0, code - 1) / 254, i = Math.min(2, Math.floor(along));
      return stops[i].map((from, k) => Math.round(from + (along - i) * (stops[i + 1][k] - from)));
    });
  };
  const css = ([r, g, b]) => `rgb(${r} ${g} ${b})`;
  const dark = ([r, g, b]) => 0.3 * r + 0.59 * g + 0.11 * b < 140;

  class AttentionMap {
    constructor(figure) {
      const data = JSON.parse(figure.querySelector('script[type="application/json"]').textContent);
      [this.layers, this.heads, this.rows, this.columns] = data.shape;
      this.queries = data.queries;
      this.keys = data.keys;
      this.codes = bytesOf(data.weights);
      [this.layer, this.head] = data.start;
      this.figure = figure;
      this.canvas = figure.querySelector(".cells canvas");
      this.buttons = [...figure.querySelectorAll("[data-head]")];
      this.mean = figure.querySelector(".mean");
      this.rowLabels = [...figure.querySelectorAll(".queries bdi")];
      this.columnLabels = [...figure.querySelectorAll(".keys > span")];
      this.pin = this.pinned = null;
      this.strips();
      this.listen();
      this.choose(this.layer, this.head);
      this.pinned = this.pin = this.telling();
      this.recolour();
    }

    // The bytes of a head, or of the mean over a layer's heads.
    matrix(layer, head) {
      const size = this.rows * this.columns;
      if (head !== MEAN) return this.codes.subarray((layer * this.heads + head) * size, (layer * this.heads + head + 1) * size);
      const mean = new Uint8Array(size);
      for (let i = 0; i < size; i++) {
        let sum = 0;
        for (let h = 0; h < this.heads; h++) {
          const code = this.codes[(layer * this.heads + h) * size + i];
          sum += code ? ((code - 1) / 254) ** 2 : -1e-9;
        }
        mean[i] = sum < 0 ? 0 : 1 + Math.round(254 * Math.sqrt(sum / this.heads));
      }
      return mean;
    }
    weight(row, column) {
      const code = this.now[row * this.columns + column];
      return code ? ((code - 1) / 254) ** 2 : 0;
    }
    strongest(row) {
      return Array.from({ length: this.columns }, (_, s) => s).sort((a, b) => this.weight(row, b) - this.weight(row, a));
    }
    // The cell to begin with: the strongest link of the head between two different tokens.
    telling() {
      let best = [Math.min(1, this.rows - 1), 0], most = -1;
      for (let t = 0; t < this.rows; t++) {
        for (let s = 1; s < this.columns; s++) {
          if (this.rows === this.columns && s === t) continue;
          if (this.weight(t, s) > most) { most = this.weight(t, s); best = [t, s]; }
        }
      }
      return best;
    }

    strips() {
      const strip = (tokens, kind) => {
        const line = Object.assign(document.createElement("div"), { className: `tokens ${kind}` });
        line.append(...tokens.map((t) => Object.assign(document.createElement("bdi"), { textContent: t })));
        return line;
      };
      const name = (text) => Object.assign(document.createElement("span"), { textContent: text });
      this.from = strip(this.queries, "from");
      this.to = strip(this.keys, "to");
      this.figure.querySelector(".attention-read").append(name("from"), this.from, name("looks at"), this.to);
      [...this.from.children].forEach((token, t) => {
        token.addEventListener("pointerenter", () => this.point([t, this.strongest(t)[0]]));
        token.addEventListener("pointerleave", () => this.point(this.pinned));
        token.addEventListener("click", () => this.point(this.pinned = [t, this.strongest(t)[0]]));
      });
      const ends = ["0 %", "25 %", "100 %"].map(name);
      this.rampCanvas = this.figure.querySelector(".ramp canvas");
      this.rampCanvas.before(ends[0]);
      this.rampCanvas.after(ends[2]);
      this.rampCanvas.title = "Square-root scale: the middle is 25 %.";
    }

    listen() {
      const cell = (event) => {
        const box = this.canvas.getBoundingClientRect();
        const t = Math.floor((event.clientY - box.top) / box.height * this.rows);
        const s = Math.floor((event.clientX - box.left) / box.width * this.columns);
        return t >= 0 && s >= 0 && t < this.rows && s < this.columns ? [t, s] : this.pinned;
      };
      this.canvas.addEventListener("pointermove", (event) => this.point(cell(event)));
      this.canvas.addEventListener("pointerdown", (event) => this.point(this.pinned = cell(event)));
      this.canvas.addEventListener("pointerleave", () => this.point(this.pinned));
      this.canvas.addEventListener("keydown", (event) => {
        const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
        if (!step) return;
        event.preventDefault();
        const within = (v, n) => Math.max(0, Math.min(n - 1, v));
        this.point(this.pinned = [within(this.pinned[0] + step[0], this.rows), within(this.pinned[1] + step[1], this.columns)]);
      });
      this.buttons.forEach((button, i) => {
        button.addEventListener("click", () => this.choose(Math.floor(i / this.heads), i % this.heads));
        button.addEventListener("keydown", (event) => {
          const step = { ArrowUp: -this.heads, ArrowDown: this.heads, ArrowLeft: -1, ArrowRight: 1 }[event.key];
          const next = this.buttons[i + step];
          if (!step || !next) return;
          event.preventDefault();
          next.click();
          next.focus();
        });
      });
      this.mean.hidden = this.heads === 1;
      this.mean.addEventListener("click", () => this.choose(this.layer, MEAN));
      matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.recolour());
      addEventListener("resize", () => this.draw()); // a window moved to a screen of other density
    }

    choose(layer, head) {
      [this.layer, this.head] = [layer, head];
      this.now = this.matrix(layer, head);
      this.buttons.forEach((button, i) => {
        const on = head !== MEAN && i === layer * this.heads + head;
        button.setAttribute("aria-pressed", on);
        button.tabIndex = on || (head === MEAN && i === layer * this.heads) ? 0 : -1;
      });
      this.mean.setAttribute("aria-pressed", head === MEAN);
      this.name = `Layer ${layer + 1}, ${head === MEAN ? "mean of heads" : `head ${head + 1}`}`;
      this.figure.querySelector(".which").textContent = this.name;
      if (this.colours) this.draw();
    }

    recolour() {
      this.colours = ramp();
      const context = this.rampCanvas.getContext("2d");
      [this.rampCanvas.width, this.rampCanvas.height] = [255, 1];
      for (let c = 1; c < 256; c++) { context.fillStyle = css(this.colours[c]); context.fillRect(c - 1, 0, 1, 1); }
      this.buttons.forEach((button, i) => this.thumbnail(button.querySelector("canvas"), Math.floor(i / this.heads), i % this.heads));
      this.draw();
    }

    // A pixel a cell, at most 96 a side (then a pixel is its cells' largest weight).
    thumbnail(canvas, layer, head) {
      const codes = this.matrix(layer, head), pool = Math.ceil(Math.max(this.rows, this.columns) / 96);
      const [width, height] = [Math.ceil(this.columns / pool), Math.ceil(this.rows / pool)];
      const most = new Uint8Array(width * height);
      for (let t = 0; t < this.rows; t++) {
        for (let s = 0; s < this.columns; s++) {
          const i = Math.floor(t / pool) * width + Math.floor(s / pool);
          most[i] = Math.max(most[i], codes[t * this.columns + s]);
        }
      }
      // Whole pixels a cell keep small maps crisp.
      const scale = Math.max(1, Math.floor(112 / Math.max(width, height)));
      [canvas.width, canvas.height] = [width * scale, height * scale];
      const context = canvas.getContext("2d");
      most.forEach((code, i) => {
        if (!code) return;
        context.fillStyle = css(this.colours[code]);
        context.fillRect(i % width * scale, Math.floor(i / width) * scale, scale, scale);
      });
    }

    draw() {
      // A sharp picture, but never more pixels than the smallest browsers hold.
      const [across, down] = [this.columns, this.rows].map((n) => n * parseFloat(this.figure.style.getPropertyValue("--cell")));
      const density = Math.min(window.devicePixelRatio || 1, Math.sqrt(16e6 / (across * down)));
      this.cell = Math.max(1, Math.round(across / this.columns * density));
      [this.canvas.width, this.canvas.height] = [this.columns * this.cell, this.rows * this.cell];
      this.paint(0, this.rows, 0, this.columns);
      if (this.pin) this.point(this.pin);
    }
    paint(top, bottom, left, right) {
      const context = this.canvas.getContext("2d"), cell = this.cell, gap = Math.max(1, Math.round(cell / 24));
      context.clearRect(left * cell, top * cell, (right - left) * cell, (bottom - top) * cell);
      for (let t = top; t < bottom; t++) {
        for (let s = left; s < right; s++) {
          const code = this.now[t * this.columns + s];
          if (!code) continue;
          context.fillStyle = css(this.colours[code]);
          context.fillRect(s * cell, t * cell, cell - gap, cell - gap);
        }
      }
    }

    // Marks a cell, and tells in words and in the text what its row looks at.
    point([t, s]) {
      if (this.pin) { // wipes the old mark
        const [row, column] = this.pin;
        this.paint(Math.max(0, row - 1), Math.min(this.rows, row + 2), Math.max(0, column - 1), Math.min(this.columns, column + 2));
      }
      this.pin = [t, s];
      const context = this.canvas.getContext("2d"), cell = this.cell;
      context.lineWidth = Math.max(2, cell / 10);
      context.strokeStyle = getComputedStyle(this.figure).getPropertyValue("--pin");
      context.strokeRect(s * cell, t * cell, cell - 1, cell - 1);
      const light = (labels, chosen) => labels.forEach((label, i) => label.classList.toggle("on", i === chosen));
      light(this.rowLabels, t);
      light(this.columnLabels, s);
      light([...this.from.children], t);
      light([...this.to.children], s);
      [...this.to.children].forEach((token, i) => {
        const code = this.now[t * this.columns + i], colour = this.colours[code];
        token.style.background = code ? css(colour) : "none";
        token.style.color = code ? (dark(colour) ? "#ffffff" : "#10131a") : "var(--soft)";
        token.style.opacity = code ? 1 : 0.55;
      });
      const bold = (text) => Object.assign(document.createElement("b"), { textContent: text });
      const weight = this.weight(t, s);
      this.figure.querySelector(".attention-said").replaceChildren(
        `${this.name}: `, bold(this.queries[t]), " → ", bold(this.keys[s]), " ", weight ? bold(percent(weight)) : "masked, exactly nothing",
      );
    }
  }

  document.querySelectorAll(".attention").forEach((figure) => new AttentionMap(figure));
})();
