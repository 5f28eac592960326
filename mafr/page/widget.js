// The explorer as a widget of Jupyter. The view is held by the model's traits; the kernel sends categories when asked,
// and the first one with the model, so that it is seen while the kernel is still busy with other cells.
const PATIENCE = 15000; // milliseconds that a kernel has to answer
const HELD = {id: "sample"}; // traits of another name than in the view

function render({model, el}) {
  const loaded = new Map(),
    asked = new Map();
  const collected = (bytes) => new Samples(JSON.parse(new TextDecoder().decode(bytes)));

  let wanted = ""; // what was last asked to be shown
  function load(key) {
    wanted = key;
    const one = loaded.get(key) ?? (key === model.get("_first_key") ? first() : ask(key));
    one.catch(() => loaded.delete(key));
    return decode.keep(loaded, key, one, 2); // the one in use and the one before
  }

  const first = async () => collected(model.get("_first"));

  function ask(key) {
    return new Promise((done, failed) => {
      const mine = {done, failed};
      asked.set(key, mine);
      const late = "No answer from the kernel yet: it is busy, or gone. Where it is gone, run the cells again.";
      try {
        model.send({load: key});
      } catch {
        failed(new Error(late));
        return;
      }
      setTimeout(() => asked.get(key) === mine && refused(key, late), PATIENCE);
    });
  }

  // A busy kernel still answers: then what was asked for is shown, unless a hand or a cell has gone on since.
  function refused(key, reason) {
    const before = JSON.stringify(read()),
      [dataset, category] = key.split("/");
    const done = () => {
      const view = read();
      if (wanted !== key || JSON.stringify(view) !== before) return;
      if (view.dataset === dataset && view.category === category) explorer.open(view);
      else explorer.open({...view, dataset, category, id: undefined, kind: "all", find: ""}, true);
    };
    asked.get(key).failed(new Error(reason));
    asked.set(key, {done, failed: () => null});
  }

  function answered({key, error}, buffers) {
    if (!asked.has(key)) return;
    if (error) {
      refused(key, error);
      asked.delete(key);
      return;
    }
    const {done} = asked.get(key),
      one = collected(buffers[0]);
    asked.delete(key);
    loaded.set(key, Promise.resolve(one));
    done(one);
  }

  function read() {
    const view = {...address.VIEW};
    for (const name of Object.keys(view)) {
      const value = model.get(HELD[name] ?? name);
      if (value !== null) view[name] = name === "rate" ? Math.log10(value) : value;
    }
    return view;
  }

  // As Python code, for the notebook.
  const code = (view) => {
    const said = Object.entries(view)
      .filter(([name, value]) => value !== undefined && String(value) !== String(address.VIEW[name]))
      .map(([name, value]) => `${HELD[name] ?? name}=${JSON.stringify(name === "rate" ? 10 ** value : value)}`);
    return `Explorer(config, paths, ${said.join(", ")})`;
  };

  // Only what a hand has changed since, so that what cells set meanwhile stays. What is written here is no news here.
  let writing = false,
    last = {};
  function write(view, byHand) {
    writing = true;
    for (const [name, value] of Object.entries(byHand ? view : {})) {
      if (String(value) !== String(last[name])) {
        model.set(HELD[name] ?? name, name === "rate" ? 10 ** value : (value ?? null));
      }
    }
    if (byHand) model.save_changes();
    last = {...view, methods: [...view.methods]};
    writing = false;
  }

  // Dark where the text around it is light.
  const bright = () => {
    const parts = getComputedStyle(el).color.match(/[\d.]+/g);
    return parts ? 0.3 * parts[0] + 0.6 * parts[1] + 0.1 * parts[2] > 128 : false;
  };

  el.classList.add("mafr-explorer");
  el.dataset.lmSuppressShortcuts = "true"; // letters belong to the explorer, not to JupyterLab's commands
  const root = el.attachShadow({mode: "open"});
  root.innerHTML =
    `<style>:host { display: block; width: 100%; container: explorer / inline-size; --tall: min(46em, 82vh); }\n${STYLE}</style>` +
    MARKUP;
  const link = ["Copy code", "copy the Python code of this view", code];
  const explorer = mountExplorer(root, model.get("_page"), load, {read, write, link, dark: bright()});
  const news = () => writing || explorer.open(read());
  const traits = Object.keys(address.VIEW).map((name) => `change:${HELD[name] ?? name}`);
  for (const one of traits) model.on(one, news);
  model.on("msg:custom", answered);
  const theme = new MutationObserver(() => explorer.dark(bright()));
  theme.observe(document.body, {attributes: true, attributeFilter: ["class", "data-jp-theme-light", "data-theme"]});
  return () => {
    for (const one of traits) model.off(one, news);
    model.off("msg:custom", answered);
    theme.disconnect();
    explorer.end();
  };
}

export default {render};
