"use strict";
// The list of samples, with sorting, filter and search, and the histogram of their scores.
const list = (() => {
  const ORDERS = {
    hardest: (a, b) => b.hardness - a.hardness || b.score - a.score,
    high: (a, b) => b.score - a.score,
    low: (a, b) => a.score - b.score,
    near: (a, b) => a.distance - b.distance,
    name: (a, b) => a.id.localeCompare(b.id, undefined, {numeric: true}),
    time: (a, b) => a.k - b.k,
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

  // A name, cut where it is too long at its beginning: see explorer.css. Inside, letters keep their own order.
  const name = (text) => make("b", {}, make("bdi", {dir: "ltr", text}));

  // rows: {k, id, defect, label, score, hardness, tip}; choose(k) is called with a click. line: the two words that stand
  // above and below the threshold. Returns the rows that are shown, by their k.
  function fill(element, rows, {sort, find, bin, threshold = NaN, line}, choose) {
    const text = find.trim().toLowerCase();
    const kept = rows.filter(
      (row) =>
        (!bin || (row.score >= bin[0] && row.score <= bin[1])) &&
        (!text || row.id.toLowerCase().includes(text) || row.defect.toLowerCase().includes(text)),
    );
    for (const row of kept) row.distance = Math.abs(row.score - threshold);
    kept.sort(ORDERS[sort]);
    const low = Math.min(0, ...rows.map((row) => row.score)),
      top = Math.max(...rows.map((row) => row.score)) - low;
    const items = kept.map((row) => {
      const bar = make("i", {class: row.label ? "bar defective" : "bar good"});
      bar.style.width = `${100 * Math.max(0, (row.score - low) / top || 0)}%`;
      const button = make(
        "button",
        {type: "button", "data-k": row.k, title: row.tip, class: row.label ? "bad" : "fine"},
        make("canvas", {role: "img", "aria-label": `${row.id} with its map`}),
        name(named(row.id)),
        make("span", {text: row.defect}),
        make("em", {text: number(row.score)}),
        bar,
      );
      button.addEventListener("click", () => choose(row.k));
      return make("li", {}, button);
    });
    const place = kept.findIndex(({score}) => score > threshold !== kept[0].score > threshold);
    if (line && place > 0 && ["high", "low"].includes(sort)) {
      const [above, below] = sort === "high" ? line : [...line].reverse();
      const said = `↑ ${above} · threshold ${number(threshold)} · ${below} ↓`;
      items.splice(place, 0, make("li", {class: "line", text: said}));
    }
    if (!kept.length) items.push(make("li", {class: "line", text: "nothing fits"}));
    element.replaceChildren(...items);
    return kept.map((row) => row.k);
  }

  // Marks the row of a sample, brings it into view, and gives it the list's place in the order of tabs.
  function mark(element, k) {
    const buttons = [...element.querySelectorAll("button")],
      row = buttons.find((one) => Number(one.dataset.k) === k);
    element.querySelector("[aria-current]")?.removeAttribute("aria-current");
    row?.setAttribute("aria-current", "true");
    for (const one of buttons) one.tabIndex = one === (row ?? buttons[0]) ? 0 : -1;
    if (row) bringIntoView(element, row.parentElement); // not by the browser: it moves the page too
    return row;
  }

  // Scans without a score, with the reason, after all others.
  function addUnread(element, unread) {
    if (unread.length && !element.querySelector("button")) element.replaceChildren();
    for (const {id, reason} of unread) {
      element.append(make("li", {class: "unread"}, name(id), make("span", {text: `! ${reason}`})));
    }
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

  // Bars of good and defective scores; a click on one gives open([low, high]). threshold: a line; validation: scores of
  // other parts, as ticks. The axis is logarithmic where the scores are far apart.
  function histogram(element, rows, current, {threshold = NaN, validation = []}, open, bins = 24) {
    const scores = rows.map((row) => row.score),
      marked = [...scores, ...validation, threshold].filter(isFinite),
      far = Math.min(...marked) > 0 && Math.max(...marked) > 30 * Math.min(...marked);
    const turn = far ? Math.log : (value) => value,
      low = turn(Math.min(...marked)),
      high = turn(Math.max(...marked));
    const width = (high - low) / bins || 1,
      back = far ? Math.exp : (value) => value,
      counts = Array.from({length: bins}, () => [0, 0]);
    const binOf = (score) => Math.min(bins - 1, Math.floor((turn(score) - low) / width));
    for (const row of rows) counts[binOf(row.score)][row.label ? 1 : 0]++;
    const top = Math.max(1, ...counts.map(([a, b]) => a + b)),
      W = 300,
      H = 280,
      base = H - 22;
    const parts = [],
      placeOf = (score) => (W * (turn(score) - low)) / (high - low || 1);
    counts.forEach(([good, bad], n) => {
      const from = back(low + n * width),
        to = back(low + (n + 1) * width),
        x = (W * n) / bins,
        wide = W / bins - 1;
      const name = `${good} good and ${bad} defective, scores ${number(from)} to ${number(to)}`;
      const some = good + bad > 0 ? {tabindex: 0, role: "button", "aria-label": name} : {};
      const group = shape("g", {class: "bin", ...some}, name);
      const tall = (count) => (base * count) / top;
      group.append(
        shape("rect", {class: "good", x, width: wide, y: base - tall(good), height: tall(good)}),
        shape("rect", {class: "defective", x, width: wide, y: base - tall(good) - tall(bad), height: tall(bad)}),
        shape("rect", {class: "reach", x, width: wide + 1, y: 0, height: base}),
      );
      const slack = 1e-9 * (Math.abs(from) + Math.abs(to));
      const click = () => good + bad && open([from - slack, to + slack]);
      group.addEventListener("click", click);
      group.addEventListener("keydown", (event) => {
        if (event.key !== "Enter" && event.key !== " ") return;
        event.preventDefault();
        click();
      });
      parts.push(group);
    });
    const upright = (kind, score, from) => {
      const x = placeOf(score);
      parts.push(shape("line", {class: kind, x1: x, x2: x, y1: from, y2: base}));
    };
    for (const score of validation) upright("validation", score, base - 12);
    if (isFinite(threshold)) upright("threshold", threshold, 0);
    const mine = rows.find((row) => row.k === current);
    if (mine) upright("mine", mine.score, 0);
    const ends = [
      ["start", 0, low],
      ["end", W, high],
    ].map(([anchor, x, value]) => {
      const text = shape("text", {x, y: H - 5, "text-anchor": anchor});
      text.textContent = number(back(value));
      return text;
    });
    const label = shape("text", {x: W / 2, y: H - 5, "text-anchor": "middle"});
    label.textContent = far ? "image score (logarithmic)" : "image score";
    element.setAttribute("viewBox", `0 0 ${W} ${H}`);
    element.replaceChildren(...parts, ...ends, label);
  }

  return {number, named, make, fill, mark, addUnread, histogram};
})();
