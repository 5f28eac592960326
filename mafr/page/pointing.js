"use strict";
// Pointing at the panels inside an element, enlarging and moving them: by mouse, by fingers and by keys, on all alike.
//
// side() and port(): pixels of a sample's side, and the square that is shown; show(port): another one, null the first
// one; cursor(): {u, v} or null; point(k, byKeys): the pixel pointed at, or null.
const makePointing = (element, {side, port, show, cursor, point}) => {
  const STEPS = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]},
    TIMES = {"+": 0.8, "=": 0.8, "-": 1.25};
  const fingers = new Map(); // of a hand or the mouse, where they are on a panel
  let held = null; // by two fingers
  const onPanel = (event) => event.target.matches?.("canvas.panel");

  // The pixel at a place of a panel.
  function pixelAt(canvas, {x, y}) {
    const box = canvas.getBoundingClientRect(),
      {x: left, y: top, width} = port();
    const at = (value, start, length) =>
      Math.min(side() - 1, Math.max(0, Math.floor(start + (width * value) / length)));
    return {u: at(x - box.left, left, box.width), v: at(y - box.top, top, box.height)};
  }
  const pointAt = ({u, v}, byKeys = false) => point(v * side() + u, byKeys);
  const centre = () => {
    const {x, y, width} = port();
    return {u: Math.floor(x + width / 2), v: Math.floor(y + width / 2)};
  };

  // Around the cursor, or the middle of what is shown; factor: of the width of the square, null for the first square.
  function zoom(factor) {
    show(factor === null ? null : panels.zoomed(port(), factor, cursor() ?? centre(), side()));
  }

  function drag(canvas, from, to) {
    const scale = port().width / canvas.clientWidth;
    show(panels.moved(port(), (from.x - to.x) * scale, (from.y - to.y) * scale, side()));
  }

  // What two fingers hold when the second comes: the place between them, and how far apart they are.
  function hold(canvas) {
    const {x, y, width} = port(),
      {share, spread} = between(canvas);
    return {place: {x: x + share.x * width, y: y + share.y * width}, width: width * spread};
  }
  function between(canvas) {
    const box = canvas.getBoundingClientRect(),
      [a, b] = fingers.values();
    return {
      share: {x: ((a.x + b.x) / 2 - box.left) / box.width, y: ((a.y + b.y) / 2 - box.top) / box.height},
      spread: Math.max(1, Math.hypot(a.x - b.x, a.y - b.y)),
    };
  }
  function pinch(canvas) {
    const {share, spread} = between(canvas);
    show(panels.placed(held.place, share, held.width / spread, side()));
  }

  const at = (event) => ({x: event.clientX, y: event.clientY});
  element.addEventListener("pointerdown", (event) => {
    if (!onPanel(event) || event.button !== 0) return;
    fingers.set(event.pointerId, at(event));
    if (fingers.size === 2) held = hold(event.target);
    pointAt(pixelAt(event.target, at(event)));
  });
  element.addEventListener("pointermove", (event) => {
    if (!onPanel(event)) return;
    if (!event.buttons) fingers.delete(event.pointerId);
    const before = fingers.get(event.pointerId);
    if (before) {
      fingers.set(event.pointerId, at(event));
      if (fingers.size === 1) drag(event.target, before, at(event));
      else if (fingers.size === 2) pinch(event.target);
    }
    pointAt(pixelAt(event.target, at(event)));
  });
  for (const name of ["pointerup", "pointercancel"])
    element.addEventListener(name, (event) => fingers.delete(event.pointerId));
  element.addEventListener("pointerleave", (event) => {
    if (event.pointerType !== "touch") point(null); // a tap ends at once: what it says stays
  });
  // Two fingers never move the page; one finger does, up and down.
  for (const name of ["touchstart", "touchmove"]) {
    element.addEventListener(
      name,
      (event) => {
        if (event.touches.length === 2 && onPanel(event) && event.cancelable) event.preventDefault();
      },
      {passive: false},
    );
  }
  element.addEventListener(
    "wheel",
    (event) => {
      if (!onPanel(event)) return;
      event.preventDefault();
      show(panels.zoomed(port(), Math.exp(event.deltaY / 400), pixelAt(event.target, at(event)), side()));
    },
    {passive: false},
  );
  element.addEventListener("dblclick", (event) => {
    if (onPanel(event)) show(null);
  });

  // A panel takes the arrow keys when it was reached by keys; after a click they choose samples, as before it.
  element.addEventListener("mousedown", (event) => {
    if (!onPanel(event)) return;
    event.preventDefault();
    element.closest(".frame").focus({preventScroll: true});
  });
  element.addEventListener("keydown", (event) => {
    const step = STEPS[event.key];
    if (!step || !onPanel(event) || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    event.stopPropagation();
    const by = event.shiftKey ? 10 : 1,
      inside = (value) => Math.min(side() - 1, Math.max(0, value)),
      from = cursor();
    const to = from ? {u: inside(from.u + by * step[0]), v: inside(from.v + by * step[1])} : centre();
    const {x, y, width} = port();
    const out = (value, low) => Math.min(0, value - low) + Math.max(0, value + 1 - low - width);
    show(panels.moved(port(), out(to.u, x), out(to.v, y), side()));
    pointAt(to, true);
  });
  element.addEventListener("focusout", (event) => {
    if (onPanel(event)) point(null);
  });

  return {zoom, zoomOf: (key) => TIMES[key] ?? (key === "0" ? null : undefined)};
};
