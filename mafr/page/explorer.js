"use strict";
// The heatmap explorer: its state, which the address holds, its controls, and what is to be drawn.
(() => {
  const byId = (id) => document.getElementById(id),
    {make, number, named, SORTS} = list;
  const page = JSON.parse(byId("settings").textContent),
    colours = decode.bytesOf(page.colours);
  const FUSIONS = {product: "Ψ2D · Ψ3D", sum: "Ψ2D + Ψ3D", max: "max(Ψ2D, Ψ3D)", rgb: "Ψ2D", xyz: "Ψ3D"};
  const {VIEW, NUMBERS} = address;
  const state = {...VIEW},
    shown = {overlay: true, outline: true, whole: false, bin: null, port: null, cursor: null};
  const view = makeView(colours, state, shown);
  let category = null,
    sample = null,
    now = null,
    turn = 0,
    order = [];

  function refuse(error) {
    document.body.classList.remove("busy");
    byId("reading").textContent = error.message;
  }
  addEventListener("unhandledrejection", ({reason}) =>
    refuse(new Error(`The data cannot be read: ${reason.message}`)),
  );

  // ---- menus

  const fill = (select, options, value) => {
    select.replaceChildren(...options.map(([key, text]) => make("option", {value: key, text})));
    select.value = options.some(([key]) => key === value) ? value : options[0][0];
    return select.value;
  };
  const settings = () => ({
    variant: state.variant,
    fusion: state.fusion,
    blur: state.blur || null,
    sigma: state.sigma,
  });

  async function open(wanted = {}) {
    Object.assign(state, wanted);
    const sets = Object.entries(page.categories);
    state.dataset = fill(
      byId("dataset"),
      sets.map(([key, {title}]) => [key, title]),
      state.dataset,
    );
    const {categories} = page.categories[state.dataset];
    state.category = fill(
      byId("category"),
      categories.map((name) => [name, name.replace(/_/g, " ")]),
      state.category,
    );
    document.body.classList.add("busy");
    const mine = ++turn,
      one = await store.load(`${state.dataset}/${state.category}`).catch((error) => error);
    if (mine !== turn) return;
    if (one instanceof Error) {
      refuse(one);
      return;
    }
    category = one;
    const {data} = category,
      variants = Object.keys(data.variants);
    document.title = `${data.category} · heatmap explorer`;
    byId("stamp").textContent = data.stamp;
    byId("stamp").classList.toggle("warn", data.warn);
    state.variant = fill(
      byId("variant"),
      variants.map((name) => [name, name]),
      state.variant,
    );
    const usual = data.variants[state.variant];
    state.fusion = fill(byId("fusion"), Object.entries(FUSIONS), state.fusion ?? usual.fusion);
    state.blur = state.blur ?? usual.blur;
    state.sigma = state.sigma ?? usual.sigma;
    const defects = [...new Set(category.samples.map((one) => one.defect))]
      .filter((name) => name !== "good")
      .sort();
    const kinds = [
      ["all", "all samples"],
      ["good", "good"],
      ["defective", "all defects"],
      ...defects.map((name) => [name, name]),
    ];
    state.kind = fill(byId("kind"), kinds, state.kind);
    state.sort = fill(
      byId("sort"),
      Object.entries(SORTS).map(([key, [text]]) => [key, text]),
      state.sort,
    );
    fillMethods(data.methods);
    shown.bin = null;
    const k = category.samples.findIndex((one) => one.id === state.id);
    await choose(k < 0 ? category.samples.findIndex((one) => one.id === data.start) : k);
  }

  function fillMethods(methods) {
    state.methods = state.methods.filter((name) => methods.some((one) => one.name === name));
    const buttons = methods.map(({name, title}) => {
      const button = make("button", {type: "button", text: title, "aria-pressed": state.methods.includes(name)});
      button.addEventListener("click", () => {
        const on = !state.methods.includes(name);
        state.methods = on ? [...state.methods, name] : state.methods.filter((one) => one !== name);
        button.setAttribute("aria-pressed", on);
        update();
      });
      return button;
    });
    byId("methods").replaceChildren(byId("methods").firstElementChild, ...buttons);
    byId("methods").hidden = !methods.length;
  }

  // ---- a sample, and all that is drawn of it

  async function choose(k) {
    const mine = ++turn;
    const one = await category.sample(k);
    await category.image(one);
    if (mine !== turn) return;
    sample = one;
    state.id = one.meta.id;
    shown.port = null;
    await update();
  }

  // First this sample, then what needs the whole category: scores, colours and threshold.
  async function update() {
    const mine = ++turn,
      wanted = () => mine === turn,
      chosen = settings();
    showSettings();
    address.write(state);
    document.body.classList.add("busy");
    const k = category.samples.indexOf(sample.meta),
      map = category.map(sample, chosen);
    const {rgb, xyz} = category.residuals(sample, chosen.variant);
    const stale = now && now.key === category ? now.analysis : null;
    now = {
      key: category,
      sample,
      k,
      map,
      rgb,
      xyz,
      truth: sample.meta.label ? sample.truth : null,
      analysis: stale,
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
    document.body.classList.remove("busy");
  }

  const share = () => 10 ** state.rate;
  const thresholdOf = (analysis) => scoring.quantile(analysis.ofGood, 1 - share());

  function drawAll() {
    const {analysis, map, truth} = now,
      {side} = category;
    const threshold = analysis ? thresholdOf(analysis) : Infinity;
    const range = analysis ? analysis.range : [0, map.reduce((a, b) => Math.max(a, b), 0)];
    const [ofRgb, ofXyz] = category.data.variants[state.variant].ranges;
    Object.assign(now, {threshold, range, edge: truth ? panels.border(truth, side) : null});
    const layer = (values, limits, fading) => panels.heat(values, sample.mask, side, limits, colours, fading);
    now.panels = [
      {name: "image", layers: [[sample.image, 1, true]]},
      {name: "Ψ2D", layers: [[layer(now.rgb, ofRgb), 1, false]], range: ofRgb, value: (k) => now.rgb[k]},
      {name: "Ψ3D", layers: [[layer(now.xyz, ofXyz), 1, false]], range: ofXyz, value: (k) => now.xyz[k]},
      {
        name: `Ψ: ${FUSIONS[state.fusion]}`,
        map: layer(map, range, true),
        range,
        threshold,
        value: (k) => map[k],
        note: analysis ? placeOf(analysis.scores) : "",
      },
      {name: "mask against truth", found: panels.found(map, threshold, truth, sample.mask, side), key: true},
      ...now.others.map(({method, found, map: other}) => ({
        name: method.title,
        map: layer(other, found.range, true),
        range: found.range,
        threshold: thresholdOf(found),
        value: (k) => other[k],
        note: placeOf(found.scores),
        border: panels.border(
          other.map((value) => (value > thresholdOf(found) ? 1 : 0)),
          side,
        ),
      })),
    ];
    view.draw(now);
    say();
  }

  function placeOf(scores) {
    const above = category.aboveGood(scores, now.k);
    return `score ${number(scores[now.k])}, above ${Math.round(100 * above)} % of the good`;
  }

  function say() {
    const {meta} = sample,
      {analysis} = now;
    byId("name").textContent = `${category.data.category}, ${named(meta.id)}`;
    if (!analysis) return;
    const kind = meta.label ? `defective (${meta.defect})` : "good";
    const found = scoring.agreement(now.map, now.threshold, now.truth, sample.mask, category.side);
    const fit =
      found.iou === null ? "" : ` IoU ${found.iou.toFixed(3)}, region overlap ${found.overlap.toFixed(3)}.`;
    byId("said").textContent =
      `${kind}; ${placeOf(analysis.scores)}. Threshold ${number(now.threshold)}: ` +
      `${(100 * found.falsePositives).toFixed(2)} % of its good pixels above.${fit}`;
  }

  function fillList() {
    const {scores} = now.analysis,
      rows = category.samples.map(({id, defect, label}, k) => ({
        k,
        id,
        defect,
        label,
        score: scores[k],
        hardness: category.hardness(scores, k),
      }));
    order = list.fill(byId("samples"), rows, {...state, bin: shown.bin, current: now.k}, choose);
    byId("count").textContent = `${order.length} of ${rows.length} samples`;
    byId("bin").hidden = !shown.bin;
    if (shown.bin) byId("bin").textContent = `scores ${number(shown.bin[0])} to ${number(shown.bin[1])} ×`;
    const place = order.indexOf(now.k);
    byId("previous").disabled = place <= 0;
    byId("next").disabled = place === order.length - 1;
    const row = byId("samples").querySelector("[aria-current]");
    if (row) list.bringIntoView(byId("samples"), row.parentElement); // not by the browser: it moves the page too
    list.histogram(view.scores(), rows, now.k, (bin) => {
      shown.bin = bin;
      fillList();
      if (order.length && !order.includes(now.k)) choose(order[0]);
    });
  }

  // ---- controls

  function showSettings() {
    for (const name of ["fusion", "variant", "sort", "kind", "find"]) byId(name).value = state[name];
    byId("blur").value = state.blur ?? "";
    for (const name of NUMBERS) byId(name).value = state[name];
    byId("sigma").disabled = state.blur !== "gaussian";
    byId("sigma").nextElementSibling.textContent = `${state.sigma.toFixed(2)} px`;
    byId("rate").nextElementSibling.textContent = `${(100 * share()).toPrecision(2)} %`;
    byId("opacity").nextElementSibling.textContent = state.opacity.toFixed(2);
  }
  byId("dataset").addEventListener("change", (event) =>
    open({dataset: event.target.value, category: undefined, id: undefined, kind: "all"}),
  );
  byId("category").addEventListener("change", (event) =>
    open({category: event.target.value, id: undefined, kind: "all"}),
  );
  byId("variant").addEventListener("change", (event) => {
    const {fusion, blur, sigma} = category.data.variants[event.target.value];
    Object.assign(state, {variant: event.target.value, fusion, blur, sigma});
    update();
  });
  for (const name of ["fusion", "blur"])
    byId(name).addEventListener("change", (event) => {
      state[name] = event.target.value;
      update();
    });
  byId("sigma").addEventListener("input", (event) => {
    state.sigma = Number(event.target.value);
    update();
  });
  byId("rate").addEventListener("input", (event) => {
    state.rate = Number(event.target.value);
    showSettings();
    address.write(state);
    if (now?.analysis) drawAll();
  });
  byId("opacity").addEventListener("input", (event) => {
    state.opacity = Number(event.target.value);
    showSettings();
    address.write(state);
    if (now) view.paint();
  });
  for (const name of ["sort", "kind", "find"]) {
    byId(name).addEventListener("input", (event) => {
      state[name] = event.target.value;
      address.write(state);
      if (now?.analysis) fillList();
    });
  }
  byId("bin").addEventListener("click", () => {
    shown.bin = null;
    fillList();
  });
  byId("reset").addEventListener("click", () => {
    const {fusion, blur, sigma} = category.data.variants[state.variant];
    const {dataset, id, variant} = state;
    Object.assign(state, VIEW, {dataset, category: state.category, id, variant, fusion, blur, sigma, methods: []});
    Object.assign(shown, {overlay: true, outline: true, whole: false, bin: null, port: null});
    fillMethods(category.data.methods);
    press();
    update();
  });

  function press(name) {
    if (name) shown[name] = !shown[name];
    if (name === "whole") shown.port = null;
    for (const one of ["overlay", "outline", "whole"]) byId(one).setAttribute("aria-pressed", shown[one]);
    if (now) view.paint();
  }
  for (const name of ["overlay", "outline", "whole"]) byId(name).addEventListener("click", () => press(name));

  function step(by) {
    const place = order.indexOf(now.k),
      next = order[place < 0 ? 0 : place + by];
    if (next !== undefined) choose(next);
  }
  byId("previous").addEventListener("click", () => step(-1));
  byId("next").addEventListener("click", () => step(1));
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || event.target.matches?.("input, select, textarea") || !now)
      return;
    const by = {ArrowLeft: -1, p: -1, ArrowRight: 1, n: 1}[event.key];
    const name = {o: "overlay", l: "outline", w: "whole"}[event.key];
    if (by) step(by);
    if (name) press(name);
    if (event.key === "s") view.save();
    if (by || name || event.key === "s") event.preventDefault();
  });

  byId("link").addEventListener("click", async () => {
    await navigator.clipboard?.writeText(location.href).catch(() => null);
    byId("reading").textContent = location.href;
  });

  byId("save").addEventListener("click", () => view.save());

  const dark = (on) => {
    document.documentElement.classList.toggle("dark", on);
    if (now) view.paint();
  };
  dark(matchMedia("(prefers-color-scheme: dark)").matches);
  byId("theme").addEventListener("click", () => dark(!document.documentElement.classList.contains("dark")));
  new ResizeObserver(() => now && view.paint()).observe(byId("panels"));
  addEventListener("hashchange", () => open(address.read()));
  open(address.read());
})();
