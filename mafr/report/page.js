"use strict";
(() => {
const byId = (id) => document.getElementById(id);
const page = JSON.parse(byId("settings").textContent);
const list = byId("parts"), items = [...list.querySelectorAll(".part")];
const number = (value) => String(Number(value.toPrecision(4)));

// ---- a part's data: see encode.py

const bytesOf = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
const colours = bytesOf(page.colours);

async function inflate(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

async function decode(id) {
  const value = JSON.parse(byId("part-" + id).textContent), side = value.side, size = side * side;
  const image = new Image();
  image.src = value.image;
  const [bytes] = await Promise.all([inflate(bytesOf(value.bytes)), image.decode()]);
  const valid = new Uint8Array(size), shown = new Uint8Array(size), levels = new Uint8Array(size);
  let start = 0;
  for (const mask of [valid, shown]) {
    for (let k = 0; k < size; k++) mask[k] = (bytes[start + (k >> 3)] >> (7 - (k & 7))) & 1;
    start += Math.ceil(size / 8);
  }
  for (let v = 0, k = 0; v < side; v++) {
    for (let u = 0; u < side; u++, k++) {
      const left = u ? levels[k - 1] : 0, above = v ? levels[k - side] : 0;
      levels[k] = bytes[start + k] + left + above - (u && v ? levels[k - side - 1] : 0);
    }
  }
  start += size;
  const {count, lattice: [step, slant], corner, step: unit} = value.cloud;
  const points = new Float32Array(3 * count), pixels = new Uint32Array(count);
  for (let axis = 0; axis < 3; axis++) {
    for (let k = 0, sum = 0; k < count; k++) {
      sum = (sum + 256 * bytes[start + axis * count + k] + bytes[start + (axis + 3) * count + k]) & 65535;
      points[3 * k + axis] = corner[axis] + unit * sum;
    }
  }
  for (let v = 0, k = 0, n = 0; v < side; v++) {
    for (let u = 0; u < side; u++, k++) if (valid[k] && (v + slant * u) % step === 0) pixels[n++] = k;
  }
  const heat = Float32Array.from(levels, (level) => value.heat.low + value.heat.step * level);
  return {side, image, valid, shown, heat, points, pixels};
}

const kept = new Map();  // the last few parts
function load(id) {
  if (!kept.has(id)) kept.set(id, decode(id));
  if (kept.size > 6) kept.delete(kept.keys().next().value);
  return kept.get(id);
}

// ---- heat: one scale of colours for all parts

let range = page.heat.threshold;
const shade = (value) => 255 * Math.min(1, Math.max(0, (value - range[0]) / (range[1] - range[0])));

function drawHeat(canvas, part, opacity, fading) {
  const {side} = part, layer = new OffscreenCanvas(side, side), brush = layer.getContext("2d");
  const pixels = brush.createImageData(side, side);
  for (let k = 0; k < part.heat.length; k++) {
    if (!part.shown[k]) continue;
    const tone = Math.round(shade(part.heat[k]));
    pixels.data.set(colours.subarray(3 * tone, 3 * tone + 3), 4 * k);
    pixels.data[4 * k + 3] = fading ? tone : 255;
  }
  brush.putImageData(pixels, 0, 0);
  canvas.width = canvas.height = side;
  const target = canvas.getContext("2d");
  target.drawImage(part.image, 0, 0);
  target.globalAlpha = opacity;
  target.drawImage(layer, 0, 0);
}

// ---- the list: thumbnails drawn when they come near, sorting, filter, search

const near = new Set();
async function drawThumbnail(item) {
  const part = await decode(item.dataset.number).catch(() => null);
  if (part && near.has(item)) drawHeat(item.querySelector("canvas"), part, byId("warm").checked ? 0.85 : 0, true);
}
const watcher = new IntersectionObserver((entries) => {
  for (const {target, isIntersecting} of entries) {
    if (isIntersecting) { near.add(target); drawThumbnail(target); }
    else if (near.delete(target)) target.querySelector("canvas").width = 0;  // gives its memory back
  }
}, {rootMargin: "400px"});
const scored = items.filter((item) => !item.matches(".error"));
scored.forEach((item) => watcher.observe(item));
byId("warm").addEventListener("change", () => near.forEach(drawThumbnail));

const line = document.createElement("li");
line.id = "line";
let order = items;
const score = (item) => Number(item.dataset.score);
const late = (a, b) => a.matches(".error") - b.matches(".error");  // what has no score comes last
const orders = {
  worst: (a, b) => late(a, b) || score(b) - score(a),
  best: (a, b) => late(a, b) || score(a) - score(b),
  name: (a, b) => a.dataset.name.localeCompare(b.dataset.name, undefined, {numeric: true}),
  order: (a, b) => a.dataset.number - b.dataset.number,
};

function arrange() {
  const by = byId("sort").value, kind = document.querySelector("[name=kind]:checked").value;
  const text = byId("find").value.trim().toLowerCase();
  order = [...items].sort(orders[by]);
  for (const item of order) {
    item.hidden = !item.classList.contains(kind) || !item.dataset.name.toLowerCase().includes(text);
  }
  list.append(...order);
  const visible = order.filter((item) => !item.hidden);
  byId("shown").textContent = `${visible.length} of ${items.length} shown`;
  const bad = visible.filter((item) => item.matches(".bad")), good = visible.filter((item) => item.matches(".ok"));
  const [above, below] = by === "best" ? [good, bad] : [bad, good];
  line.hidden = !(by === "worst" || by === "best") || page.threshold === null || !above.length || !below.length;
  const [up, down] = by === "best" ? ["↑ OK", "not OK ↓"] : ["↑ not OK", "OK ↓"];
  line.textContent = line.hidden ? "" : `${up} · threshold ${number(page.threshold)} · ${down}`;
  if (below.length) list.insertBefore(line, below[0]);
}
byId("controls").addEventListener("input", arrange);
for (const label of document.querySelectorAll("#filter label")) {
  const count = items.filter((item) => item.classList.contains(label.firstElementChild.value)).length;
  label.querySelector("b").textContent = count;
  label.hidden = !count && label.firstElementChild.value === "error";
}

// ---- one part, large

const viewer = byId("viewer"), crosses = viewer.querySelectorAll(".cross");
let current = null, part = null;

async function show(item) {
  current = item;
  if (!viewer.open) viewer.showModal();
  const name = item.dataset.name, say = (selector) => item.querySelector(selector).textContent;
  byId("viewer-name").textContent = name;
  byId("viewer-score").textContent = `${say(".verdict")}: ${say(".score")}`;
  viewer.classList.toggle("bad", item.matches(".bad"));
  byId("image").setAttribute("aria-label", `image of ${name}`);
  byId("heat").setAttribute("aria-label", `heatmap of ${name} over its image`);
  byId("cloud").setAttribute("aria-label", `point cloud of ${name}, turned by dragging or arrow keys`);
  const others = shownParts(), place = others.indexOf(item);
  byId("previous").disabled = place <= 0;
  byId("next").disabled = place < 0 || place === others.length - 1;
  const loaded = await load(item.dataset.number).catch((error) => error);
  if (current !== item) return;  // another was asked for in between
  part = loaded instanceof Error ? null : loaded;
  if (!part) { byId("reading").textContent = `The pictures cannot be decoded: ${loaded.message}`; return; }
  byId("cloud-text").textContent = part.pixels.length ? `Cloud, ${part.pixels.length} of its points` : "No 3D points";
  draw();
  read(highest());
}

const shownParts = () => order.filter((item) => !item.hidden && !item.matches(".error"));
function step(by) {
  const others = shownParts(), next = others[others.indexOf(current) + by];
  if (next) show(next);
}

function draw() {
  const image = byId("image");
  image.width = image.height = part.side;
  image.getContext("2d").drawImage(part.image, 0, 0);
  drawHeat(byId("heat"), part, byId("opacity").value / 100, false);
  cloud.take(part);
}

function highest() {
  let best = 0;
  part.heat.forEach((value, k) => { if (value > part.heat[best]) best = k; });
  return best;
}

function read(k, pointed) {
  const v = Math.floor(k / part.side), u = k % part.side, value = part.heat[k];
  const share = page.level ? ` = ${(value / page.level).toFixed(2)} × threshold` : "";
  const none = part.valid[k] ? "" : ", no 3D point";
  byId("reading").textContent = `${pointed ? "Heat" : "Highest heat"} ${number(value)}${share} at row ${v}, column ${u}${none}`;
  for (const cross of crosses) {
    cross.hidden = false;
    cross.style.left = `${100 * (u + 0.5) / part.side}%`;
    cross.style.top = `${100 * (v + 0.5) / part.side}%`;
  }
}

for (const canvas of [byId("image"), byId("heat")]) {
  const point = (event) => {
    if (!part) return;
    const box = canvas.getBoundingClientRect(), last = part.side - 1;
    const u = Math.min(last, Math.max(0, Math.floor((event.clientX - box.left) / box.width * part.side)));
    const v = Math.min(last, Math.max(0, Math.floor((event.clientY - box.top) / box.height * part.side)));
    read(v * part.side + u, true);
  };
  canvas.addEventListener("pointermove", point);
  canvas.addEventListener("pointerdown", point);
  canvas.addEventListener("pointerleave", () => part && read(highest()));
}

function legend() {
  range = page.heat[byId("range").value];
  const strip = byId("bar").firstElementChild.getContext("2d"), pixels = strip.createImageData(256, 1);
  for (let k = 0; k < 256; k++) pixels.data.set([...colours.subarray(3 * k, 3 * k + 3), 255], 4 * k);
  strip.putImageData(pixels, 0, 0);
  const [low, middle, high] = byId("ends").children;
  low.textContent = `${range[0] > 0 ? "≤ " : ""}${number(range[0])}`;
  middle.textContent = page.level ? `threshold ${number(page.level)}` : "";
  high.textContent = `≥ ${number(range[1])}`;
  const place = page.level ? (page.level - range[0]) / (range[1] - range[0]) : -1;
  byId("tick").hidden = place < 0 || place > 1;
  byId("tick").style.left = `${100 * place}%`;
}
if (!page.level) byId("range").closest("label").hidden = true;  // then both are the same

// ---- the cloud: parallel rays, the nearest point of each pixel

const cloud = (() => {
  const canvas = byId("cloud"), side = canvas.width, brush = canvas.getContext("2d");
  const start = () => times(turnX(-0.45), turnY(0.35));
  let turn = null, zoom = 1, points = null, tones = {}, waiting = false;

  function turnX(a) { const c = Math.cos(a), s = Math.sin(a); return [1, 0, 0, 0, c, -s, 0, s, c]; }
  function turnY(a) { const c = Math.cos(a), s = Math.sin(a); return [c, 0, s, 0, 1, 0, -s, 0, c]; }
  function times(a, b) {
    return a.map((_, k) => [0, 1, 2].reduce((sum, m) => sum + a[3 * Math.floor(k / 3) + m] * b[3 * m + k % 3], 0));
  }

  function take(part) {
    turn = turn || start();
    points = part.points;
    const layer = new OffscreenCanvas(part.side, part.side), reader = layer.getContext("2d");
    reader.drawImage(part.image, 0, 0);
    const image = reader.getImageData(0, 0, part.side, part.side).data, count = part.pixels.length;
    tones = {image: new Uint8Array(3 * count), heat: new Uint8Array(3 * count)};
    part.pixels.forEach((k, n) => {
      const tone = Math.round(shade(part.heat[k]));
      tones.image.set(image.subarray(4 * k, 4 * k + 3), 3 * n);
      tones.heat.set(colours.subarray(3 * tone, 3 * tone + 3), 3 * n);
    });
    paint();
  }

  function paint() {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; paintNow(); });
  }

  function paintNow() {
    brush.clearRect(0, 0, side, side);
    const count = points ? points.length / 3 : 0;
    if (!count) return;
    let radius = 0;
    for (let k = 0; k < count; k++) radius = Math.max(radius, Math.hypot(...points.subarray(3 * k, 3 * k + 3)));
    const scale = 0.48 * side / (radius || 1) * zoom;
    const size = Math.min(9, Math.max(2, Math.ceil(scale * radius * 1.7 / Math.sqrt(count))));
    const frame = brush.createImageData(side, side), near = new Float32Array(side * side).fill(-Infinity);
    const tone = tones[byId("cloud-colour").value];
    for (let k = 0; k < count; k++) {
      const x = points[3 * k], y = points[3 * k + 1], z = points[3 * k + 2];
      const left = Math.round(side / 2 + scale * (turn[0] * x + turn[1] * y + turn[2] * z) - size / 2);
      const top = Math.round(side / 2 - scale * (turn[3] * x + turn[4] * y + turn[5] * z) - size / 2);
      const depth = turn[6] * x + turn[7] * y + turn[8] * z;
      for (let v = Math.max(0, top); v < Math.min(side, top + size); v++) {
        for (let u = Math.max(0, left); u < Math.min(side, left + size); u++) {
          const pixel = v * side + u;
          if (near[pixel] >= depth) continue;
          near[pixel] = depth;
          frame.data[4 * pixel] = tone[3 * k];
          frame.data[4 * pixel + 1] = tone[3 * k + 1];
          frame.data[4 * pixel + 2] = tone[3 * k + 2];
          frame.data[4 * pixel + 3] = 255;
        }
      }
    }
    brush.putImageData(frame, 0, 0);
  }

  const rotate = (dx, dy) => { turn = times(times(turnX(dy), turnY(dx)), turn || start()); paint(); };
  const magnify = (factor) => { zoom = Math.min(20, Math.max(0.3, zoom * factor)); paint(); };
  const fingers = new Map();
  const spread = () => { const [a, b] = fingers.values(); return Math.hypot(a.x - b.x, a.y - b.y); };
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
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    magnify(Math.exp(-event.deltaY / 500));
  }, {passive: false});
  canvas.addEventListener("keydown", (event) => {
    const turns = {ArrowLeft: [-0.15, 0], ArrowRight: [0.15, 0], ArrowUp: [0, -0.15], ArrowDown: [0, 0.15]}[event.key];
    const factor = {"+": 1.2, "=": 1.2, "-": 1 / 1.2}[event.key];
    if (turns) rotate(...turns);
    if (factor) magnify(factor);
    if (turns || factor) { event.preventDefault(); event.stopPropagation(); }
  });
  const reset = () => { turn = start(); zoom = 1; paint(); };
  return {take, paint, reset};
})();

// ---- what is clicked and typed

list.addEventListener("click", (event) => {
  const button = event.target.closest(".part button");
  if (button) show(button.parentElement);
});
byId("previous").addEventListener("click", () => step(-1));
byId("next").addEventListener("click", () => step(1));
byId("close").addEventListener("click", () => viewer.close());
viewer.addEventListener("click", (event) => { if (event.target === viewer) viewer.close(); });  // beside the box
viewer.addEventListener("close", () => current.querySelector("button").focus());
viewer.addEventListener("keydown", (event) => {
  const typing = event.target.matches("select, input"), plain = !event.ctrlKey && !event.altKey && !event.metaKey;
  const by = {ArrowLeft: -1, ArrowRight: 1, p: -1, n: 1}[event.key];
  if (by && plain && !typing) { event.preventDefault(); step(by); }
});
byId("opacity").addEventListener("input", () => part && drawHeat(byId("heat"), part, byId("opacity").value / 100, false));
byId("cloud-colour").addEventListener("change", cloud.paint);
byId("reset").addEventListener("click", cloud.reset);
byId("range").addEventListener("change", () => { legend(); if (part) draw(); near.forEach(drawThumbnail); });

legend();
arrange();
})();
