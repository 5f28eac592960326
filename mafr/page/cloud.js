"use strict";
// A point cloud on a canvas: parallel rays, the nearest point of each pixel. Dragging or arrow keys turn it, the wheel
// or + and - zoom. It redraws itself when it is given other points or colours. point(n) is called with the number of
// the point below the cursor, or null.
const makeCloud = (canvas, point = () => null) => {
  const brush = canvas.getContext("2d", {willReadFrequently: true});
  const turnX = (a) => {
    const c = Math.cos(a),
      s = Math.sin(a);
    return [1, 0, 0, 0, c, -s, 0, s, c];
  };
  const turnY = (a) => {
    const c = Math.cos(a),
      s = Math.sin(a);
    return [c, 0, s, 0, 1, 0, -s, 0, c];
  };
  const times = (a, b) =>
    a.map((_, k) => [0, 1, 2].reduce((sum, m) => sum + a[3 * Math.floor(k / 3) + m] * b[3 * m + (k % 3)], 0));
  const start = () => times(turnX(-0.45), turnY(0.35));
  let turn = start(),
    zoom = 1,
    points = new Float32Array(0),
    tones = new Uint8Array(0),
    owner = new Int32Array(0), // of each pixel: the point that is seen there, or -1
    marked = null,
    waiting = false;

  // points: x, y, z one after the other; tones: red, green, blue of each.
  function take(newPoints, newTones) {
    points = newPoints;
    tones = newTones;
    marked = null;
    paint();
  }

  function paint() {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      paintNow();
    });
  }

  function paintNow() {
    const side = canvas.width,
      count = points.length / 3;
    brush.clearRect(0, 0, side, side);
    if (!count) return;
    let radius = 0;
    for (let k = 0; k < points.length; k += 3) {
      radius = Math.max(radius, Math.hypot(points[k], points[k + 1], points[k + 2]));
    }
    const scale = ((0.48 * side) / (radius || 1)) * zoom;
    const size = Math.min(12, Math.max(2, Math.ceil((scale * radius * 1.9) / Math.sqrt(count))));
    const frame = brush.createImageData(side, side),
      near = new Float32Array(side * side).fill(-Infinity);
    owner = new Int32Array(side * side).fill(-1);
    const along = (k, row) => turn[row] * points[k] + turn[row + 1] * points[k + 1] + turn[row + 2] * points[k + 2];
    for (let k = 0; k < points.length; k += 3) {
      const left = Math.round(side / 2 + scale * along(k, 0) - size / 2),
        top = Math.round(side / 2 - scale * along(k, 3) - size / 2),
        depth = along(k, 6);
      for (let v = Math.max(0, top); v < Math.min(side, top + size); v++) {
        for (let u = Math.max(0, left); u < Math.min(side, left + size); u++) {
          const pixel = v * side + u;
          if (near[pixel] >= depth) continue;
          near[pixel] = depth;
          owner[pixel] = k / 3;
          frame.data[4 * pixel] = tones[k];
          frame.data[4 * pixel + 1] = tones[k + 1];
          frame.data[4 * pixel + 2] = tones[k + 2];
          frame.data[4 * pixel + 3] = 255;
        }
      }
    }
    brush.putImageData(frame, 0, 0);
    if (marked === null) return;
    const x = side / 2 + scale * along(3 * marked, 0),
      y = side / 2 - scale * along(3 * marked, 3);
    for (const [colour, width] of [
      ["#000", 4],
      ["#fff", 2],
    ]) {
      brush.strokeStyle = colour;
      brush.lineWidth = width;
      brush.beginPath();
      brush.arc(x, y, 9, 0, 2 * Math.PI);
      brush.stroke();
    }
  }

  // A ring around a point, or none.
  function mark(n) {
    if (n === marked) return;
    marked = n;
    paint();
  }

  function pointAt({clientX, clientY}) {
    const box = canvas.getBoundingClientRect(),
      at = (value, length) => Math.floor((canvas.width * value) / length);
    const n = owner[at(clientY - box.top, box.height) * canvas.width + at(clientX - box.left, box.width)] ?? -1;
    return n < 0 ? null : n;
  }

  const rotate = (dx, dy) => {
    turn = times(times(turnX(dy), turnY(dx)), turn);
    paint();
  };
  const magnify = (factor) => {
    zoom = Math.min(20, Math.max(0.3, zoom * factor));
    paint();
  };
  const reset = () => {
    turn = start();
    zoom = 1;
    paint();
  };
  const fingers = new Map();
  const spread = () => {
    const [a, b] = fingers.values();
    return Math.hypot(a.x - b.x, a.y - b.y);
  };
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, {x: event.clientX, y: event.clientY});
  });
  canvas.addEventListener("pointermove", (event) => {
    const before = fingers.get(event.pointerId);
    if (!before) {
      point(pointAt(event));
      return;
    }
    const wide = fingers.size === 2 ? spread() : 0;
    fingers.set(event.pointerId, {x: event.clientX, y: event.clientY});
    if (fingers.size === 1) rotate((event.clientX - before.x) / 120, (event.clientY - before.y) / 120);
    else if (wide) magnify(spread() / wide);
  });
  canvas.addEventListener("pointerleave", () => point(null));
  for (const name of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(name, (event) => fingers.delete(event.pointerId));
  }
  canvas.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      magnify(Math.exp(-event.deltaY / 500));
    },
    {passive: false},
  );
  canvas.addEventListener("dblclick", reset);
  canvas.addEventListener("keydown", (event) => {
    const turns = {ArrowLeft: [-0.15, 0], ArrowRight: [0.15, 0], ArrowUp: [0, -0.15], ArrowDown: [0, 0.15]}[
      event.key
    ];
    const factor = {"+": 1.2, "=": 1.2, "-": 1 / 1.2}[event.key];
    if (turns) rotate(...turns);
    if (factor) magnify(factor);
    if (event.key === "0") reset();
    if (turns || factor || event.key === "0") {
      event.preventDefault();
      event.stopPropagation();
    }
  });
  return {take, mark};
};
