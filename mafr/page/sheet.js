"use strict";
// Pictures in the list of samples, drawn when they come near and given back when they leave.
const makeSheet = (element, draw) => {
  let waiting = Promise.resolve();
  const near = new Set(),
    queued = new Set();
  // One after the other, so that what is asked for in between is not held up.
  const add = (canvas) => {
    if (queued.has(canvas)) return;
    queued.add(canvas);
    waiting = waiting.then(async () => {
      await new Promise((done) => setTimeout(done));
      queued.delete(canvas);
      if (near.has(canvas) && canvas.isConnected) await draw(Number(canvas.closest("button").dataset.k), canvas);
    });
    waiting = waiting.catch(() => null); // what cannot be read says so where it is opened
  };
  const watcher = new IntersectionObserver(
    (entries) => {
      for (const {target, isIntersecting} of entries) {
        if (isIntersecting) {
          near.add(target);
          add(target);
        } else if (near.delete(target)) target.width = target.height = 0;
      }
    },
    {rootMargin: "300px"},
  );

  // Anew for all that are in the list now.
  function watch() {
    watcher.disconnect();
    near.clear();
    for (const canvas of element.querySelectorAll("canvas")) watcher.observe(canvas);
  }

  return {watch, end: () => watcher.disconnect()};
};
