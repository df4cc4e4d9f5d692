"use strict";
// Reads the values of a plot under the pointer, or with the arrow keys. Copies code.
(() => {
  const readable = (v) => {
    const short = Math.abs(v) >= 1000 ? Math.round(v).toLocaleString("en").replaceAll(",", "\u202f") : String(+v.toPrecision(4));
    return short.replace("-", "−");
  };
  const element = (name, className) => Object.assign(document.createElement(name), { className });

  for (const area of document.querySelectorAll("[data-plot]")) {
    const { x, curves, unit } = JSON.parse(area.dataset.plot);
    const [low, high, log] = x;
    const place = (v) => (log ? Math.log(v / low) / Math.log(high / low) : (v - low) / (high - low));
    const stops = [...new Set(curves.flatMap((c) => c.points.map((p) => p[0])))].sort((a, b) => a - b);
    const cursor = element("div", "plot-cursor"), box = element("div", "plot-readout");
    cursor.hidden = box.hidden = true;
    box.setAttribute("role", "status");
    area.append(cursor, box);
    let at = stops.length - 1;

    const nearest = (points, v) => {
      let a = 0, b = points.length - 1;
      while (a < b) {
        const middle = (a + b) >> 1;
        if (points[middle][0] < v) a = middle + 1; else b = middle;
      }
      return a > 0 && Math.abs(points[a - 1][0] - v) < Math.abs(points[a][0] - v) ? points[a - 1] : points[a];
    };
    const show = (v) => {
      const left = 100 * place(v);
      box.replaceChildren(Object.assign(element("span", ""), { textContent: `${unit}: ${readable(v)}` }));
      for (const curve of curves) {
        if (!curve.points.length || v > curve.points.at(-1)[0] * (1 + 1e-9) && left > 100 * place(curve.points.at(-1)[0]) + 2) continue;
        const row = element("div", ""), dot = element("i", "");
        dot.style.background = `var(--series-${curve.colour})`;
        const [x, y] = nearest(curve.points, v), far = Math.abs(place(x) - place(v)) > 0.02;
        row.append(dot, curve.name, far ? ` at ${readable(x)}` : "", Object.assign(element("b", ""), { textContent: readable(y) }));
        box.append(row);
      }
      cursor.style.left = `${left}%`;
      box.style.left = left < 55 ? `calc(${left}% + 0.7rem)` : "auto";
      box.style.right = left < 55 ? "auto" : `calc(${100 - left}% + 0.7rem)`;
      cursor.hidden = box.hidden = false;
    };
    const hide = () => { cursor.hidden = box.hidden = true; };
    const point = (event) => {
      const bounds = area.getBoundingClientRect();
      const wanted = (event.clientX - bounds.left) / bounds.width;
      at = stops.reduce((best, v, i) => (Math.abs(place(v) - wanted) < Math.abs(place(stops[best]) - wanted) ? i : best), 0);
      show(stops[at]);
    };
    area.addEventListener("pointermove", point);
    area.addEventListener("pointerdown", point);
    area.addEventListener("pointerleave", hide);
    area.addEventListener("blur", hide);
    area.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1, Home: -stops.length, End: stops.length }[event.key];
      if (event.key === "Escape") return hide();
      if (!step) return;
      event.preventDefault();
      if (!box.hidden) at = Math.max(0, Math.min(stops.length - 1, at + step));
      show(stops[at]);
    });
  }

  for (const button of document.querySelectorAll(".copy")) {
    button.addEventListener("click", async () => {
      const source = button.parentElement.querySelector("code");
      try {
        await navigator.clipboard.writeText(source.textContent);
        button.textContent = "Copied";
      } catch { // no clipboard in this browser or on this page: select it, Ctrl-C does the rest
        getSelection().selectAllChildren(source);
        button.textContent = "Selected";
      }
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
  }
})();
