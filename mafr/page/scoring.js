"use strict";
// The steps of mafr.scoring and mafr.figures.view in the browser: from residuals of cells to maps, scores and masks.
// Maps are rows of S x S pixels; all that lies outside the box of the pixels with a 3D point and the reach of the blur
// is zero, and is not computed.
const scoring = (() => {
  const BOXES = [5, 5, 5, 5, 5, 7, 7, 7]; // of the released code; their variances add up to 22 pixels squared

  // The least box that holds all pixels of a mask, as rows and columns [from, to).
  function boxOf(mask, side) {
    let top = side,
      bottom = 0,
      left = side,
      right = 0;
    for (let v = 0, k = 0; v < side; v++) {
      for (let u = 0; u < side; u++, k++) {
        if (!mask[k]) continue;
        if (v < top) top = v;
        if (v >= bottom) bottom = v + 1;
        if (u < left) left = u;
        if (u >= right) right = u + 1;
      }
    }
    return top < bottom ? {top, bottom, left, right} : {top: 0, bottom: 0, left: 0, right: 0};
  }

  function widened(box, by, side) {
    return {
      top: Math.max(0, box.top - by),
      bottom: Math.min(side, box.bottom + by),
      left: Math.max(0, box.left - by),
      right: Math.min(side, box.right + by),
    };
  }

  // Places of pixels among cells, as torch's bilinear interpolation without aligned corners.
  function places(side, grid) {
    const low = new Int32Array(side),
      high = new Int32Array(side),
      share = new Float64Array(side);
    for (let k = 0; k < side; k++) {
      const at = Math.max(0, ((k + 0.5) * grid) / side - 0.5);
      low[k] = Math.floor(at);
      high[k] = Math.min(low[k] + 1, grid - 1);
      share[k] = at - low[k];
    }
    return {low, high, share};
  }

  // Cells (g x g) to pixels (S x S), bilinear over the valid cells alone, zero outside the mask.
  function upsample(cells, valid, grid, mask, side, box = boxOf(mask, side)) {
    const pixels = new Float32Array(side * side);
    if (grid === side) {
      for (let k = 0; k < pixels.length; k++) if (mask[k] && valid[k]) pixels[k] = cells[k];
      return pixels;
    }
    const {low, high, share} = places(side, grid);
    for (let v = box.top; v < box.bottom; v++) {
      const above = grid * low[v],
        below = grid * high[v],
        down = share[v];
      for (let u = box.left, k = v * side + u; u < box.right; u++, k++) {
        if (!mask[k]) continue;
        const right = share[u];
        let total = 0,
          weight = 0;
        const add = (cell, part) => {
          if (valid[cell]) {
            total += part * cells[cell];
            weight += part;
          }
        };
        add(above + low[u], (1 - down) * (1 - right));
        add(above + high[u], (1 - down) * right);
        add(below + low[u], down * (1 - right));
        add(below + high[u], down * right);
        if (weight > 0) pixels[k] = total / Math.max(weight, 1e-6);
      }
    }
    return pixels;
  }

  const fusions = {
    product: (a, b) => a * b,
    sum: (a, b) => a + b,
    max: Math.max,
    rgb: (a) => a,
    xyz: (_, b) => b,
  };

  function fuse(rgb, xyz, how) {
    const join = fusions[how],
      fused = new Float32Array(rgb.length);
    for (let k = 0; k < fused.length; k++) fused[k] = join(rgb[k], xyz[k]);
    return fused;
  }

  function gaussian(sigma) {
    const reach = Math.max(1, Math.ceil(4 * sigma)),
      kernel = new Float64Array(2 * reach + 1);
    let total = 0;
    for (let k = -reach; k <= reach; k++) total += kernel[k + reach] = Math.exp(-0.5 * (k / sigma) ** 2);
    return kernel.map((value) => value / total);
  }

  // One pass along rows (step 1) or columns (step S) inside a box; zeros beyond the image.
  function pass(from, kernel, side, box, along) {
    const to = new Float32Array(from.length),
      reach = (kernel.length - 1) / 2;
    const step = along === "row" ? 1 : side;
    for (let v = box.top; v < box.bottom; v++) {
      for (let u = box.left; u < box.right; u++) {
        const k = v * side + u,
          place = along === "row" ? u : v;
        const first = Math.max(-reach, -place),
          last = Math.min(reach, side - 1 - place);
        let sum = 0;
        for (let n = first; n <= last; n++) sum += kernel[n + reach] * from[k + n * step];
        to[k] = sum;
      }
    }
    return to;
  }

  const reachOf = (how, sigma) => (how === "gaussian" ? Math.max(1, Math.ceil(4 * sigma)) : how === "box" ? 19 : 0);

  // how: "gaussian", "box", or null for none; box: of what is not zero.
  function smooth(map, how, sigma, side, box) {
    if (!how) return map;
    const kernels = how === "gaussian" ? [gaussian(sigma)] : BOXES.map((n) => new Float64Array(n).fill(1 / n));
    const wide = widened(box, reachOf(how, sigma), side);
    let blurred = map;
    for (const kernel of kernels) blurred = pass(blurred, kernel, side, wide, "row");
    for (const kernel of kernels) blurred = pass(blurred, kernel, side, wide, "column");
    return blurred;
  }

  // The fused and blurred map of a sample with residual maps at pixels.
  function finalMap(rgb, xyz, settings, side, box) {
    return smooth(fuse(rgb, xyz, settings.fusion), settings.blur, settings.sigma, side, box);
  }

  // how: "max", or "max-over-root-mean" of the released code.
  function imageScore(map, how) {
    let peak = 0,
      sum = 0,
      count = 0;
    for (const value of map) {
      if (value > peak) peak = value;
      if (value !== 0) {
        sum += value;
        count++;
      }
    }
    return how === "max" || !(sum > 0) ? peak : peak / Math.sqrt(sum / count);
  }

  // The quantile of sorted values, between two of them by proportion, as numpy does.
  function quantile(sorted, share) {
    if (!sorted.length) return NaN;
    const at = share * (sorted.length - 1),
      low = Math.floor(at),
      high = Math.min(low + 1, sorted.length - 1);
    return sorted[low] + (at - low) * (sorted[high] - sorted[low]);
  }

  // The values of maps where their masks are set, sorted.
  function inside(maps, masks) {
    let count = 0;
    masks.forEach((mask) => {
      for (const one of mask) count += one;
    });
    const values = new Float32Array(count);
    let n = 0;
    maps.forEach((map, which) => {
      const mask = masks[which];
      for (let k = 0; k < map.length; k++) if (mask[k]) values[n++] = map[k];
    });
    return values.sort();
  }

  // Labels of the 8-connected regions of a mask, from 1, and their number.
  function regions(mask, side) {
    const labels = new Int32Array(mask.length),
      waiting = [];
    let count = 0;
    for (let start = 0; start < mask.length; start++) {
      if (!mask[start] || labels[start]) continue;
      labels[start] = ++count;
      waiting.push(start);
      while (waiting.length) {
        const k = waiting.pop(),
          v = Math.floor(k / side),
          u = k % side;
        for (let y = Math.max(0, v - 1); y <= Math.min(side - 1, v + 1); y++) {
          for (let x = Math.max(0, u - 1); x <= Math.min(side - 1, u + 1); x++) {
            const other = y * side + x;
            if (mask[other] && !labels[other]) {
              labels[other] = count;
              waiting.push(other);
            }
          }
        }
      }
    }
    return {labels, count};
  }

  // What a mask above a threshold says: share of false positives; with a defect also IoU and region overlap.
  function agreement(map, threshold, truth, mask, side) {
    let normal = 0,
      alarms = 0,
      hit = 0,
      either = 0;
    for (let k = 0; k < map.length; k++) {
      const found = map[k] > threshold,
        real = truth ? truth[k] : 0;
      if (mask[k] && !real) {
        normal++;
        if (found) alarms++;
      }
      if (found && real) hit++;
      if (found || real) either++;
    }
    const said = {falsePositives: alarms / Math.max(normal, 1), iou: null, overlap: null};
    if (!truth || !truth.some(Boolean)) return said;
    const {labels, count} = regions(truth, side),
      covered = new Float64Array(count),
      size = new Float64Array(count);
    labels.forEach((label, k) => {
      if (label) {
        size[label - 1]++;
        if (map[k] > threshold) covered[label - 1]++;
      }
    });
    said.iou = hit / either;
    said.overlap = covered.reduce((sum, part, n) => sum + part / size[n], 0) / count;
    return said;
  }

  return {boxOf, upsample, finalMap, imageScore, quantile, inside, agreement, fusions: Object.keys(fusions)};
})();
