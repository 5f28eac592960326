"use strict";
// The report of `mafr predict`: its parts as the explorer shows them; see encode.py for their data.
class Parts {
  constructor(page, items) {
    const entries = items.map(({dataset, classList}) => ({...dataset, classList}));
    Object.assign(this, {page, title: document.title, side: 0, noun: "parts", unpacked: new Map()});
    this.samples = entries
      .filter((one) => !one.classList.contains("error"))
      .sort((a, b) => a.number - b.number) // the order of scanning
      .map(({name, number, score, classList}) => {
        const label = Number(classList.contains("bad"));
        return {id: name, number, score: Number(score), label, defect: label ? "✕ not OK" : "✓ OK"};
      });
    this.errors = entries
      .filter((one) => one.classList.contains("error"))
      .map(({name, reason}) => ({id: name, reason}));
    const worst = this.samples.reduce((a, b) => (a && a.score >= b.score ? a : b), null);
    this.data = {stamp: "", warn: false, variants: {}, methods: [], start: worst?.id};
    this.scales = page.level
      ? [
          ["threshold", "around the threshold"],
          ["all", "up to the highest of all parts"],
        ]
      : [];
    this.truths = [["alarm", "above the threshold"]];
    this.legend = [
      "blue OK, orange not OK",
      page.validation.length ? "grey ticks: validation parts" : "a click on a bar lists its parts",
    ];
    this.marks = {threshold: page.threshold ?? NaN, validation: page.validation, line: ["not OK", "OK"]};
  }

  // The last few parts that were asked for.
  sample(k) {
    if (!this.unpacked.has(k)) this.unpacked.set(k, this.unpack(this.samples[k]));
    if (this.unpacked.size > 6) this.unpacked.delete(this.unpacked.keys().next().value);
    return this.unpacked.get(k);
  }

  async unpack(meta) {
    const value = JSON.parse(document.getElementById(`part-${meta.number}`).textContent),
      {side} = value;
    const [packed, image] = await Promise.all([decode.Packed.of(value.bytes), decode.picture(value.image)]);
    const solid = packed.bits(side * side),
      mask = packed.bits(side * side),
      heat = packed.levels(side, value.heat),
      points = packed.points(value.cloud);
    this.side = side; // the same for all: it is the method's
    const box = scoring.boxOf(mask, side);
    return {meta, image, solid, mask, heat, points, pixels: decode.lattice(solid, side, value.cloud.lattice), box};
  }

  async image() {}

  settings() {
    return {};
  }

  map(sample) {
    return sample.heat;
  }

  async analyse() {
    return (this.found ??= {scores: this.samples.map((one) => one.score)});
  }

  range(_, {scale}) {
    return this.page.heat[scale ?? "all"];
  }

  threshold() {
    return this.page.level ?? Infinity;
  }

  kinds() {
    const count = (label) => this.samples.filter((one) => one.label === label).length,
      all = this.samples.length + this.errors.length;
    return [
      ["all", `all (${all})`],
      ["bad", `not OK (${count(1)})`],
      ["fine", `OK (${count(0)})`],
      ...(this.errors.length ? [["error", `not scored (${this.errors.length})`]] : []),
    ];
  }

  isOf({label}, kind) {
    return kind === "all" || kind === (label ? "bad" : "fine");
  }

  unread(kind) {
    return ["all", "error"].includes(kind) ? this.errors : [];
  }

  sorts() {
    return [
      ["high", "score, worst first"],
      ["low", "score, best first"],
      ...(this.page.threshold === null ? [] : [["near", "nearest to the threshold"]]),
      ["name", "name"],
      ["time", "order of scanning"],
    ];
  }

  told() {
    return "";
  }

  tip(scores, k) {
    const {threshold} = this.page,
      share = threshold > 0 ? `, ${(scores[k] / threshold).toFixed(2)} × threshold` : "";
    return `score ${list.number(scores[k])}${share}`;
  }

  say({analysis, map, k, sample}) {
    let best = -1;
    map.forEach((value, n) => {
      if (sample.mask[n] && (best < 0 || value > map[best])) best = n;
    });
    const place = best < 0 ? "" : ` at row ${Math.floor(best / this.side)}, column ${best % this.side}`;
    const heat = best < 0 ? "" : ` Highest heat ${list.number(map[best])}${place}.`;
    return `${sample.meta.defect}: ${this.tip(analysis.scores, k)}.${heat}`;
  }

  panels(now, state, colours) {
    const {map, range, threshold, sample} = now,
      {level} = this.page;
    const unit = (k) => (level ? ` = ${(map[k] / level).toFixed(2)} × threshold` : "");
    return [
      {name: "image", layers: [[sample.image, 1, true]]},
      {
        name: "heat over the image",
        map: panels.heat(map, sample.mask, this.side, range, colours, true),
        cover: () => panels.heat(map, sample.mask, this.side, range, colours),
        range,
        threshold,
      },
      {
        name: "heat",
        layers: [[panels.heat(map, sample.mask, this.side, range, colours), 1, false]],
        range,
        threshold,
        value: (k) => map[k],
        unit,
      },
      ...(level
        ? [
            {
              name: "mask above the threshold",
              found: panels.found(map, threshold, null, sample.mask, this.side),
            },
          ]
        : []),
      {id: "cloud", name: sample.pixels.length ? "cloud" : "no 3D points", kind: "cloud"},
      {name: "scores", kind: "scores"},
    ];
  }
}

(() => {
  const page = JSON.parse(document.getElementById("settings").textContent),
    entries = document.getElementById("parts");
  const parts = new Parts(page, [...entries.children]);
  entries.hidden = true; // the explorer's list takes its place
  const home = {...address.kept(), sheet: parts.samples.length !== 1 && !location.hash};
  const explorer = mountExplorer(
    document,
    {categories: {report: {title: parts.title, categories: ["parts"]}}, colours: page.colours},
    async () => parts,
    home,
  );
  addEventListener("hashchange", () => explorer.open(home.read()));
})();
