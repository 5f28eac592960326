"use strict";
// The state of the explorer as text, so that a link opens exactly this view.
const address = (() => {
  // What a view begins with; what is undefined is taken from the category.
  const VIEW = {
    ...{dataset: undefined, category: undefined, id: undefined},
    ...{variant: undefined, fusion: undefined, blur: undefined, sigma: undefined},
    ...{opacity: 0.8, rate: -2, scale: undefined, sort: undefined, kind: "all", find: "", methods: []},
  };
  const NUMBERS = ["sigma", "rate", "opacity"],
    TEXTS = Object.keys(VIEW).filter((name) => name !== "methods" && !NUMBERS.includes(name));

  function text(state) {
    const told = new URLSearchParams();
    for (const name of [...TEXTS, ...NUMBERS]) {
      if (state[name] !== undefined && state[name] !== VIEW[name]) told.set(name, String(state[name]));
    }
    if (state.methods.length) told.set("methods", state.methods.join(","));
    return told.toString();
  }

  function read(written) {
    const told = new URLSearchParams(written),
      state = {...VIEW};
    for (const name of TEXTS) if (told.has(name)) state[name] = told.get(name);
    for (const name of NUMBERS)
      if (told.get(name) && isFinite(told.get(name))) state[name] = Number(told.get(name));
    if (told.has("methods")) state.methods = told.get("methods").split(",").filter(Boolean);
    return state;
  }

  // A view kept in the page's own address, a moment later: browsers refuse many changes in a row.
  function kept(delay = 150) {
    let late = 0;
    const write = (state) => {
      const told = text(state);
      clearTimeout(late);
      late = setTimeout(() => history.replaceState(null, "", `#${told}`), delay);
    };
    addEventListener("hashchange", () => clearTimeout(late));
    const address = (state) => `${location.href.split("#")[0]}#${text(state)}`;
    return {
      write,
      read: () => read(location.hash.slice(1)),
      link: ["Copy link", "copy the address of this view", address],
      dark: matchMedia("(prefers-color-scheme: dark)").matches,
    };
  }

  return {VIEW, NUMBERS, text, read, kept};
})();
