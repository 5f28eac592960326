"use strict";
// Panels that show the same square of a sample, with a cursor on all of them: images, maps and masks.
// Each is redrawn whole; the square can be moved by dragging and made smaller by the wheel.
const panels = (() => {
  const CYAN = "#00e5ff",
    SEEN = {hit: [0, 158, 115], missed: [213, 94, 0], alarm: [204, 121, 167]};
  const TRUTHS = [
    ["hit", "hit"],
    ["missed", "missed"],
    ["alarm", "false alarm"],
  ];

  function layerOf(side, colour) {
    const layer = new OffscreenCanvas(side, side),
      brush = layer.getContext("2d");
    const pixels = brush.createImageData(side, side);
    for (let k = 0; k < side * side; k++) colour(k, pixels.data, 4 * k);
    brush.putImageData(pixels, 0, 0);
    return layer;
  }

  // A map in colours between two values; clear where the mask is not set. fading: clear where it is low too, so that an
  // image below is not darkened.
  function heat(map, mask, side, [low, high], colours, fading = false) {
    const width = high > low ? high - low : 1e-12;
    return layerOf(side, (k, data, at) => {
      if (!mask[k]) return;
      const tone = 3 * Math.round(255 * Math.min(1, Math.max(0, (map[k] - low) / width)));
      data[at] = colours[tone];
      data[at + 1] = colours[tone + 1];
      data[at + 2] = colours[tone + 2];
      data[at + 3] = fading ? Math.min(255, (2 * tone) / 3) : 255;
    });
  }

  // What a mask above a threshold found: hits, misses and false alarms.
  function found(map, threshold, truth, mask, side) {
    return layerOf(side, (k, data, at) => {
      const above = map[k] > threshold,
        real = truth && truth[k];
      const kind = above && real ? SEEN.hit : real ? SEEN.missed : above && mask[k] ? SEEN.alarm : null;
      if (!kind) return;
      data.set(kind, at);
      data[at + 3] = 255;
    });
  }

  // The border of a mask as a path in pixels.
  function border(mask, side) {
    const path = new Path2D();
    const set = (v, u) => v >= 0 && u >= 0 && v < side && u < side && mask[v * side + u];
    for (let v = 0; v < side; v++) {
      for (let u = 0; u < side; u++) {
        if (!set(v, u)) continue;
        if (!set(v - 1, u)) {
          path.moveTo(u, v);
          path.lineTo(u + 1, v);
        }
        if (!set(v + 1, u)) {
          path.moveTo(u, v + 1);
          path.lineTo(u + 1, v + 1);
        }
        if (!set(v, u - 1)) {
          path.moveTo(u, v);
          path.lineTo(u, v + 1);
        }
        if (!set(v, u + 1)) {
          path.moveTo(u + 1, v);
          path.lineTo(u + 1, v + 1);
        }
      }
    }
    return path;
  }

  // A panel of `now`, see samples.js: the image below its map. Up to an opacity of 0.8 the map is clear where it is low;
  // from there on it covers the image more and more.
  function show(canvas, panel, now, {port, opacity, overlay, outline, cursor, none, density = devicePixelRatio}) {
    const layers = [...(panel.layers ?? [[now.sample.image, 1, true]])];
    if (overlay && panel.found) layers.push([panel.found, 0.75, false]);
    if (overlay && panel.map) {
      layers.push([panel.map, Math.min(1, opacity / 0.8), false]);
      if (opacity > 0.8) layers.push([(panel.whole ??= panel.cover()), (opacity - 0.8) / 0.2, false]);
    }
    const paths = outline && now.edge ? [[now.edge, CYAN, 1.2]] : [];
    if (panel.border && overlay) paths.push([panel.border, "#fff", 1]);
    draw(canvas, port, layers, paths, cursor, none, density);
  }

  // A sample in the list: its image and map, and the outline of its defect.
  function small(canvas, sample, side, map, {opacity, overlay, outline, none}) {
    canvas.width = canvas.height = Math.round(canvas.clientWidth * devicePixelRatio) || 96;
    const edge = outline && sample.meta.label && sample.truth ? border(sample.truth, side) : null;
    show(
      canvas,
      {map, cover: () => map},
      {sample, edge},
      {port: squareOf(sample.box, side), opacity, overlay, outline, none},
    );
  }

  // port: the square that is shown, {x, y, width} in pixels of the sample; layers: [what, opacity, smoothed?].
  function draw(canvas, port, layers, paths, cursor, background, density = devicePixelRatio) {
    const size = canvas.width,
      brush = canvas.getContext("2d"),
      scale = size / port.width;
    brush.setTransform(1, 0, 0, 1, 0, 0);
    brush.globalAlpha = 1;
    brush.fillStyle = background;
    brush.fillRect(0, 0, size, size);
    brush.setTransform(scale, 0, 0, scale, -port.x * scale, -port.y * scale);
    for (const [layer, opacity, smoothed] of layers) {
      brush.globalAlpha = opacity;
      brush.imageSmoothingEnabled = smoothed;
      brush.drawImage(layer, 0, 0);
    }
    brush.globalAlpha = 1;
    for (const [path, colour, width] of paths) {
      brush.strokeStyle = colour;
      brush.lineWidth = (width * density) / scale;
      brush.stroke(path);
    }
    if (!cursor) return;
    brush.setTransform(1, 0, 0, 1, 0, 0);
    const x = (cursor.u + 0.5 - port.x) * scale,
      y = (cursor.v + 0.5 - port.y) * scale;
    const cross = new Path2D();
    for (const [a, b] of [
      [6, 14],
      [-6, -14],
    ]) {
      cross.moveTo(x + a, y);
      cross.lineTo(x + b, y);
      cross.moveTo(x, y + a);
      cross.lineTo(x, y + b);
    }
    brush.lineWidth = 3;
    brush.strokeStyle = "#000";
    brush.stroke(cross);
    brush.lineWidth = 1.4;
    brush.strokeStyle = "#fff";
    brush.stroke(cross);
  }

  // The least square around a box with a margin, inside the image.
  function squareOf(box, side, margin = 8) {
    const height = box.bottom - box.top,
      width = box.right - box.left;
    if (!height || !width) return {x: 0, y: 0, width: side};
    const full = Math.min(side, Math.max(height, width) + 2 * margin);
    const inside = (middle) => Math.min(side - full, Math.max(0, middle - full / 2));
    return {x: inside((box.left + box.right) / 2), y: inside((box.top + box.bottom) / 2), width: full};
  }

  // The square of some width that has a place {x, y} of the sample at these shares of its own width and height.
  function placed(place, share, width, side) {
    const wide = Math.min(side, Math.max(8, width)),
      inside = (value) => Math.min(side - wide, Math.max(0, value));
    return {x: inside(place.x - share.x * wide), y: inside(place.y - share.y * wide), width: wide};
  }

  function zoomed(port, factor, {u, v}, side) {
    const place = {x: u + 0.5, y: v + 0.5},
      share = {x: (place.x - port.x) / port.width, y: (place.y - port.y) / port.width};
    return placed(place, share, port.width * factor, side);
  }

  function moved(port, dx, dy, side) {
    const inside = (value) => Math.min(side - port.width, Math.max(0, value));
    return {...port, x: inside(port.x + dx), y: inside(port.y + dy)};
  }

  return {SEEN, TRUTHS, heat, show, small, found, border, squareOf, placed, zoomed, moved};
})();
