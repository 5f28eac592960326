"use strict";
// A category as the explorer shows it: its menus, its panels, and what is said of a sample.
class Samples extends Category {
  kinds() {
    const defects = [...new Set(this.samples.map((one) => one.defect))].filter((name) => name !== "good").sort();
    return [
      ["all", "all samples"],
      ["good", "good"],
      ["defective", "all defects"],
      ...defects.map((name) => [name, name]),
    ];
  }

  // Scans that have no score: none here.
  unread() {
    return [];
  }

  isOf({label, defect}, kind) {
    return kind === "all" || (kind === "good" ? !label : kind === "defective" ? label : defect === kind);
  }

  sorts() {
    return [
      ["hardest", "hardest first"],
      ["high", "score, highest first"],
      ["low", "score, lowest first"],
      ["name", "name"],
    ];
  }

  get title() {
    return this.data.category;
  }

  get noun() {
    return "samples";
  }

  get legend() {
    return ["blue good, orange defective", "a click on a bar lists its samples"];
  }

  // What lists and histograms show of thresholds; the one of scores is not known for test samples.
  get marks() {
    return {};
  }

  settings({variant, fusion, blur, sigma}) {
    return {variant, fusion, sigma, blur: blur === "none" ? null : blur};
  }

  // The settings in words.
  told({variant, fusion, blur, sigma, rate}, fusions) {
    return [
      `variant ${variant}`,
      fusions[fusion],
      `blur: ${blur === "gaussian" ? `Gaussian of ${list.number(sigma)} pixels` : blur}`,
      `${list.number(100 * 10 ** rate)} % of the good pixels above the threshold`,
    ].join(", ");
  }

  tip(scores, k) {
    const other = this.samples[k].label ? "good samples score higher" : "defective samples score lower";
    return `${(100 * this.hardness(scores, k)).toFixed(0)} % of the ${other}`;
  }

  place(scores, k) {
    const above = this.aboveGood(scores, k);
    return `score ${list.number(scores[k])}, above ${Math.round(100 * above)} % of the good`;
  }

  range(analysis) {
    return analysis.range;
  }

  threshold(analysis, {rate}) {
    return analysis.ofGood
      ? scoring.quantile(analysis.ofGood, 1 - 10 ** rate)
      : (analysis.thresholds[rate.toFixed(2)] ?? NaN);
  }

  say({analysis, map, threshold, truth, sample, k, larger}) {
    const {label, defect} = sample.meta,
      found = scoring.agreement(map, threshold, truth, sample.mask, this.side);
    const fit =
      found.iou === null ? "" : ` IoU ${found.iou.toFixed(3)}, region overlap ${found.overlap.toFixed(3)}.`;
    return (
      `${label ? `defective (${defect})` : "good"}; ${this.place(analysis.scores, k)}. ` +
      `Threshold ${list.number(threshold)}: ${(100 * found.falsePositives).toFixed(2)} % of its good pixels above.${fit}${larger ?? ""}`
    );
  }

  // Which map the maximum takes: one of them nearly everywhere, where their values are of other sizes.
  larger(rgb, xyz, mask) {
    let count = 0,
      all = 0;
    for (let k = 0; k < mask.length; k++) {
      all += mask[k];
      if (mask[k] && rgb[k] >= xyz[k]) count++;
    }
    return ` The maximum is Ψ2D at ${((100 * count) / Math.max(all, 1)).toFixed(1)} % of the pixels.`;
  }

  borderAbove(map, limit, {mask}) {
    return panels.border(
      map.map((value, k) => (mask[k] && value > limit ? 1 : 0)),
      this.side,
    );
  }

  // The panels of `now`: {name, layers | map | found | kind, range, threshold, value(pixel), note, border}.
  panels(now, state, colours, fusions) {
    const {analysis, map, range, threshold, truth, sample} = now,
      {rgb, xyz} = this.residuals(sample, state.variant),
      [ofRgb, ofXyz] = this.data.variants[state.variant].ranges;
    now.larger = state.fusion === "max" ? this.larger(rgb, xyz, sample.mask) : "";
    const layer = (values, limits, fading) => panels.heat(values, sample.mask, this.side, limits, colours, fading);
    // The two residual maps are drawn once for each sample, not again with each setting.
    if (this.drawn?.sample !== sample || this.drawn.variant !== state.variant)
      this.drawn = {sample, variant: state.variant, both: [layer(rgb, ofRgb), layer(xyz, ofXyz)]};
    const {both} = this.drawn;
    return [
      {name: "image", layers: [[sample.image, 1, true]], key: truth ? "cyan: the true defect" : "good: no defect"},
      {name: "Ψ2D", layers: [[both[0], 1, false]], range: ofRgb, value: (k) => rgb[k]},
      {name: "Ψ3D", layers: [[both[1], 1, false]], range: ofXyz, value: (k) => xyz[k]},
      {
        id: "psi",
        name: `Ψ: ${fusions[state.fusion]}`,
        map: layer(map, range, true),
        range,
        threshold,
        value: (k) => map[k],
        cover: () => layer(map, range, false),
        note: analysis ? `score ${list.number(analysis.scores[now.k])}` : "",
        told: analysis ? this.place(analysis.scores, now.k) : "",
        border: analysis ? this.borderAbove(map, threshold, sample) : null,
      },
      {name: "mask against truth", found: panels.found(map, threshold, truth, sample.mask, this.side)},
      {name: "cloud", kind: "cloud"},
      {name: "scores", kind: "scores"},
      ...now.others.map(({method, found, map: other, threshold: limit}) => ({
        name: method.title,
        map: layer(other, found.range, true),
        range: found.range,
        threshold: limit,
        value: (k) => other[k],
        cover: () => layer(other, found.range, false),
        note: `score ${list.number(found.scores[now.k])}`,
        told: this.place(found.scores, now.k),
        border: this.borderAbove(other, limit, sample),
      })),
    ];
  }
}
