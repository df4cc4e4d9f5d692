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

// Writes the pixels itself: a path or a copied picture for each of many points takes seconds.
class PlainPainter {
  constructor(canvas, xy) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.xy = xy;
  }
  update(order, shades, sizes) { Object.assign(this, { order, shades, sizes }); }
  paint(view, radius) {
    const { canvas, context, xy, shades, sizes } = this, density = canvas.width / view.width, discs = new Map();
    const image = context.createImageData(canvas.width, canvas.height);
    const [red, green, blue] = getComputedStyle(canvas.parentElement).backgroundColor.match(/\d+/g).map(Number);
    new Uint32Array(image.data.buffer).fill(red | green << 8 | blue << 16 | 255 << 24);
    for (const i of this.order) {
      const [left, top] = view.toScreen(xy[2 * i], xy[2 * i + 1]);
      if (left < -9 || top < -9 || left > view.width + 9 || top > view.height + 9) continue;
      if (!discs.has(sizes[i])) discs.set(sizes[i], PlainPainter.disc(radius * sizes[i] / USUAL_SIZE * density));
      PlainPainter.blend(image, Math.round(left * density), Math.round(top * density), discs.get(sizes[i]), shades[i]);
    }
    context.putImageData(image, 0, 0);
  }
  // The pixels of a disc: [right, down, how much of the pixel is covered].
  static disc(radius) {
    const reach = Math.ceil(radius), pixels = [];
    for (let y = -reach; y <= reach; y++) {
      for (let x = -reach; x <= reach; x++) {
        const covered = Math.min(1, radius + 0.5 - Math.hypot(x, y));
        if (covered > 0) pixels.push([x, y, covered]);
      }
    }
    return pixels;
  }
  static blend({ data, width, height }, left, top, disc, shade) {
    const [red, green, blue, opacity] = [shade & 255, shade >>> 8 & 255, shade >>> 16 & 255, (shade >>> 24) / 255];
    for (let k = 0; k < disc.length; k++) {
      const x = left + disc[k][0], y = top + disc[k][1], share = disc[k][2] * opacity, at = 4 * (y * width + x);
      if (x < 0 || y < 0 || x >= width || y >= height) continue;
      data[at] += (red - data[at]) * share;
      data[at + 1] += (green - data[at + 1]) * share;
      data[at + 2] += (blue - data[at + 2]) * share;
    }
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
