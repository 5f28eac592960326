"use strict";
// The panels of the explorer: one figure for each of `now.panels`, the cloud, and the place of the histogram. Pointing,
// zooming and moving act on all of them.
const makeView = (colours, state, shown) => {
  const byId = (id) => document.getElementById(id),
    {make, number, named} = list;
  let now = null;

  const portNow = () => {
    if (shown.whole) return shown.port ?? {x: 0, y: 0, width: now.key.side};
    return shown.port ?? panels.squareOf(now.sample.box, now.key.side);
  };

  let built = "",
    cloud = null;
  function draw(given) {
    now = given;
    const names = now.panels.map((panel) => panel.name);
    const wanted = names.length + names.slice(5).join();
    if (built !== wanted) {
      built = wanted;
      const figures = now.panels.map((_, n) =>
        make(
          "figure",
          {"data-n": n},
          make("figcaption", {}, make("b"), make("span")),
          make("canvas", {role: "img"}),
          make("div"),
        ),
      );
      const solid = make("canvas", {role: "img", tabindex: 0, width: 448, height: 448, id: "cloud"});
      const menu = make(
        "select",
        {id: "tone", "aria-label": "colour of the cloud"},
        make("option", {value: "map", text: "Ψ"}),
        make("option", {value: "image", text: "image"}),
      );
      figures.splice(
        5,
        0,
        make(
          "figure",
          {},
          make("figcaption", {}, make("b", {text: "cloud"}), menu),
          solid,
          make("div", {class: "key", text: "drag to turn, wheel to zoom"}),
        ),
        make(
          "figure",
          {},
          make("figcaption", {}, make("b", {text: "scores"}), make("span", {text: "blue good, orange defective"})),
          document.createElementNS("http://www.w3.org/2000/svg", "svg"),
          make("div", {class: "key", text: "a click on a bar lists its samples"}),
        ),
      );
      byId("panels").replaceChildren(...figures);
      byId("panels").querySelector("svg").setAttribute("class", "histogram");
      cloud = makeCloud(solid);
      menu.addEventListener("change", drawCloud);
    }
    byId("panels")
      .querySelectorAll("figure[data-n]")
      .forEach((figure, n) => {
        const panel = now.panels[n],
          [caption, canvas, below] = figure.children;
        panel.canvas = canvas;
        caption.children[0].textContent = panel.name;
        caption.children[1].textContent = caption.children[1].title = panel.note ?? "";
        canvas.setAttribute("aria-label", `${panel.name} of ${now.sample.meta.id}. ${panel.note ?? ""}`);
        if (panel.key) {
          below.className = "key";
          below.replaceChildren(
            ...[
              ["hit", "hit"],
              ["missed", "missed"],
              ["alarm", "false alarm"],
            ].flatMap(([kind, text]) => {
              const square = make("i");
              square.style.background = `rgb(${panels.SEEN[kind]})`;
              return [square, text];
            }),
          );
        } else if (panel.range) scaleBar(below, panel);
        else {
          below.className = "key";
          below.textContent = now.truth ? "cyan: the true defect" : "good: no defect";
        }
      });
    drawCloud();
    paint();
  }

  function scaleBar(element, {range: [low, high], threshold}) {
    const strip = make("canvas", {width: 256, height: 1, "aria-hidden": "true"}),
      brush = strip.getContext("2d");
    const pixels = brush.createImageData(256, 1);
    for (let k = 0; k < 256; k++) pixels.data.set([...colours.subarray(3 * k, 3 * k + 3), 255], 4 * k);
    brush.putImageData(pixels, 0, 0);
    element.className = "scale";
    element.replaceChildren(
      strip,
      make("span", {text: `≤ ${number(low)}`}),
      make("span", {text: `≥ ${number(high)}`}),
    );
    const place = (threshold - low) / (high - low);
    if (!(place >= 0 && place <= 1)) return;
    const tick = make("i", {title: "threshold"}),
      text = make("em", {text: number(threshold)});
    tick.style.left = text.style.left = `${100 * place}%`;
    element.append(tick, ...(place > 0.25 && place < 0.75 ? [text] : []));
  }

  function drawCloud() {
    const tones = new Uint8Array(now.sample.points.length),
      count = now.sample.pixels.length;
    const onImage = byId("tone").value === "image",
      [low, high] = now.range;
    if (onImage) {
      const layer = new OffscreenCanvas(now.key.side, now.key.side),
        brush = layer.getContext("2d");
      brush.drawImage(now.sample.image, 0, 0);
      const {data} = brush.getImageData(0, 0, now.key.side, now.key.side);
      for (let n = 0; n < count; n++)
        tones.set(data.subarray(4 * now.sample.pixels[n], 4 * now.sample.pixels[n] + 3), 3 * n);
    } else {
      for (let n = 0; n < count; n++) {
        const tone =
          3 * Math.round(255 * Math.min(1, Math.max(0, (now.map[now.sample.pixels[n]] - low) / (high - low || 1))));
        tones.set(colours.subarray(tone, tone + 3), 3 * n);
      }
    }
    byId("cloud").setAttribute(
      "aria-label",
      `point cloud of ${now.sample.meta.id}, turned by dragging or arrow keys`,
    );
    cloud.take(now.sample.points, tones);
  }

  let asked = false;
  function paint() {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      paintNow();
    });
  }

  function paintNow() {
    const port = portNow(),
      none = getComputedStyle(document.documentElement).getPropertyValue("--none");
    for (const panel of now.panels) {
      const size = Math.round(panel.canvas.clientWidth * devicePixelRatio) || 224;
      if (panel.canvas.width !== size) panel.canvas.width = panel.canvas.height = size;
      const layers = panel.layers ?? [
        [now.sample.image, 1, true],
        ...(shown.overlay ? [[panel.found ?? panel.map, panel.found ? 0.75 : state.opacity, false]] : []),
      ];
      const paths = shown.outline && now.edge ? [[now.edge, panels.CYAN, 1.2]] : [];
      if (panel.border && shown.overlay) paths.push([panel.border, "#fff", 1]);
      panels.draw(panel.canvas, port, layers, paths, shown.cursor, none);
    }
  }

  // ---- pointing, zooming, moving: on all panels alike

  function pixelAt(event) {
    const box = event.target.getBoundingClientRect(),
      port = portNow(),
      last = now.key.side - 1;
    const at = (value, start, length) =>
      Math.min(last, Math.max(0, Math.floor(start + (port.width * value) / length)));
    return {u: at(event.clientX - box.left, port.x, box.width), v: at(event.clientY - box.top, port.y, box.height)};
  }
  const onPanel = (event) => event.target.matches?.("figure[data-n] canvas[role=img]");
  let held = null;
  byId("panels").addEventListener("pointerdown", (event) => {
    if (onPanel(event)) held = event;
  });
  addEventListener("pointerup", () => {
    held = null;
  });
  byId("panels").addEventListener("pointermove", (event) => {
    if (!now || !onPanel(event)) return;
    if (held) {
      const port = portNow(),
        scale = port.width / event.target.clientWidth;
      shown.port = panels.moved(
        port,
        (held.clientX - event.clientX) * scale,
        (held.clientY - event.clientY) * scale,
        now.key.side,
      );
      held = event;
    }
    shown.cursor = pixelAt(event);
    read();
    paint();
  });
  byId("panels").addEventListener("pointerleave", () => {
    shown.cursor = null;
    byId("reading").textContent = "";
    if (now) paint();
  });
  byId("panels").addEventListener(
    "wheel",
    (event) => {
      if (!onPanel(event)) return;
      event.preventDefault();
      shown.port = panels.zoomed(portNow(), Math.exp(event.deltaY / 400), pixelAt(event), now.key.side);
      paint();
    },
    {passive: false},
  );
  byId("panels").addEventListener("dblclick", (event) => {
    if (onPanel(event)) {
      shown.port = null;
      paint();
    }
  });

  function read() {
    const {u, v} = shown.cursor,
      k = v * now.key.side + u;
    const values = now.panels
      .filter((panel) => panel.value)
      .map((panel) => `${panel.name.split(":")[0]} ${number(panel.value(k))}`);
    const truth = now.truth ? (now.truth[k] ? ", in the defect" : "") : "";
    byId("reading").textContent =
      `row ${v}, column ${u}: ${values.join(" · ")}${truth}${now.sample.mask[k] ? "" : ", no 3D point"}`;
  }

  // All panels with their captions as one picture, with the stamp.
  function save() {
    const side = 320,
      canvases = [...byId("panels").querySelectorAll("canvas[role=img]")],
      columns = Math.min(3, canvases.length);
    const rows = Math.ceil(canvases.length / columns),
      sheet = make("canvas", {width: columns * (side + 10) + 10, height: rows * (side + 26) + 66});
    const brush = sheet.getContext("2d");
    brush.fillStyle = "#fff";
    brush.fillRect(0, 0, sheet.width, sheet.height);
    brush.fillStyle = "#1a1a1a";
    brush.font = "15px sans-serif";
    brush.fillText(`${byId("name").textContent}: ${byId("said").textContent}`, 10, 22, sheet.width - 20);
    brush.fillText(now.key.data.stamp, 10, 44, sheet.width - 20);
    canvases.forEach((canvas, n) => {
      const x = 10 + (n % columns) * (side + 10),
        y = 60 + Math.floor(n / columns) * (side + 26);
      brush.drawImage(canvas, x, y + 18, side, side);
      const [name, note] = canvas.parentElement.querySelector("figcaption").children;
      brush.fillText(`${name.textContent} ${note.matches("span") ? note.textContent : ""}`, x, y + 13, side);
    });
    sheet.toBlob((blob) => {
      const link = make("a", {
        href: URL.createObjectURL(blob),
        download: `${state.category}_${named(state.id).replace(/\//g, "_")}.png`,
      });
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    });
  }

  return {draw, paint, save, scores: () => byId("panels").querySelector("svg")};
};
