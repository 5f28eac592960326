"use strict";
// The list of samples, with sorting, filter and search, and the histogram of their scores.
const list = (() => {
  const SORTS = {
    hardest: ["hardest first", (a, b) => b.hardness - a.hardness || b.score - a.score],
    high: ["score, highest first", (a, b) => b.score - a.score],
    low: ["score, lowest first", (a, b) => a.score - b.score],
    name: ["name", (a, b) => a.id.localeCompare(b.id, undefined, {numeric: true})],
  };
  const number = (value) => String(Number(Number(value).toPrecision(4)));
  const named = (id) => id.replace(/^test\//, "");

  function make(tag, attributes = {}, ...inside) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name === "text") element.textContent = value;
      else element.setAttribute(name, value);
    }
    element.append(...inside);
    return element;
  }

  // rows: {k, id, defect, label, score, hardness}; choose(k) is called with a click.
  function fill(element, rows, {sort, kind, find, bin, current}, choose) {
    const text = find.trim().toLowerCase();
    const kept = rows.filter(
      (row) =>
        (kind === "all" ||
          (kind === "good" ? !row.label : kind === "defective" ? row.label : row.defect === kind)) &&
        (!bin || (row.score >= bin[0] && row.score <= bin[1])) &&
        (!text || row.id.toLowerCase().includes(text) || row.defect.toLowerCase().includes(text)),
    );
    kept.sort(SORTS[sort][1]);
    const top = Math.max(...rows.map((row) => row.score));
    element.replaceChildren(
      ...kept.map((row) => {
        const bar = make("i", {class: row.label ? "bar defective" : "bar good"});
        bar.style.width = `${100 * Math.max(0, row.score / top || 0)}%`;
        const button = make(
          "button",
          {
            type: "button",
            "data-k": row.k,
            title: row.label
              ? `${(100 * row.hardness).toFixed(0)} % of the good samples score higher`
              : `${(100 * row.hardness).toFixed(0)} % of the defective samples score lower`,
          },
          make("b", {text: named(row.id)}),
          make("span", {text: row.defect}),
          make("em", {text: number(row.score)}),
          bar,
        );
        if (row.k === current) button.setAttribute("aria-current", "true");
        button.addEventListener("click", () => choose(row.k));
        return make("li", {}, button);
      }),
    );
    return kept.map((row) => row.k);
  }

  function bringIntoView(box, row) {
    const above = row.offsetTop - box.scrollTop,
      below = above + row.offsetHeight - box.clientHeight;
    if (above < 0) box.scrollTop += above;
    else if (below > 0) box.scrollTop += below;
  }

  const SVG = "http://www.w3.org/2000/svg";
  function shape(tag, attributes, title) {
    const element = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    if (title) element.append(Object.assign(document.createElementNS(SVG, "title"), {textContent: title}));
    return element;
  }

  // Bars of good and defective scores; a click on one gives open([low, high]).
  function histogram(element, rows, current, open, bins = 24) {
    const scores = rows.map((row) => row.score),
      low = Math.min(...scores),
      high = Math.max(...scores);
    const width = (high - low) / bins || 1,
      counts = Array.from({length: bins}, () => [0, 0]);
    const binOf = (score) => Math.min(bins - 1, Math.floor((score - low) / width));
    for (const row of rows) counts[binOf(row.score)][row.label ? 1 : 0]++;
    const top = Math.max(1, ...counts.map(([a, b]) => a + b)),
      W = 300,
      H = 120,
      base = H - 16;
    const parts = [];
    counts.forEach(([good, bad], n) => {
      const from = low + n * width,
        to = from + width,
        x = (W * n) / bins,
        wide = W / bins - 1;
      const name = `${good} good and ${bad} defective, scores ${number(from)} to ${number(to)}`;
      const group = shape(
        "g",
        {class: "bin", tabindex: good + bad ? 0 : -1, role: "button", "aria-label": name},
        name,
      );
      const tall = (count) => (base * count) / top;
      group.append(
        shape("rect", {class: "good", x, width: wide, y: base - tall(good), height: tall(good)}),
        shape("rect", {class: "defective", x, width: wide, y: base - tall(good) - tall(bad), height: tall(bad)}),
        shape("rect", {class: "reach", x, width: wide + 1, y: 0, height: base}),
      );
      const slack = 1e-9 * (Math.abs(low) + Math.abs(high));
      const click = () => good + bad && open([from - slack, to + slack]);
      group.addEventListener("click", click);
      group.addEventListener("keydown", (event) => {
        if (event.key === "Enter" || event.key === " ") click();
      });
      parts.push(group);
    });
    const mine = rows.find((row) => row.k === current);
    if (mine) {
      const x = W * Math.min(1, Math.max(0, (mine.score - low) / (high - low || 1)));
      parts.push(shape("line", {class: "mine", x1: x, x2: x, y1: 0, y2: base}));
    }
    const ends = [
      ["start", 0, low],
      ["end", W, high],
    ].map(([anchor, x, value]) => {
      const text = shape("text", {x, y: H - 3, "text-anchor": anchor});
      text.textContent = number(value);
      return text;
    });
    const label = shape("text", {x: W / 2, y: H - 3, "text-anchor": "middle"});
    label.textContent = "image score";
    element.setAttribute("viewBox", `0 0 ${W} ${H}`);
    element.replaceChildren(...parts, ...ends, label);
  }

  return {SORTS, number, named, make, fill, bringIntoView, histogram};
})();
