// A map with a point to drag: by pointer, or by the arrow keys. Its value is [x, y] in the plane's coordinates, of
// which 'input' tells; so the last of many is known to who gets to asking only now and then.
const board = () => element.querySelector(".board");
const ends = () => {
  const data = board().dataset;
  return [+data.x0, +data.x1, +data.y0, +data.y1];
};
let at = [0, 0];

function place(x, y) {
  const [x0, x1, y0, y1] = ends();
  const box = board().querySelector("svg").viewBox.baseVal;
  at = [x, y];
  const across = ((x - x0) / (x1 - x0)) * box.width;
  const down = (1 - (y - y0) / (y1 - y0)) * box.height;
  board().querySelector(".marker").setAttribute("transform", `translate(${across.toFixed(1)} ${down.toFixed(1)})`);
}

function move(x, y) {
  const [x0, x1, y0, y1] = ends();
  place(Math.min(x1, Math.max(x0, x)), Math.min(y1, Math.max(y0, y)));
  props.value = at;
  trigger("input");
}

function follow(event) {
  const [x0, x1, y0, y1] = ends();
  const box = board().querySelector("svg").getBoundingClientRect();
  move(
    x0 + ((event.clientX - box.left) / box.width) * (x1 - x0),
    y0 + (1 - (event.clientY - box.top) / box.height) * (y1 - y0),
  );
}

let held = null;
let waiting = null;
element.addEventListener("pointerdown", (event) => {
  if (!event.target.closest(".board svg") || event.button !== 0) return;
  held = event.pointerId;
  element.setPointerCapture(held);
  follow(event);
});
element.addEventListener("pointermove", (event) => {
  if (event.pointerId !== held) return;
  if (waiting === null) requestAnimationFrame(() => { const last = waiting; waiting = null; if (last) follow(last); });
  waiting = event;
});
for (const name of ["pointerup", "pointercancel"]) {
  element.addEventListener(name, (event) => { if (event.pointerId === held) held = null; });
}
const KEYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
element.addEventListener("keydown", (event) => {
  const step = KEYS[event.key];
  if (!step || !event.target.closest(".board")) return;
  event.preventDefault();
  const [x0, x1, y0, y1] = ends();
  const share = event.shiftKey ? 0.1 : 0.02;
  move(at[0] + step[0] * share * (x1 - x0), at[1] + step[1] * share * (y1 - y0));
});
element.addEventListener("change", (event) => {
  if (event.target.tagName !== "SELECT") return;
  for (const layer of element.querySelectorAll("[data-layer]")) {
    layer.toggleAttribute("hidden", layer.dataset.layer !== event.target.value);
  }
});
const settle = () => place(props.value[0], props.value[1]);
watch("value", settle);
settle();
