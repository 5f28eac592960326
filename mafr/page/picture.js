"use strict";
// The panels as one picture for a paper or a report: each of one size and on white, with its colour bar, and below the
// name what it shows, by which settings, of which data.
const drawPicture = (now, {port, opacity, overlay, outline, colours, cloud, settings}) => {
  const side = 360,
    gap = 14,
    caption = 20,
    bar = 34,
    shown = now.panels.filter((panel) => panel.kind !== "scores"),
    columns = Math.min(4, shown.length);
  const rows = Math.ceil(shown.length / columns),
    sheet = document.createElement("canvas"),
    brush = sheet.getContext("2d");
  sheet.width = columns * (side + gap) + gap;
  const lines = [
    [17, `${now.key.title}, ${list.named(now.sample.meta.id)}`],
    ...wrapped(now.analysis ? now.key.say(now) : "", 14),
    ...wrapped([settings, now.key.data.stamp].filter(Boolean).join(" · "), 14),
  ];
  const top = gap + 22 * lines.length + 4;
  sheet.height = top + rows * (caption + side + bar);
  brush.fillStyle = "#fff";
  brush.fillRect(0, 0, sheet.width, sheet.height);
  lines.forEach(([size, text], n) => write(text, gap, gap + 14 + 22 * n, size));
  shown.forEach((panel, n) => {
    const x = gap + (n % columns) * (side + gap),
      y = top + Math.floor(n / columns) * (caption + side + bar);
    write(`${panel.name}${panel.note ? `: ${panel.note}` : ""}`, x, y + 14, 14, side);
    if (panel.kind === "cloud") {
      brush.fillStyle = "#e5e5e5";
      brush.fillRect(x, y + caption, side, side);
      brush.drawImage(cloud, x, y + caption, side, side);
      return;
    }
    const square = new OffscreenCanvas(side, side);
    panels.show(square, panel, now, {port, opacity, overlay, outline, cursor: null, none: "#e5e5e5", density: 1});
    brush.drawImage(square, x, y + caption);
    if (panel.range) drawBar(panel, x, y + caption + side + 3);
    if (panel.found) key(now.key.truths ?? panels.TRUTHS, x, y + caption + side + 18);
  });
  return sheet;

  function write(text, x, y, size, most) {
    brush.fillStyle = "#1a1a1a";
    brush.font = `${size}px sans-serif`;
    brush.fillText(text, x, y, most);
  }

  function wrapped(text, size) {
    brush.font = `${size}px sans-serif`;
    const rows = [];
    for (const word of text.split(" ")) {
      const longer = rows.length ? `${rows.at(-1)} ${word}` : word;
      if (rows.length && brush.measureText(longer).width <= sheet.width - 2 * gap) rows[rows.length - 1] = longer;
      else rows.push(word);
    }
    return rows.filter(Boolean).map((row) => [size, row]);
  }

  function drawBar({range: [low, high], threshold}, x, y) {
    for (let k = 0; k < side; k++) {
      const tone = 3 * Math.round((255 * k) / (side - 1));
      brush.fillStyle = `rgb(${colours.subarray(tone, tone + 3).join()})`;
      brush.fillRect(x + k, y, 1, 8);
    }
    write(`≤ ${list.number(low)}`, x, y + 22, 12);
    brush.textAlign = "right";
    write(`≥ ${list.number(high)}`, x + side, y + 22, 12);
    const place = (threshold - low) / (high - low);
    if (place >= 0 && place <= 1) {
      brush.fillRect(x + place * side - 1, y - 2, 3, 12);
      brush.textAlign = "center";
      if (place > 0.25 && place < 0.75) write(`threshold ${list.number(threshold)}`, x + place * side, y + 22, 12);
    }
    brush.textAlign = "left";
  }

  function key(parts, x, y) {
    for (const [kind, text] of parts) {
      brush.fillStyle = `rgb(${panels.SEEN[kind]})`;
      brush.fillRect(x, y - 9, 10, 10);
      write(text, x + 14, y, 12);
      x += brush.measureText(text).width + 30;
    }
  }
};
