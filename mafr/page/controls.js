"use strict";
// The controls of the explorer: menus, sliders and buttons that hold its state.
// on: open(wanted), another category; update(), other maps; redraw(), other limits; repaint(), another look;
// relist(), another list.
const makeControls = (byId, state, on) => {
  const {make} = list;
  const FUSIONS = {product: "Ψ2D · Ψ3D", sum: "Ψ2D + Ψ3D", max: "max(Ψ2D, Ψ3D)", rgb: "Ψ2D", xyz: "Ψ3D"};

  function fill(name, options) {
    const select = byId(name);
    select.replaceChildren(...options.map(([key, text]) => make("option", {value: key, text})));
    state[name] = options.some(([key]) => key === state[name]) ? state[name] : options[0]?.[0];
    select.value = state[name] ?? "";
    select.closest("label").hidden = options.length < 2;
  }

  function fillData(categories) {
    fill(
      "dataset",
      Object.entries(categories).map(([key, {title}]) => [key, title]),
    );
    fill(
      "category",
      categories[state.dataset].categories.map((name) => [name, name.replace(/_/g, " ")]),
    );
  }

  // All menus whose options depend on the category.
  function fillAll(category) {
    const {data} = category,
      variants = Object.keys(data.variants);
    fill(
      "variant",
      variants.map((name) => [name, name]),
    );
    const usual = data.variants[state.variant] ?? {};
    for (const name of ["fusion", "sigma"]) state[name] ??= usual[name];
    if (variants.length) {
      state.blur ??= usual.blur ?? "none";
      if (![...byId("blur").options].some(({value}) => value === state.blur)) state.blur = usual.blur ?? "none";
    }
    byId("sigma").max = Math.max(12, usual.sigma ?? 0, Math.min(50, state.sigma ?? 0));
    for (const name of address.NUMBERS) {
      const {min, max} = byId(name); // an address may say anything
      if (state[name] !== undefined) state[name] = Math.min(Number(max), Math.max(Number(min), state[name]));
    }
    fill("fusion", variants.length ? Object.entries(FUSIONS) : []);
    for (const name of ["blur", "sigma", "rate"]) byId(name).closest("label").hidden = !variants.length;
    fill("scale", category.scales ?? []);
    fill("kind", category.kinds());
    fill("sort", category.sorts());
    fillMethods(data.methods);
  }

  function fillMethods(methods) {
    state.methods = [...new Set(state.methods)].filter((name) => methods.some((one) => one.name === name));
    const buttons = methods.map(({name, title}) => {
      const button = make("button", {type: "button", text: title, "aria-pressed": state.methods.includes(name)});
      button.addEventListener("click", () => {
        const on_ = !state.methods.includes(name);
        state.methods = on_ ? [...state.methods, name] : state.methods.filter((one) => one !== name);
        button.setAttribute("aria-pressed", on_);
        on.update();
      });
      return button;
    });
    byId("methods").replaceChildren(byId("methods").firstElementChild, ...buttons);
    byId("methods").hidden = !methods.length;
  }

  function show() {
    for (const name of ["fusion", "variant", "scale", "sort", "kind", "find"]) byId(name).value = state[name] ?? "";
    byId("blur").value = state.blur ?? "";
    for (const name of address.NUMBERS) byId(name).value = state[name];
    byId("sigma").disabled = state.blur !== "gaussian";
    const say = (name, text) => (byId(name).nextElementSibling.textContent = text);
    if (state.sigma) say("sigma", `${state.sigma.toFixed(2)} px`);
    say("rate", `${(100 * 10 ** state.rate).toPrecision(2)} %`);
    say("opacity", state.opacity.toFixed(2));
  }

  const listen = (kind, names, act) => {
    for (const name of names) byId(name).addEventListener(kind, ({target}) => act(name, target.value));
  };
  listen("change", ["dataset"], (_, dataset) =>
    on.open({dataset, category: undefined, id: undefined, kind: "all", find: ""}),
  );
  listen("change", ["category"], (_, category) => on.open({category, id: undefined, kind: "all", find: ""}));
  listen("change", ["variant"], (_, variant) => on.variant(variant));
  listen("change", ["fusion", "blur", "scale"], (name, value) => {
    state[name] = value;
    on.update();
  });
  listen("input", ["sigma"], (_, value) => {
    state.sigma = Number(value);
    on.update();
  });
  listen("input", ["rate"], (_, value) => {
    state.rate = Number(value);
    on.redraw();
  });
  listen("input", ["opacity"], (_, value) => {
    state.opacity = Number(value);
    on.repaint();
  });
  listen("input", ["sort", "kind", "find"], (name, value) => {
    state[name] = value;
    on.relist();
  });
  byId("more").addEventListener("click", () => {
    const open = byId("controls").classList.toggle("open");
    byId("more").setAttribute("aria-expanded", open);
  });
  // To the settings of the run; the sample stays.
  byId("reset").addEventListener("click", () => {
    const {dataset, category, id, variant} = state;
    on.open({...address.VIEW, dataset, category, id, variant}, true);
  });

  return {FUSIONS, fillData, fillAll, show};
};
