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
    const {low, high, share} = places(side, grid),
      totals = new Float64Array(grid),
      weights = new Float64Array(grid);
    for (let v = box.top; v < box.bottom; v++) {
      const above = grid * low[v],
        below = grid * high[v],
        down = share[v];
      // Between two rows of cells first, then between two of these: each is cheaper than four cells at every pixel.
      for (let cell = 0; cell < grid; cell++) {
        const first = valid[above + cell] ? 1 - down : 0,
          second = valid[below + cell] ? down : 0;
        weights[cell] = first + second;
        totals[cell] = first * cells[above + cell] + second * cells[below + cell];
      }
      for (let u = box.left, k = v * side + u; u < box.right; u++, k++) {
        if (!mask[k]) continue;
        const left = low[u],
          right = high[u],
          part = share[u];
        const weight = (1 - part) * weights[left] + part * weights[right];
        if (weight > 0) pixels[k] = ((1 - part) * totals[left] + part * totals[right]) / Math.max(weight, 1e-6);
      }
    }
    return pixels;
  }

  const joins = {
    product: (a, b) => a * b,
    sum: (a, b) => a + b,
    max: Math.max,
    rgb: (a) => a,
    xyz: (_, b) => b,
  };
  const fusions = Object.keys(joins);

  const padded = (count) => Math.ceil(count / 4) * 4; // `blurredDown` takes values by fours

  // The fused values of a box alone, in rows with padding.
  function fuse(rgb, xyz, how, side, box) {
    const join = joins[how],
      width = box.right - box.left,
      fused = new Float64Array((box.bottom - box.top) * padded(width));
    for (let v = box.top, n = 0; v < box.bottom; v++, n += padded(width)) {
      for (let u = 0, k = v * side + box.left; u < width; u++, k++) fused[n + u] = join(rgb[k], xyz[k]);
    }
    return fused;
  }

  function gaussian(sigma) {
    const reach = Math.max(1, Math.ceil(4 * sigma)),
      kernel = new Float64Array(2 * reach + 1);
    let total = 0;
    for (let k = -reach; k <= reach; k++) total += kernel[k + reach] = Math.exp(-0.5 * (k / sigma) ** 2);
    return kernel.map((value) => value / total);
  }

  // A blur along one axis with zeros beyond the image, as in mafr.scoring: the weights of all pixels (columns) for each
  // (rows; three of zeros follow, which blurredDown reads), and how far it reaches. The last one is kept.
  let lastBlur = {};
  function blurOf(how, sigma, side) {
    const key = [how, how === "gaussian" && sigma, side].join();
    if (lastBlur.key === key) return lastBlur;
    const kernels = how === "gaussian" ? [gaussian(sigma)] : BOXES.map((n) => new Float64Array(n).fill(1 / n));
    let matrix = new Float64Array(side * (side + 3)),
      reach = 0;
    for (let v = 0; v < side; v++) matrix[v * side + v] = 1;
    for (const kernel of kernels) {
      const before = matrix,
        half = (kernel.length - 1) / 2;
      matrix = new Float64Array(before.length);
      for (let v = 0; v < side; v++) {
        for (let w = Math.max(0, v - half); w <= Math.min(side - 1, v + half); w++) {
          const last = Math.min(side - 1, w + reach);
          for (let k = Math.max(0, w - reach); k <= last; k++) {
            matrix[v * side + k] += kernel[w - v + half] * before[w * side + k];
          }
        }
      }
      reach += half;
    }
    return (lastBlur = {key, matrix, reach});
  }

  // Blurs down the columns and transposes. values: rows [top, bottom) of the image, each of `width` with its padding;
  // the result: `width` rows of the places [first, last) along a column, with padding. Eight sums at a time share what
  // they read and stay in registers, which is much faster than one after the other.
  function blurredDown(values, width, [top, bottom], {matrix, reach}, side, [first, last]) {
    const length = padded(last - first),
      to = new Float64Array(width * length);
    for (let v = first; v < last; v += 4) {
      const low = Math.max(top, v - reach),
        high = Math.min(bottom, v + 4 + reach);
      for (let u = 0; u < width; u += 2) {
        let a0, a1, a2, a3, b0, b1, b2, b3;
        a0 = a1 = a2 = a3 = b0 = b1 = b2 = b3 = 0;
        for (let w = low, k = (low - top) * width + u, m = v * side + low; w < high; w++, k += width, m++) {
          const a = values[k],
            b = values[k + 1],
            m0 = matrix[m],
            m1 = matrix[m + side],
            m2 = matrix[m + 2 * side],
            m3 = matrix[m + 3 * side];
          a0 += m0 * a;
          a1 += m1 * a;
          a2 += m2 * a;
          a3 += m3 * a;
          b0 += m0 * b;
          b1 += m1 * b;
          b2 += m2 * b;
          b3 += m3 * b;
        }
        const n = u * length + v - first;
        to[n] = a0;
        to[n + 1] = a1;
        to[n + 2] = a2;
        to[n + 3] = a3;
        to[n + length] = b0;
        to[n + length + 1] = b1;
        to[n + length + 2] = b2;
        to[n + length + 3] = b3;
      }
    }
    return to;
  }

  // The fused and blurred map of a sample with residual maps at pixels; settings.blur: "gaussian", "box" or null.
  function finalMap(rgb, xyz, settings, side, box) {
    let values = fuse(rgb, xyz, settings.fusion, side, box),
      wide = box;
    if (settings.blur) {
      const blur = blurOf(settings.blur, settings.sigma, side);
      wide = widened(box, blur.reach, side);
      const rows = [wide.top, wide.bottom],
        columns = [wide.left, wide.right];
      values = blurredDown(values, padded(box.right - box.left), [box.top, box.bottom], blur, side, rows);
      values = blurredDown(values, padded(wide.bottom - wide.top), [box.left, box.right], blur, side, columns);
    }
    const map = new Float32Array(side * side),
      width = wide.right - wide.left;
    for (let v = wide.top, n = 0; v < wide.bottom; v++, n += padded(width)) {
      map.set(values.subarray(n, n + width), v * side + wide.left);
    }
    return map;
  }

  // how: "max", or "max-over-root-mean" of the released code.
  function imageScore(map, how) {
    let peak = 0,
      sum = 0,
      count = 0;
    for (let k = 0; k < map.length; k++) {
      const value = map[k];
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

  // The values of a map where a mask is set.
  function within(map, mask) {
    let count = 0;
    for (let k = 0; k < mask.length; k++) count += mask[k];
    const values = new Float32Array(count);
    for (let k = 0, n = 0; n < count; k++) if (mask[k]) values[n++] = map[k];
    return values;
  }

  // All values of some arrays, sorted by their bits, 11 at a time: several times as fast as the browser's own sort.
  function sorted(parts) {
    const values = new Float32Array(parts.reduce((sum, part) => sum + part.length, 0));
    let n = 0;
    for (const part of parts) {
      values.set(part, n);
      n += part.length;
    }
    let from = new Int32Array(values.buffer),
      to = new Int32Array(n);
    const starts = [0, 11, 22].map(() => new Int32Array(2048));
    for (let k = 0; k < n; k++) {
      const bits = from[k],
        key = bits ^ ((bits >> 31) | 0x80000000); // unsigned, in the order of the numbers, negative ones too
      from[k] = key;
      starts[0][key & 2047]++;
      starts[1][(key >>> 11) & 2047]++;
      starts[2][key >>> 22]++;
    }
    starts.forEach((counts, digit) => {
      for (let k = 0, sum = 0; k < 2048; k++) {
        const count = counts[k];
        counts[k] = sum;
        sum += count;
      }
      for (let k = 0; k < n; k++) to[counts[(from[k] >>> (11 * digit)) & 2047]++] = from[k];
      [from, to] = [to, from];
    });
    for (let k = 0; k < n; k++) from[k] ^= from[k] < 0 ? 0x80000000 : -1;
    return new Float32Array(from.buffer);
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

  return {boxOf, upsample, finalMap, imageScore, quantile, within, sorted, agreement};
})();
