"use strict";
// Where the map is seen from, which text lies where, and where names find room. Draws nothing.

// From map units to pixels: `x`, `y` is the middle of what is seen, `scale` the pixels a unit.
class View {
  static CLOSEST = 20000; // times as near as at first; single precision holds pixels apart until here

  constructor(home) {
    this.home = home; // half the width and half the height of what is seen at first
    [this.x, this.y, this.scale, this.fit, this.width, this.height] = [0, 0, 1, 1, 1, 1];
  }
  resize(width, height) {
    const zoom = this.zoom, first = this.width === 1;
    [this.width, this.height] = [width, height];
    const room = (size) => Math.max(size * 0.5, size - 90); // names and points at the rim need some
    this.fit = Math.min(room(width) / (2 * this.home[0]), room(height) / (2 * this.home[1]));
    this.scale = first ? this.fit : this.fit * zoom;
  }
  get zoom() { return this.scale / this.fit; }
  toScreen(x, y) { return [this.width / 2 + (x - this.x) * this.scale, this.height / 2 - (y - this.y) * this.scale]; }
  toMap(left, top) { return [this.x + (left - this.width / 2) / this.scale, this.y - (top - this.height / 2) / this.scale]; }
  pan(right, down) {
    this.x -= right / this.scale;
    this.y += down / this.scale;
  }
  // What lies under the given pixel stays there.
  zoomAt(left, top, factor) {
    const [x, y] = this.toMap(left, top);
    this.scale = Math.max(this.fit / 8, Math.min(this.fit * View.CLOSEST, this.scale * factor));
    this.x = x - (left - this.width / 2) / this.scale;
    this.y = y + (top - this.height / 2) / this.scale;
  }
}

// The places of the texts, in cells of a grid, so that the nearest is found without asking all.
class Places {
  static EDGE = 1.25; // the grid ends here; what lies outside is in its outermost cells

  constructor(xy) {
    this.xy = xy;
    this.count = xy.length / 2;
    this.side = Math.max(1, Math.min(512, Math.round(Math.sqrt(this.count / 2))));
    const cells = new Uint32Array(this.count);
    this.starts = new Uint32Array(this.side * this.side + 1);
    for (let i = 0; i < this.count; i++) {
      cells[i] = this.cell(xy[2 * i]) + this.side * this.cell(xy[2 * i + 1]);
      this.starts[cells[i] + 1]++;
    }
    for (let c = 0; c < this.side * this.side; c++) this.starts[c + 1] += this.starts[c];
    const next = this.starts.slice();
    this.members = new Uint32Array(this.count);
    for (let i = 0; i < this.count; i++) this.members[next[cells[i]]++] = i;
  }
  cell(v) {
    return Math.max(0, Math.min(this.side - 1, Math.floor((v / Places.EDGE + 1) / 2 * this.side)));
  }
  // The nearest text within `reach` of (x, y) that `seen(i)`, or -1.
  nearest(x, y, reach, seen) {
    let best = -1, least = reach * reach;
    const [left, right] = [this.cell(x - reach), this.cell(x + reach)];
    const [low, high] = [this.cell(y - reach), this.cell(y + reach)];
    for (let row = low; row <= high; row++) {
      const [from, to] = [this.starts[row * this.side + left], this.starts[row * this.side + right + 1]];
      for (let k = from; k < to; k++) {
        const i = this.members[k], distance = (this.xy[2 * i] - x) ** 2 + (this.xy[2 * i + 1] - y) ** 2;
        if (distance <= least && seen(i)) [best, least] = [i, distance];
      }
    }
    return best;
  }
  // The next text from (x, y) to one side: near, and rather straight ahead than aslant.
  toward(x, y, [right, up], from, seen) {
    let best = -1, least = Infinity;
    for (let i = 0; i < this.count; i++) {
      const [dx, dy] = [this.xy[2 * i] - x, this.xy[2 * i + 1] - y];
      const ahead = dx * right + dy * up, aside = Math.abs(dx * up) + Math.abs(dy * right);
      if (i === from || ahead <= 0 || aside > ahead) continue;
      const cost = ahead + 2 * aside;
      if (cost < least && seen(i)) [best, least] = [i, cost];
    }
    return best;
  }
}

// Moves boxes of names off each other. boxes: {x, y, width, height} with their middles, the weightier
// first. Gives each [right, down] by how much it moves, or null where there is no room near.
function roomFor(boxes) {
  const taken = [];
  const free = (box) => taken.every((other) =>
    Math.abs(box.x - other.x) * 2 >= box.width + other.width + 6 || Math.abs(box.y - other.y) * 2 >= box.height + other.height + 4);
  return boxes.map((box) => {
    for (const [right, down] of NEARBY) {
      const moved = { ...box, x: box.x + right * box.height, y: box.y + down * box.height };
      if (!free(moved)) continue;
      taken.push(moved);
      return [moved.x - box.x, moved.y - box.y];
    }
    return null;
  });
}
// Where a name may stand, in its heights from its topic's middle: the nearest first.
const NEARBY = [0, -1.2, 1.2, -2.4, 2.4, -3.6, 3.6]
  .flatMap((down) => [0, -1.5, 1.5, -3, 3].map((right) => [right, down]))
  .sort((a, b) => Math.hypot(...a) - Math.hypot(...b));
