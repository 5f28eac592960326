"use strict";
// A point cloud on a canvas: parallel rays, the nearest point of each pixel. Dragging or arrow keys turn it, the wheel
// or + and - zoom. It redraws itself when it is given other points or colours.
const makeCloud = (canvas) => {
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
    waiting = false;

  // points: x, y, z one after the other; tones: red, green, blue of each.
  function take(newPoints, newTones) {
    points = newPoints;
    tones = newTones;
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
    for (let k = 0; k < points.length; k += 3) {
      const x = points[k],
        y = points[k + 1],
        z = points[k + 2];
      const left = Math.round(side / 2 + scale * (turn[0] * x + turn[1] * y + turn[2] * z) - size / 2);
      const top = Math.round(side / 2 - scale * (turn[3] * x + turn[4] * y + turn[5] * z) - size / 2);
      const depth = turn[6] * x + turn[7] * y + turn[8] * z;
      for (let v = Math.max(0, top); v < Math.min(side, top + size); v++) {
        for (let u = Math.max(0, left); u < Math.min(side, left + size); u++) {
          const pixel = v * side + u;
          if (near[pixel] >= depth) continue;
          near[pixel] = depth;
          frame.data[4 * pixel] = tones[k];
          frame.data[4 * pixel + 1] = tones[k + 1];
          frame.data[4 * pixel + 2] = tones[k + 2];
          frame.data[4 * pixel + 3] = 255;
        }
      }
    }
    brush.putImageData(frame, 0, 0);
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
    if (!before) return;
    const wide = fingers.size === 2 ? spread() : 0;
    fingers.set(event.pointerId, {x: event.clientX, y: event.clientY});
    if (fingers.size === 1) rotate((event.clientX - before.x) / 120, (event.clientY - before.y) / 120);
    else if (wide) magnify(spread() / wide);
  });
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
    if (turns || factor) {
      event.preventDefault();
      event.stopPropagation();
    }
  });
  return {take, paint, reset};
};
