"use strict";
// The heatmap explorer: what is chosen, in which order things are computed, and the list.
//
// root: the document or shadow root that holds the markup of frame.html; page: {categories, colours}; load(key): a
// promise of a category, see samples.js; home: where the view is kept: read() and write(state, byHand), opened(title),
// link: [text, title, (state) => what to copy], dark and sheet: how it begins.
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
    steady = {}, // the last state that was shown
    listed = "", // what the list was made of
    opening = false,
    order = [];

  const refuse = (error) => {
    opening = false;
    frame.classList.remove("busy");
    byId("reading").setAttribute("role", "alert");
    byId("reading").textContent = error.told ?? `This cannot be shown: ${error.message}`;
  };
  const view = makeView(byId, frame, colours, state, shown);
  const sheet = makeSheet(byId("samples"), drawThumbnail);
  const written = (byHand = true) => home.write(state, byHand);
  const controls = makeControls(byId, state, {
    open: (wanted, fresh) => {
      if (fresh) Object.assign(shown, {overlay: true, outline: true, whole: false, bin: null, port: null});
      press();
      open(wanted, true);
    },
    variant: (name) => {
      const {fusion, blur, sigma} = (!opening && category?.data.variants[name]) || {};
      Object.assign(state, {variant: name, fusion, blur: blur === null ? "none" : blur, sigma});
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
      if (frame.classList.contains("sheet")) sheet.watch();
    },
    relist: () => {
      written();
      fillList();
    },
  });

  // ---- a category, a sample, and all that is drawn of it

  // Of calls of one kind only the newest goes on: an older one ends where it asks `newest`, and its failure is not told.
  const turns = {open: 0, choose: 0, update: 0};
  const alone =
    (kind, work) =>
    async (...given) => {
      const mine = ++turns[kind],
        newest = () => mine === turns[kind];
      try {
        await work(newest, ...given);
      } catch (error) {
        if (newest()) refuse(error);
      }
    };

  // byHand: whether someone chose it here; else it is told from outside, and home need not hear of it.
  const open = alone("open", async (newest, wanted, byHand = false) => {
    Object.assign(state, wanted);
    controls.fillData(page.categories);
    frame.classList.add("busy");
    opening = true;
    turns.choose++;
    turns.update++;
    const one = await load(`${state.dataset}/${state.category}`).catch((error) => {
      if (newest() && sample) restore();
      throw Object.assign(error, {told: error.message});
    });
    if (!newest()) return;
    opening = false;
    if (one !== category) forget();
    category = one;
    home.opened?.(category.title);
    byId("stamp").textContent = category.data.stamp;
    byId("stamp").classList.toggle("warn", category.data.warn);
    controls.fillAll(category);
    shown.bin = null;
    frame.classList.toggle("plain", !Object.keys(category.data.variants).length); // maps that are not made of two
    for (const name of ["controls", "filters", "view"]) byId(name).hidden = !category.samples.length;
    if (!category.samples.length) {
      forget();
      list.addUnread(byId("samples"), category.unread("all"));
      frame.classList.remove("busy");
      return;
    }
    const placeOf = (id) => category.samples.findIndex((one) => one.id === id);
    await choose(placeOf(state.id) < 0 ? placeOf(category.data.start) : placeOf(state.id), byHand);
  });

  // Back to the category that is still shown.
  function restore() {
    Object.assign(state, steady);
    opening = false;
    controls.fillData(page.categories);
    controls.fillAll(category);
    update();
  }

  // What belongs to another category must not be chosen from.
  function forget() {
    now = sample = null;
    order = [];
    byId("samples").replaceChildren();
    byId("count").textContent = byId("reading").textContent = "";
    view.scores()?.replaceChildren();
  }

  const choose = alone("choose", async (newest, k, byHand = true) => {
    if (opening) return;
    const one = await category.sample(k);
    await category.image(one);
    if (!newest()) return;
    sample = one;
    state.id = one.meta.id;
    if (!shown.whole) shown.port = null;
    await update(byHand);
  });

  // First this sample, then what needs the whole category: scores, colours and threshold.
  const update = alone("update", async (newest, byHand = true) => {
    controls.show();
    if (opening || !sample) return;
    const chosen = category.settings(state),
      methods = state.methods.map((name) => category.data.methods.find((one) => one.name === name));
    written(byHand);
    steady = {...state};
    view.leave();
    frame.classList.add("busy");
    const compared = (method, found) => ({method, found, map: category.methodMap(sample, method.name)});
    now = {
      key: category,
      sample,
      k: category.samples.indexOf(sample.meta),
      map: category.map(sample, chosen),
      truth: sample.meta.label && sample.truth ? sample.truth : null,
      analysis: now?.analysis, // until there is the new one
      others: methods
        .filter(({name}) => category.analysed.has(name))
        .map((one) => compared(one, category.analysed.get(one.name))),
    };
    drawAll();
    const analysis = await category.analyse(chosen, newest, state.rate);
    if (!analysis || !newest()) return;
    const others = [];
    for (const method of methods) {
      const found = await category.analyseMethod(method, newest);
      if (!found || !newest()) return;
      others.push(compared(method, found));
    }
    if (now.analysis !== analysis) shown.bin = null; // other scores
    Object.assign(now, {analysis, others});
    drawAll();
    fillList();
    frame.classList.remove("busy");
    // What came with the data needed no sample; what is damaged is told when it is asked for.
    if (analysis.thresholds) category.unpackAll(newest).catch(() => {});
  });

  function drawAll() {
    const {analysis, map, truth} = now;
    now.threshold = analysis ? category.threshold(analysis, state) : Infinity;
    now.range = analysis ? category.range(analysis, state) : [0, map.reduce((a, b) => Math.max(a, b), 0)];
    now.edge = truth ? (sample.edge ??= panels.border(truth, category.side)) : null;
    for (const other of now.others) other.threshold = category.threshold(other.found, state);
    now.panels = category.panels(now, state, colours, controls.FUSIONS);
    view.draw(now);
    byId("name").textContent = `${category.title}, ${named(sample.meta.id)}`;
    if (analysis) byId("said").textContent = category.say(now);
  }

  function fillList() {
    if (!now?.analysis) return;
    const {scores} = now.analysis,
      samples = byId("samples"),
      focused = frame.contains(root.activeElement),
      inList = samples.contains(root.activeElement),
      bar = view.bars().indexOf(root.activeElement);
    const rows = category.samples.map((meta, k) => ({...meta, k, score: scores[k]}));
    const made = JSON.stringify([state.sort, state.kind, state.find, shown.bin, scores]);
    if (made !== listed || !samples.children.length) {
      listed = made;
      for (const row of rows) {
        row.hardness = state.sort === "hardest" ? category.hardness(scores, row.k) : 0;
        row.tip = `${named(row.id)}: ${category.tip(scores, row.k)}`;
      }
      const chosen = rows.filter((row) => category.isOf(row, state.kind));
      order = list.fill(samples, chosen, {...state, bin: shown.bin, ...category.marks}, pick);
      const text = state.find.trim().toLowerCase(),
        unread = shown.bin ? [] : category.unread(state.kind).filter(({id}) => id.toLowerCase().includes(text));
      list.addUnread(samples, unread);
      byId("count").textContent =
        `${order.length + unread.length} of ${rows.length + category.unread("all").length} ${category.noun}`;
    }
    const row = list.mark(samples, now.k);
    sheet.watch();
    byId("bin").hidden = !shown.bin;
    if (shown.bin) byId("bin").textContent = `scores ${number(shown.bin[0])} to ${number(shown.bin[1])} ×`;
    const place = order.indexOf(now.k);
    byId("previous").setAttribute("aria-disabled", place === 0 || !order.length); // not disabled: it would lose the keys
    byId("next").setAttribute("aria-disabled", place === order.length - 1);
    list.histogram(view.scores(), rows, now.k, category.marks, (bin) => {
      shown.bin = bin;
      fillList();
      if (order.length && !order.includes(now.k)) choose(order[0]);
    });
    // What was clicked may be gone; the keys stay here.
    if (inList) row?.focus({preventScroll: true});
    else if (bar >= 0) view.bars()[bar]?.focus({preventScroll: true});
    else if (focused && !frame.contains(root.activeElement)) frame.focus({preventScroll: true});
  }

  // From the list, which stands below the panels where there is little room.
  function pick(k) {
    show(false);
    choose(k);
    const {top} = byId("head").getBoundingClientRect();
    if (top < 0) byId("head").scrollIntoView();
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
    panels.small(canvas, one, key.side, heat, {...shown, opacity: state.opacity, none: view.none()});
  }

  function show(pictures) {
    const lost = pictures && byId("view").contains(root.activeElement);
    frame.classList.toggle("sheet", pictures);
    if (lost) byId("sheet").focus({preventScroll: true});
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
    if (frame.classList.contains("sheet")) sheet.watch();
  }
  for (const name of ["overlay", "outline", "whole"]) byId(name).addEventListener("click", () => press(name));
  byId("sheet").addEventListener("click", () => show(!frame.classList.contains("sheet")));

  function step(by) {
    if (!now) return;
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
      const inList = byId("samples").contains(event.target),
        by = {ArrowLeft: -1, p: -1, ArrowRight: 1, n: 1, ...(inList && {ArrowUp: -1, ArrowDown: 1})}[event.key],
        name = {o: "overlay", l: "outline", w: "whole"}[event.key],
        factor = view.zoomOf(event.key);
      if (by) step(by);
      else if (name) press(name);
      else if (factor !== undefined) view.zoom(factor);
      else if (event.key === "s") save();
      else if (event.key === "g") byId("sheet").click();
      else return;
      event.preventDefault();
    },
    {signal: ended.signal},
  );

  function save() {
    if (!now || frame.classList.contains("busy")) return;
    view.save(category.told(state, controls.FUSIONS));
  }

  const [text, title, copied] = home.link;
  Object.assign(byId("link"), {textContent: text, title});
  byId("link").addEventListener("click", async () => {
    const done = await navigator.clipboard?.writeText(copied(state)).then(
      () => true,
      () => false,
    );
    byId("reading").textContent = `${done ? "copied: " : ""}${copied(state)}`;
  });
  byId("save").addEventListener("click", save);

  const dark = (on) => {
    frame.classList.toggle("dark", on);
    if (now) view.paint();
  };
  dark(home.dark);
  byId("theme").addEventListener("click", () => dark(!frame.classList.contains("dark")));
  const resized = new ResizeObserver(() => {
    if (now) view.paint();
    if (frame.classList.contains("sheet")) sheet.watch();
  });
  for (const element of [frame, byId("panels")]) resized.observe(element);
  if (home.sheet) show(true);
  open(home.read());

  const end = () => {
    for (const kind of Object.keys(turns)) turns[kind]++;
    ended.abort();
    resized.disconnect();
    sheet.end();
  };
  return {open, dark, end};
};
