"use strict";
(() => {
const byId = (id) => document.getElementById(id);
const page = JSON.parse(byId("settings").textContent);
const list = byId("parts"), items = [...list.querySelectorAll(".part")];
const number = (value) => String(Number(value.toPrecision(4)));

// ---- a part's data: see encode.py

const colours = decode.bytesOf(page.colours);

async function unpack(id) {
  const value = JSON.parse(byId("part-" + id).textContent), side = value.side, size = side * side;
  const [packed, image] = await Promise.all([decode.Packed.of(value.bytes), decode.picture(value.image)]);
  const valid = packed.bits(size), shown = packed.bits(size), heat = packed.levels(side, value.heat);
  const {count, lattice: [step, slant]} = value.cloud, points = packed.points(value.cloud), pixels = new Uint32Array(count);
  for (let v = 0, k = 0, n = 0; v < side; v++) {
    for (let u = 0; u < side; u++, k++) if (valid[k] && (v + slant * u) % step === 0) pixels[n++] = k;
  }
  return {side, image, valid, shown, heat, points, pixels};
}

const kept = new Map();  // the last few parts
function load(id) {
  if (!kept.has(id)) kept.set(id, unpack(id));
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
  const part = await unpack(item.dataset.number).catch(() => null);
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
  drawCloud();
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

// ---- the cloud, see cloud.js

const solid = makeCloud(byId("cloud"));

function drawCloud() {
  if (!part) return;
  const tones = new Uint8Array(part.points.length);
  if (byId("cloud-colour").value === "image") {
    const layer = new OffscreenCanvas(part.side, part.side), reader = layer.getContext("2d");
    reader.drawImage(part.image, 0, 0);
    const image = reader.getImageData(0, 0, part.side, part.side).data;
    part.pixels.forEach((k, n) => tones.set(image.subarray(4 * k, 4 * k + 3), 3 * n));
  } else {
    part.pixels.forEach((k, n) => {
      const tone = Math.round(shade(part.heat[k]));
      tones.set(colours.subarray(3 * tone, 3 * tone + 3), 3 * n);
    });
  }
  solid.take(part.points, tones);
}

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
byId("cloud-colour").addEventListener("change", drawCloud);
byId("reset").addEventListener("click", solid.reset);
byId("range").addEventListener("change", () => { legend(); if (part) draw(); near.forEach(drawThumbnail); });

legend();
arrange();
})();
