"use strict";
// The panels of the explorer: one figure for each of `now.panels`, among them the cloud and the histogram's place.
const makeView = (byId, frame, colours, state, shown) => {
  const {make, number, named} = list;
  let now = null,
    cloud = null;
  const figures = new Map(); // of the panels, by their names

  const portNow = () => {
    if (shown.whole) return shown.port ?? {x: 0, y: 0, width: now.key.side};
    return shown.port ?? panels.squareOf(now.sample.box, now.key.side);
  };

  function figureOf({kind}) {
    const caption = make("figcaption", {}, make("b"), make("span")),
      below = make("div", {class: "key"});
    if (kind === "scores") {
      const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
      for (const [name, value] of [
        ["class", "histogram"],
        ["role", "group"],
        ["aria-label", "histogram of the scores"],
      ])
        svg.setAttribute(name, value);
      return make("figure", {}, caption, svg, below);
    }
    if (kind !== "cloud") return make("figure", {}, caption, make("canvas", {role: "img", class: "panel"}), below);
    const solid = make("canvas", {role: "img", tabindex: 0, width: 448, height: 448, id: "cloud"});
    const menu = make(
      "select",
      {id: "tone", "aria-label": "colour of the cloud"},
      make("option", {value: "map", text: "map"}),
      make("option", {value: "image", text: "image"}),
    );
    cloud = makeCloud(solid, (n) => {
      pointTo(n === null ? null : now.sample.pixels[n]);
      cloud.mark(n);
    });
    menu.addEventListener("change", drawCloud);
    caption.append(menu);
    return make("figure", {}, caption, solid, below);
  }

  function draw(given) {
    now = given;
    // Figures stay as long as their panels do: a turned cloud stays as it is when others come and go.
    const names = now.panels.map((panel) => panel.id ?? panel.name);
    for (const name of figures.keys()) if (!names.includes(name)) figures.delete(name);
    now.panels.forEach((panel, n) => {
      if (!figures.has(names[n])) figures.set(names[n], figureOf(panel));
    });
    const wanted = names.map((name) => figures.get(name)),
      there = [...byId("panels").children];
    if (wanted.length !== there.length || wanted.some((figure, n) => figure !== there[n]))
      byId("panels").replaceChildren(...wanted);
    [...byId("panels").children].forEach((figure, n) => {
      const panel = now.panels[n],
        [caption, canvas, below] = figure.children,
        [name, note] = caption.children;
      name.textContent = panel.name;
      if (panel.kind === "scores") [note.textContent, below.textContent] = now.key.legend;
      else if (panel.kind === "cloud") below.textContent = "drag to turn, wheel or pinch to zoom";
      else {
        panel.canvas = canvas;
        canvas.tabIndex = n ? -1 : 0; // one of them is enough for keys
        note.textContent = panel.note ?? "";
        caption.title = `${panel.name} ${panel.told ?? panel.note ?? ""}`;
        canvas.setAttribute(
          "aria-label",
          `${panel.name} of ${now.sample.meta.id}. ${panel.told ?? panel.note ?? ""}`,
        );
        if (panel.range) scaleBar(below, panel);
        else if (panel.found) below.replaceChildren(...maskKey());
        else below.textContent = panel.key ?? "";
      }
    });
    drawCloud();
    paint();
  }

  function maskKey() {
    const known = now.key.truths ?? panels.TRUTHS;
    return known.flatMap(([kind, text]) => {
      const square = make("i");
      square.style.background = `rgb(${panels.SEEN[kind]})`;
      return [square, text];
    });
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
    element.append(tick, ...(place > 0.38 && place < 0.6 ? [text] : []));
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
      none = noneColour();
    for (const panel of now.panels) {
      if (panel.kind) continue;
      const size = Math.round(panel.canvas.clientWidth * devicePixelRatio) || 224;
      if (panel.canvas.width !== size) panel.canvas.width = panel.canvas.height = size;
      panels.show(panel.canvas, panel, now, {...look(), port, cursor: shown.cursor, none});
    }
  }

  const noneColour = () => getComputedStyle(frame).getPropertyValue("--none");
  const look = () => ({opacity: state.opacity, overlay: shown.overlay, outline: shown.outline});

  const pointing = makePointing(byId("panels"), {
    side: () => now.key.side,
    port: portNow,
    cursor: () => shown.cursor,
    show: (port) => {
      shown.port = port;
      paint();
    },
    point: (k, byKeys) => {
      if (!now) return;
      pointTo(k, byKeys);
      cloud.mark(k === null ? null : nearest(shown.cursor.u, shown.cursor.v));
    },
  });

  // The point of the cloud at a pixel or near it, or null.
  function nearest(u, v) {
    let best = null,
      least = 16; // pixels, squared
    now.sample.pixels.forEach((k, n) => {
      const far = ((k % now.key.side) - u) ** 2 + (Math.floor(k / now.key.side) - v) ** 2;
      if (far < least) [best, least] = [n, far];
    });
    return best;
  }

  // What is said of the place pointed at before ends with the picture there.
  function leave() {
    shown.cursor = null;
    cloud?.mark(null);
    byId("reading").removeAttribute("role");
    byId("reading").textContent = "";
  }

  // The cursor on all panels, and the values there.
  function pointTo(k, byKeys = false) {
    const {side} = now.key;
    byId("reading").setAttribute("aria-live", byKeys ? "polite" : "off");
    shown.cursor = k === null ? null : {u: k % side, v: Math.floor(k / side)};
    byId("reading").removeAttribute("role");
    byId("reading").textContent = k === null ? "" : reading(k);
    paint();
  }

  function reading(k) {
    const {u, v} = shown.cursor,
      values = now.panels
        .filter((panel) => panel.value)
        .map((panel) => `${panel.name.split(":")[0]} ${number(panel.value(k))}${panel.unit?.(k) ?? ""}`);
    const truth = now.truth?.[k] ? ", in the defect" : "";
    return `row ${v}, column ${u}: ${values.join(" · ")}${truth}${now.sample.solid[k] ? "" : ", no 3D point"}`;
  }

  function save(settings) {
    const sheet = drawPicture(now, {...look(), port: portNow(), colours, cloud: byId("cloud"), settings});
    sheet.toBlob((blob) => {
      const link = make("a", {
        href: URL.createObjectURL(blob),
        download: `${now.key.title}_${named(now.sample.meta.id)}.png`.replace(/[^\w.-]+/g, "_"),
      });
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    });
  }

  return {
    draw,
    leave,
    paint,
    none: noneColour,
    save,
    zoom: pointing.zoom,
    zoomOf: pointing.zoomOf,
    scores: () => byId("panels").querySelector("svg"),
    bars: () => [...byId("panels").querySelectorAll(".bin[tabindex]")],
  };
};
