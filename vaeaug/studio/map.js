// The latents in the plane: a point for each sample, a rectangle that chooses some.
import { colour, focusCell, setBrush, state } from "./page.js";

const canvas = document.getElementById("map"), MARGIN = 14;
let scale = null, drag = null, keyed = null, pending = 0;

function fitted() {
  const { x, y } = state.columns, { n } = state.header;
  let [x0, y0, x1, y1] = [Infinity, Infinity, -Infinity, -Infinity];
  for (let i = 0; i < n; i++) {
    if (Number.isNaN(x[i])) continue;
    if (x[i] < x0) x0 = x[i];
    if (x[i] > x1) x1 = x[i];
    if (y[i] < y0) y0 = y[i];
    if (y[i] > y1) y1 = y[i];
  }
  return [x0, y0, Math.max(x1, x0 + 1e-6), Math.max(y1, y0 + 1e-6)];
}

export function drawMap() {
  if (canvas.closest("section").hidden) return;
  cancelAnimationFrame(pending);
  pending = requestAnimationFrame(draw);
}

function draw() {
  const ratio = devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
  if (!width || !height) return;
  canvas.width = width * ratio;
  canvas.height = height * ratio;
  const pen = canvas.getContext("2d"), style = getComputedStyle(document.documentElement);
  pen.scale(ratio, ratio);
  const [x0, y0, x1, y1] = fitted(), { x, y, label } = state.columns, { n } = state.header;
  const kx = (width - 2 * MARGIN) / (x1 - x0), ky = (height - 2 * MARGIN) / (y1 - y0);
  scale = {
    of: (a, b) => [MARGIN + (a - x0) * kx, height - MARGIN - (b - y0) * ky],
    back: (u, v) => [x0 + (u - MARGIN) / kx, y0 + (height - MARGIN - v) / ky],
    box: [x0, y0, x1, y1],
  };
  const shown = new Uint8Array(n), size = Math.min(8, Math.max(1.5, 0.2 * Math.sqrt((width * height) / n)));
  for (const i of state.view) if (i < n) shown[i] = 1;
  const quiet = style.getPropertyValue("--line"), colours = state.header.class_names.map((_, k) => colour(k));
  for (const wanted of [0, 1]) {
    for (let i = 0; i < n; i++) {
      if (shown[i] !== wanted || Number.isNaN(x[i])) continue;
      const [u, v] = scale.of(x[i], y[i]);
      pen.fillStyle = wanted ? colours[label[i]] : quiet;
      pen.globalAlpha = wanted && state.out[i] ? 0.25 : wanted ? 0.85 : 0.7;
      pen.fillRect(u - size / 2, v - size / 2, size, size);
    }
  }
  pen.globalAlpha = 1;
  const current = state.view[state.current];
  if (current < n && !Number.isNaN(x[current])) {
    const [u, v] = scale.of(x[current], y[current]);
    pen.strokeStyle = style.getPropertyValue("--ink");
    pen.lineWidth = 2;
    pen.beginPath();
    pen.arc(u, v, 6, 0, 7);
    pen.stroke();
  }
  const box = drag ?? (state.brush && [...scale.of(state.brush[0], state.brush[3]), ...scale.of(state.brush[2], state.brush[1])]);
  if (box) {
    pen.strokeStyle = style.getPropertyValue("--accent");
    pen.lineWidth = 1.5;
    pen.strokeRect(Math.min(box[0], box[2]), Math.min(box[1], box[3]), Math.abs(box[2] - box[0]), Math.abs(box[3] - box[1]));
  }
}

const at = (event) => {
  const box = canvas.getBoundingClientRect();
  return [event.clientX - box.left, event.clientY - box.top];
};

export function setUpMap() {
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    drag = [...at(event), ...at(event)];
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!drag) return;
    [drag[2], drag[3]] = at(event);
    drawMap();
  });
  const end = (event) => {
    if (!drag) return;
    const [u0, v0, u1, v1] = [drag[0], drag[1], ...at(event)];
    drag = null;
    if (Math.abs(u1 - u0) < 4 || Math.abs(v1 - v0) < 4) return setBrush(null);
    const [a, b] = scale.back(Math.min(u0, u1), Math.max(v0, v1)), [c, d] = scale.back(Math.max(u0, u1), Math.min(v0, v1));
    setBrush([a, b, c, d]);
  };
  canvas.addEventListener("pointerup", end);
  canvas.addEventListener("pointercancel", () => { drag = null; drawMap(); });
  canvas.addEventListener("keydown", (event) => {
    if (event.key === "Escape") { keyed = null; setBrush(null); return; }
    if (event.key === "Enter") { focusCell(); return; }
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    if (!step || !scale) return;
    event.preventDefault();
    const [x0, y0, x1, y1] = scale.box, dx = (step[0] * (x1 - x0)) / 20, dy = (step[1] * (y1 - y0)) / 20;
    keyed = state.brush ?? [x0 + (x1 - x0) * 0.4, y0 + (y1 - y0) * 0.4, x0 + (x1 - x0) * 0.6, y0 + (y1 - y0) * 0.6];
    const [a, b, c, d] = keyed;
    keyed = event.shiftKey ? [a, b, Math.max(a, c + dx), Math.max(b, d + dy)] : [a + dx, b + dy, c + dx, d + dy];
    setBrush(keyed);
  });
  document.getElementById("clear-brush").onclick = () => setBrush(null);
  new ResizeObserver(drawMap).observe(canvas);
}
