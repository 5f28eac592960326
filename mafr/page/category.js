"use strict";
// The samples of a category: unpacked when asked for, their maps computed by the chosen settings.
const isStep = (rate) => Math.abs(20 * rate - Math.round(20 * rate)) < 1e-6; // of the slider
const pause = () => new Promise((done) => setTimeout(done));

class Category {
  constructor(data) {
    Object.assign(this, {data, side: data.side, grid: data.grid, samples: data.samples, unpacked: new Map()});
    this.analyses = new Map(); // the last few
    this.analysed = new Map(); // of compared methods
    this.ones = new Uint8Array((data.side / data.half) ** 2).fill(1);
  }

  // Everything of a sample that does not depend on settings.
  sample(k) {
    if (!this.unpacked.has(k)) this.unpacked.set(k, this.unpack(this.samples[k]));
    return this.unpacked.get(k);
  }

  // Unpacks what is not yet, between other work, until `wanted` says no: so that the next settings need not.
  async unpackAll(wanted) {
    for (let k = 0; k < this.samples.length && wanted(); k++) {
      await this.sample(k);
      await pause();
    }
  }

  async unpack(meta) {
    const {side, grid} = this,
      packed = await decode.Packed.of(meta.bytes);
    const mask = packed.bits(side * side),
      truth = packed.bits(side * side),
      solid = packed.bits(side * side), // pixels with a 3D point; those of the mask are scored
      valid = packed.bits(grid * grid);
    const count = valid.reduce((sum, one) => sum + one, 0),
      residuals = {};
    for (const [variant, steps] of Object.entries(meta.residuals)) {
      residuals[variant] = steps.map((step) => {
        const values = packed.words(count, step),
          cells = new (grid === side ? Float32Array : Float64Array)(grid * grid);
        for (let k = 0, n = 0; k < cells.length; k++) if (valid[k]) cells[k] = values[n++];
        return cells;
      });
    }
    const maps = {};
    for (const [name, step] of Object.entries(meta.maps)) maps[name] = packed.levels(side / this.data.half, step);
    const points = packed.points(meta.cloud),
      pixels = decode.lattice(solid, this.side, meta.cloud.lattice);
    return {
      meta,
      mask,
      solid,
      truth,
      valid,
      residuals,
      maps,
      points,
      pixels,
      box: scoring.boxOf(mask, side),
      kept: {},
    };
  }

  async image(sample) {
    sample.image ??= await decode.picture(sample.meta.image);
    return sample.image;
  }

  // Both residual maps at pixels; kept for the variant asked for last.
  residuals(sample, variant) {
    if (sample.kept.variant !== variant) {
      const [rgb, xyz] = sample.residuals[variant].map((cells) =>
        scoring.upsample(cells, sample.valid, this.grid, sample.mask, this.side, sample.box),
      );
      sample.kept = {variant, rgb, xyz};
    }
    return sample.kept;
  }

  map(sample, settings) {
    const {rgb, xyz} = this.residuals(sample, settings.variant);
    return scoring.finalMap(rgb, xyz, settings, this.side, sample.box);
  }

  // A compared method's final map, enlarged.
  methodMap(sample, name) {
    return scoring.upsample(
      sample.maps[name],
      this.ones,
      this.side / this.data.half,
      sample.mask,
      this.side,
      sample.box,
    );
  }

  // Scores and values of all samples by some settings; kept. Works in short pieces, and ends early, with null, where
  // `wanted` says no. rate: of the threshold, where those of the run's own settings, which came with the data, will do.
  async analyse(settings, wanted, rate = NaN) {
    const {known, ...own} = this.data.variants[settings.variant];
    const same = ["fusion", "blur", "sigma"].every((name) => settings[name] === own[name]);
    if (same && known && rate.toFixed(2) in known.thresholds && isStep(rate)) return known;
    const key = JSON.stringify([settings.variant, settings.fusion, settings.blur, settings.sigma]);
    let made = this.analyses.get(key);
    if (!made) {
      const {score} = own;
      const of = (sample) => {
        const map = this.map(sample, settings);
        return {map, score: scoring.imageScore(map, score)};
      };
      made = await this.gather(of, wanted);
      if (!made) return null;
    }
    decode.keep(this.analyses, key, made, 4);
    return made;
  }

  // The same of a compared method, with its stored scores.
  async analyseMethod(method, wanted) {
    if (!this.analysed.has(method.name)) {
      const made = await this.gather((sample) => ({map: this.methodMap(sample, method.name)}), wanted);
      if (!made) return null;
      this.analysed.set(method.name, {...made, scores: method.scores, range: method.range});
    }
    return this.analysed.get(method.name);
  }

  async gather(of, wanted) {
    const scores = [],
      good = [],
      all = [];
    let since = performance.now();
    for (let k = 0; k < this.samples.length; k++) {
      const sample = await this.sample(k),
        {map, score} = of(sample);
      scores.push(score);
      const values = scoring.within(map, sample.mask);
      all.push(values);
      if (!this.samples[k].label) good.push(values);
      sample.kept = {}; // gives memory back; what is shown computes its own again
      if (performance.now() - since > 25) {
        await pause();
        if (!wanted()) return null;
        since = performance.now();
      }
    }
    const ofGood = scoring.sorted(good),
      ofAll = scoring.sorted(all);
    return {scores, ofGood, range: [scoring.quantile(ofGood, 0.5), scoring.quantile(ofAll, 0.999)]};
  }

  // The share of the other good samples with a lower score.
  aboveGood(scores, k) {
    const others = scores.filter((_, n) => n !== k && !this.samples[n].label);
    return others.length ? others.filter((score) => score < scores[k]).length / others.length : NaN;
  }

  // How wrong a sample's rank is: the share of the other kind that it should be above or below and is not.
  hardness(scores, k) {
    const {label} = this.samples[k],
      others = scores.filter((_, n) => this.samples[n].label !== label);
    const wrong = others.filter((score) => (label ? score >= scores[k] : score <= scores[k]));
    return others.length ? wrong.length / others.length : 0;
  }
}
