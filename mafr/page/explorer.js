"use strict";
// The heatmap explorer: what is chosen, in which order things are computed, and the list.
//
// root: the document or shadow root that holds the markup of frame.html; page: {categories, colours}; load(key): a
// promise of a category, see samples.js; home: where the view is kept: read() and write(state), opened(title), link:
// [text, title, () => what to copy], dark and sheet: how it begins.
const mountExplorer = (root, page, load, home) => {
  const byId = (id) => root.getElementById(id),
    frame = byId("controls").closest(".frame"),
    {number, named} = list,
    colours = decode.bytesOf(page.colours),
    ended = new AbortController();
  const state = {...address.VIEW},
    shown = {overlay: true, outline: true, whole: false, bin: null, port: null, cursor: null};
  let category = null,
    sample = null,
    now = null,
    turn = 0,
    order = [];

  const refuse = (error) => {
    frame.classList.remove("busy");
    byId("reading").textContent = error.told ?? `The data cannot be read: ${error.message}`;
  };
  const guarded =
    (work) =>
    (...given) =>
      work(...given).catch(refuse);

  const view = makeView(byId, frame, colours, state, shown, ended.signal);
  const sheet = makeSheet(byId("samples"), drawThumbnail);
  const written = () => home.write(state);
  const controls = makeControls(byId, state, {
    open: (wanted, fresh) => {
      if (fresh) Object.assign(shown, {overlay: true, outline: true, whole: false, bin: null, port: null});
      press();
      open(wanted);
    },
    variant: (name) => {
      const {fusion, blur, sigma} = category.data.variants[name];
      Object.assign(state, {variant: name, fusion, blur: blur ?? "none", sigma});
      update();
    },
    update: () => update(),
    redraw: () => {
      controls.show();
      written();
      if (now?.analysis) drawAll();
    },
    repaint: () => {
      controls.show();
      written();
      if (now) view.paint();
    },
    relist: () => {
      written();
      if (now?.analysis) fillList();
    },
  });

  // ---- a category, a sample, and all that is drawn of it

  const open = guarded(async (wanted = {}) => {
    Object.assign(state, wanted);
    controls.fillData(page.categories);
    frame.classList.add("busy");
    const mine = ++turn,
      one = await load(`${state.dataset}/${state.category}`).catch((error) => {
        throw Object.assign(error, {told: error.message});
      });
    if (mine !== turn) return;
    category = one;
    home.opened?.(category.title);
    byId("stamp").textContent = category.data.stamp;
    byId("stamp").classList.toggle("warn", category.data.warn);
    controls.fillAll(category);
    shown.bin = null;
    frame.classList.toggle("plain", !Object.keys(category.data.variants).length); // maps that are not made of two
    if (!category.samples.length) {
      list.addUnread(byId("samples"), category.unread("all"));
      frame.classList.remove("busy");
      return;
    }
    const placeOf = (id) => category.samples.findIndex((one) => one.id === id);
    await choose(placeOf(state.id) < 0 ? placeOf(category.data.start) : placeOf(state.id));
  });

  const choose = guarded(async (k) => {
    const mine = ++turn,
      one = await category.sample(k);
    await category.image(one);
    if (mine !== turn) return;
    sample = one;
    state.id = one.meta.id;
    shown.port = null;
    await update();
  });

  // First this sample, then what needs the whole category: scores, colours and threshold.
  const update = guarded(async () => {
    const mine = ++turn,
      wanted = () => mine === turn,
      chosen = category.settings(state);
    controls.show();
    written();
    frame.classList.add("busy");
    now = {
      key: category,
      sample,
      k: category.samples.indexOf(sample.meta),
      map: category.map(sample, chosen),
      truth: sample.meta.label && sample.truth ? sample.truth : null,
      analysis: now && now.key === category ? now.analysis : null, // until there is the new one
      others: [],
    };
    drawAll();
    const analysis = await category.analyse(chosen, wanted);
    if (!analysis || !wanted()) return;
    now.analysis = analysis;
    for (const name of state.methods) {
      const method = category.data.methods.find((one) => one.name === name);
      const found = await category.analyseMethod(method, wanted);
      if (!found || !wanted()) return;
      now.others.push({method, found, map: category.methodMap(sample, name)});
    }
    drawAll();
    fillList();
    frame.classList.remove("busy");
  });

  function drawAll() {
    const {analysis, map, truth} = now;
    now.threshold = analysis ? category.threshold(analysis, state) : Infinity;
    now.range = analysis ? category.range(analysis, state) : [0, map.reduce((a, b) => Math.max(a, b), 0)];
    now.edge = truth ? panels.border(truth, category.side) : null;
    for (const other of now.others) other.threshold = category.threshold(other.found, state);
    now.panels = category.panels(now, state, colours, controls.FUSIONS);
    view.draw(now);
    byId("name").textContent = `${category.title}, ${named(sample.meta.id)}`;
    if (analysis) byId("said").textContent = category.say(now);
  }

  function fillList() {
    const {scores} = now.analysis,
      rows = category.samples.map((meta, k) => ({
        ...meta,
        k,
        score: scores[k],
        hardness: state.sort === "hardest" ? category.hardness(scores, k) : 0,
        tip: category.tip(scores, k),
      }));
    const focused = frame.contains(root.activeElement),
      inList = byId("samples").contains(root.activeElement);
    const chosen = rows.filter((row) => category.isOf(row, state.kind));
    order = list.fill(
      byId("samples"),
      chosen,
      {...state, bin: shown.bin, current: now.k, ...category.marks},
      (k) => {
        show(false);
        choose(k);
      },
    );
    list.addUnread(byId("samples"), category.unread?.(state.kind) ?? []);
    byId("count").textContent = `${order.length} of ${rows.length} ${category.noun}`;
    byId("bin").hidden = !shown.bin;
    if (shown.bin) byId("bin").textContent = `scores ${number(shown.bin[0])} to ${number(shown.bin[1])} ×`;
    const place = order.indexOf(now.k);
    byId("previous").setAttribute("aria-disabled", place <= 0); // not disabled: it would lose the keys
    byId("next").setAttribute("aria-disabled", place === order.length - 1);
    const row = byId("samples").querySelector("[aria-current]");
    if (row) list.bringIntoView(byId("samples"), row.parentElement); // not by the browser: it moves the page too
    sheet.watch();
    list.histogram(view.scores(), rows, now.k, category.marks, (bin) => {
      shown.bin = bin;
      fillList();
      if (order.length && !order.includes(now.k)) choose(order[0]);
    });
    // What was clicked may be gone; the keys stay here.
    if (inList) row?.focus({preventScroll: true});
    else if (focused && !frame.contains(root.activeElement)) frame.focus({preventScroll: true});
  }

  // A sample in the list, with its map and the outline of its defect.
  async function drawThumbnail(k, canvas) {
    const {analysis, key} = now ?? {};
    if (!analysis) return;
    const one = await key.sample(k);
    await key.image(one);
    if (key !== category) return;
    const map = key.map(one, key.settings(state)),
      heat = panels.heat(map, one.mask, key.side, key.range(analysis, state), colours, true);
    if (one !== sample) one.kept = {};
    canvas.width = canvas.height = Math.round(canvas.clientWidth * devicePixelRatio) || 96;
    const layers = [[one.image, 1, true], ...(shown.overlay ? [[heat, state.opacity, false]] : [])],
      edge =
        one.meta.label && one.truth && shown.outline ? [[panels.border(one.truth, key.side), panels.CYAN, 1]] : [];
    const none = getComputedStyle(frame).getPropertyValue("--none");
    panels.draw(canvas, panels.squareOf(one.box, key.side), layers, edge, null, none);
  }

  function show(pictures) {
    frame.classList.toggle("sheet", pictures);
    byId("sheet").setAttribute("aria-pressed", pictures);
    sheet.watch();
    if (now && !pictures) view.paint();
  }

  // ---- buttons and keys

  byId("bin").addEventListener("click", () => {
    shown.bin = null;
    fillList();
  });

  function press(name) {
    if (name) shown[name] = !shown[name];
    if (name === "whole") shown.port = null;
    for (const one of ["overlay", "outline", "whole"]) byId(one).setAttribute("aria-pressed", shown[one]);
    if (now) view.paint();
  }
  for (const name of ["overlay", "outline", "whole"]) byId(name).addEventListener("click", () => press(name));
  byId("sheet").addEventListener("click", () => show(!frame.classList.contains("sheet")));

  function step(by) {
    const place = order.indexOf(now.k),
      next = order[place < 0 ? 0 : place + by];
    if (next !== undefined) choose(next);
  }
  byId("previous").addEventListener("click", () => step(-1));
  byId("next").addEventListener("click", () => step(1));
  const typing = (target) => target.matches?.("select, textarea, input:not([type=range])");
  root.addEventListener(
    "keydown",
    (event) => {
      if (event.ctrlKey || event.altKey || event.metaKey || typing(event.target) || !now) return;
      if (event.target.matches?.("input") && event.key.startsWith("Arrow")) return;
      const by = {ArrowLeft: -1, p: -1, ArrowRight: 1, n: 1}[event.key],
        name = {o: "overlay", l: "outline", w: "whole"}[event.key];
      if (by) step(by);
      else if (name) press(name);
      else if (event.key === "s") view.save();
      else if (event.key === "g") byId("sheet").click();
      else return;
      event.preventDefault();
    },
    {signal: ended.signal},
  );

  const [text, title, copied] = home.link;
  Object.assign(byId("link"), {textContent: text, title});
  byId("link").addEventListener("click", async () => {
    await navigator.clipboard?.writeText(copied(state)).catch(() => null);
    byId("reading").textContent = copied(state);
  });
  byId("save").addEventListener("click", () => view.save());

  const dark = (on) => {
    frame.classList.toggle("dark", on);
    if (now) view.paint();
  };
  dark(home.dark);
  byId("theme").addEventListener("click", () => dark(!frame.classList.contains("dark")));
  const resized = new ResizeObserver(() => now && view.paint());
  resized.observe(byId("panels"));
  if (home.sheet) show(true);
  open(home.read());

  const end = () => {
    turn++;
    ended.abort();
    resized.disconnect();
    sheet.end();
  };
  return {open, dark, end};
};
