"use strict";
// Puts the points on a canvas: by WebGL, or where there is none by a 2-D canvas, slower but the same.
// A painter takes `order`, the points to draw, the last one uppermost; `shades`, a number of four bytes
// a point: red, the lowest, green, blue, opacity; and `sizes`, a byte a point: 16 is the usual radius.

const USUAL_SIZE = 16;

class WebglPainter {
  static VERTEX = `#version 300 es
    in vec2 place; in vec4 shade; in float size;
    uniform vec2 middle, stretch; uniform float radius;
    out vec4 colour; out float reach;
    void main() {
      colour = shade;
      reach = radius * size + 0.5;
      gl_PointSize = 2.0 * reach + 1.0;
      gl_Position = vec4((place - middle) * stretch, 0.0, 1.0);
    }`;
  // A disc whose rim fades over one pixel.
  static FRAGMENT = `#version 300 es
    precision mediump float;
    in vec4 colour; in float reach;
    out vec4 pixel;
    void main() {
      float away = length(gl_PointCoord - 0.5) * (2.0 * reach + 1.0);
      float alpha = colour.a * clamp(reach - away + 0.5, 0.0, 1.0);
      if (alpha <= 0.0) discard;
      pixel = vec4(colour.rgb * alpha, alpha);
    }`;

  constructor(canvas, xy) {
    const gl = canvas.getContext("webgl2", { antialias: false });
    if (!gl) throw new Error("no WebGL");
    const count = xy.length / 2;
    this.gl = gl;
    this.canvas = canvas;
    this.program = twgl.createProgramInfo(gl, [WebglPainter.VERTEX, WebglPainter.FRAGMENT]);
    this.buffers = twgl.createBufferInfoFromArrays(gl, {
      place: { numComponents: 2, data: xy },
      shade: { numComponents: 4, data: new Uint8Array(4 * count), normalize: true },
      size: { numComponents: 1, data: new Uint8Array(count), normalize: false },
      indices: { numComponents: 1, data: new Uint32Array(count) },
    });
    this.shown = 0;
  }
  // The bytes have changed.
  update(order, shades, sizes) {
    const { gl, buffers } = this;
    twgl.setAttribInfoBufferFromArray(gl, buffers.attribs.shade, new Uint8Array(shades.buffer));
    twgl.setAttribInfoBufferFromArray(gl, buffers.attribs.size, sizes);
    gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, buffers.indices);
    gl.bufferSubData(gl.ELEMENT_ARRAY_BUFFER, 0, order);
    this.shown = order.length;
  }
  paint(view, radius) {
    const { gl, canvas, program, buffers } = this, density = canvas.width / view.width;
    gl.viewport(0, 0, canvas.width, canvas.height);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT);
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
    gl.useProgram(program.program);
    twgl.setBuffersAndAttributes(gl, program, buffers);
    twgl.setUniforms(program, {
      middle: [view.x, view.y],
      stretch: [2 * view.scale / view.width, 2 * view.scale / view.height],
      radius: radius * density / USUAL_SIZE,
    });
    twgl.drawBufferInfo(gl, buffers, gl.POINTS, this.shown);
  }
}

class PlainPainter {
  constructor(canvas, xy) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.xy = xy;
  }
  update(order, shades, sizes) {
    Object.assign(this, { order, shades, sizes, stamps: new Map() });
  }
  paint(view, radius) {
    const { canvas, context, xy } = this, density = canvas.width / view.width;
    if (radius !== this.radius) this.stamps.clear();
    this.radius = radius;
    context.clearRect(0, 0, canvas.width, canvas.height);
    for (const i of this.order) {
      const [left, top] = view.toScreen(xy[2 * i], xy[2 * i + 1]);
      if (left < -9 || top < -9 || left > view.width + 9 || top > view.height + 9) continue;
      const stamp = this.stamp(this.shades[i], radius * this.sizes[i] / USUAL_SIZE * density), middle = stamp.width / 2;
      context.drawImage(stamp, left * density - middle, top * density - middle);
    }
  }
  // A disc is drawn once and then copied: many times faster than a path for each point.
  stamp(shade, radius) {
    const key = `${shade} ${radius}`;
    if (!this.stamps.has(key)) {
      const stamp = document.createElement("canvas"), context = stamp.getContext("2d");
      stamp.width = stamp.height = 2 * Math.ceil(radius + 1);
      const [r, g, b, a] = new Uint8Array(new Uint32Array([shade]).buffer);
      context.fillStyle = `rgb(${r} ${g} ${b} / ${a / 255})`;
      context.arc(stamp.width / 2, stamp.width / 2, radius, 0, 2 * Math.PI);
      context.fill();
      this.stamps.set(key, stamp);
    }
    return this.stamps.get(key);
  }
}

// A painter on a new canvas inside `frame`. `slow()` is told where WebGL is missing or goes away: the
// map is then drawn without it, on another canvas, since a canvas keeps its kind for life.
function painterIn(frame, xy, slow) {
  const fresh = () => {
    const canvas = document.createElement("canvas");
    frame.querySelector("canvas")?.remove();
    frame.prepend(canvas);
    return canvas;
  };
  const plain = () => {
    const painter = new PlainPainter(fresh(), xy);
    slow(painter);
    return painter;
  };
  try {
    const painter = new WebglPainter(fresh(), xy);
    painter.canvas.addEventListener("webglcontextlost", plain);
    return painter;
  } catch {
    return plain();
  }
}
