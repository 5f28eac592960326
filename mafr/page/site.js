"use strict";
// The explorer as a page: each category comes from a script of its own, which works without a server too, and the
// page's address holds the view. Each of these scripts calls mafr.take.
const mafr = (() => {
  const settings = JSON.parse(document.getElementById("settings").textContent);
  const waiting = {},
    loaded = new Map();

  function load(key) {
    const one = loaded.get(key) ?? new Promise((done, failed) => begin(key, done, failed));
    return decode.keep(loaded, key, one, 2); // the one in use and the one before
  }

  function begin(key, done, failed) {
    waiting[key] = done;
    const script = document.createElement("script");
    script.src = `data/${key}.js`;
    const fail = () => {
      loaded.delete(key);
      failed(new Error(`data/${key}.js cannot be read: write the site again with \`mafr site\``));
    };
    script.onload = () => (key in waiting ? fail() : script.remove()); // a damaged script runs to no end
    script.onerror = fail;
    document.head.append(script);
  }

  function take(key, data) {
    waiting[key]?.(new Samples(data));
    delete waiting[key];
  }

  const home = {...address.kept(), opened: (name) => (document.title = `${name} · heatmap explorer`)};
  // The scripts of the categories need `mafr` as soon as they run.
  queueMicrotask(() => {
    const explorer = mountExplorer(document, settings, load, home);
    addEventListener("hashchange", () => explorer.open(home.read()));
  });
  return {take};
})();
