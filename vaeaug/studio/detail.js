// One sample at its pixels, beside the image it was made from and the nearest real one.
import { className, colour, far, focusCell, isOut, isRejected, move, number, show, state, throwOut } from "./page.js";

const $ = (id) => document.getElementById(id);
const KINDS = ["sample", "source", "nearest"];
let zoom = 0, place = 0, shown = 0;

const current = () => state.view[state.current];
const frameOf = (kind) => document.querySelector(`figure[data-kind=${kind}] .frame`);

export function openDetail() {
  if (current() === undefined) return;
  zoom = 0;
  const { kind, shape } = state.header;
  $("place-field").hidden = kind !== "volume";
  if (kind === "volume") {
    $("place").max = shape[0] - 1;
    place = Math.min(place || Math.floor(shape[0] / 2), shape[0] - 1);
  }
  document.querySelector(".figures").classList.toggle("signals", kind === "signal");
  document.querySelector(".figures").classList.toggle("sounds", Boolean(state.header.sample_rate));
  for (const part of document.querySelectorAll(".images-only")) part.hidden = kind === "signal";
  if (!$("detail").open) $("detail").showModal();
  fill();
}

async function fill() {
  const i = current(), mine = ++shown, { p_label, distance, source, nn_index, sampler, reason } = state.columns;
  $("detail-title").textContent = `Class ${className(i)}, ${number(i)}`;
  const button = $("detail-throw"), out = isOut(i);
  button.textContent = out ? "Bring back (x)" : "Throw out (x)";
  button.classList.toggle("back", out);
  button.hidden = isRejected(i);
  $("pixel").textContent = "";
  $("place").value = place;
  $("place-value").textContent = state.header.kind === "volume" ? `${place + 1} of ${state.header.shape[0]}` : "";
  const rows = { sample: out ? "thrown out" : isRejected(i) ? "rejected" : "", source: source[i] < 0 ? "" : `row ${source[i]}`, nearest: nn_index[i] < 0 ? "" : `row ${nn_index[i]}, distance ${far(distance[i])}` };
  for (const kind of KINDS) {
    document.querySelector(`figure[data-kind=${kind}] figcaption span`).textContent = rows[kind];
    const missing = kind === "source" && source[i] < 0 ? "Drawn from a density: made from no single image." : kind === "nearest" && nn_index[i] < 0 ? "Not measured." : kind !== "sample" && !state.header.has_data ? "The data of the run was not found. Start vaeaug studio with --data to see real samples." : "";
    if (missing) frameOf(kind).replaceChildren(Object.assign(document.createElement("p"), { textContent: missing }));
    else if (state.header.kind === "signal") await drawSignal(kind, i, mine);
    else drawImage(kind, i, mine);
  }
  const facts = [["Class", className(i)], ["p(label)", show(p_label[i], 4)], ["Distance to nearest real", far(distance[i])]];
  if (sampler[i] >= 0) facts.push(["Drawn by", state.header.samplers[sampler[i]]]);
  if (reason[i] >= 0) facts.push(["Rejected because", state.header.reasons[reason[i]]]);
  const answer = await fetch(`facts/${i}`);
  if (mine !== shown) return;
  if (answer.ok) {
    const more = await answer.json();
    if (more.shard) facts.push(["Shard", `${more.shard.split("/").pop()}, row ${more.row}`], ["Loss weight", String(more.weight)]);
    facts.push(["Seed", more.seed]);
  }
  $("facts").replaceChildren(...facts.map(([name, value]) => {
    const box = document.createElement("div");
    box.append(Object.assign(document.createElement("dt"), { textContent: name }), Object.assign(document.createElement("dd"), { textContent: value }));
    return box;
  }));
}

function drawImage(kind, i, mine) {
  const image = new Image(), frame = frameOf(kind);
  image.onload = () => {
    if (mine !== shown) return;
    const canvas = document.createElement("canvas");
    canvas.width = image.naturalWidth;
    canvas.height = image.naturalHeight;
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `${frame.parentElement.querySelector("b").textContent}, ${image.naturalWidth} by ${image.naturalHeight} pixels`);
    const pen = canvas.getContext("2d", { willReadFrequently: true });
    pen.drawImage(image, 0, 0);
    canvas.onpointermove = (event) => {
      const box = canvas.getBoundingClientRect();
      const x = Math.min(canvas.width - 1, Math.max(0, Math.floor(((event.clientX - box.left) / box.width) * canvas.width)));
      const y = Math.min(canvas.height - 1, Math.max(0, Math.floor(((event.clientY - box.top) / box.height) * canvas.height)));
      const values = KINDS.map((each) => frameOf(each).querySelector("canvas")).map((each) => each && read(each, x, y));
      $("pixel").textContent = `Row ${y}, column ${x}: ${KINDS.map((each, k) => values[k] && `${each} ${values[k]}`).filter(Boolean).join(" · ")}`;
    };
    frame.replaceChildren(canvas);
    resize();
  };
  image.onerror = () => frame.replaceChildren(Object.assign(document.createElement("p"), { textContent: "This image cannot be shown." }));
  image.src = `picture/${kind}/${i}${state.header.kind === "volume" ? `?place=${place}` : ""}`;
}

function read(canvas, x, y) {
  if (x >= canvas.width || y >= canvas.height) return "";
  const [r, g, b] = canvas.getContext("2d").getImageData(x, y, 1, 1).data;
  return r === g && g === b ? String(r) : `${r}, ${g}, ${b}`;
}

function resize() {
  const frames = [...document.querySelectorAll(".frame")].filter((frame) => frame.querySelector("canvas"));
  if (!frames.length) return;
  const tall = innerHeight * (innerWidth > 760 ? 0.56 : 0.38);
  for (const frame of frames) {
    const canvas = frame.querySelector("canvas"), fit = Math.min(frame.clientWidth / canvas.width, tall / canvas.height);
    const scale = zoom || (fit >= 1 ? Math.floor(fit) : fit);
    canvas.style.width = `${canvas.width * scale}px`;
    canvas.style.height = `${canvas.height * scale}px`;
    canvas.style.imageRendering = scale < 1 ? "auto" : "pixelated";
    if (frame !== frames[0]) continue;
    $("scale").textContent = scale < 1 ? `${Math.round(100 * scale)} %` : `${scale}×`;
    $("scale").dataset.value = scale;
  }
}

function zoomBy(step) {
  const now = Number($("scale").dataset.value) || 1;
  zoom = step > 0 ? Math.min(64, now < 1 ? 1 : Math.floor(now) + Math.max(1, Math.floor(now / 4))) : Math.max(1, Math.ceil(now) - Math.max(1, Math.floor(now / 5)));
  resize();
}

async function drawSignal(kind, i, mine) {
  const answer = await fetch(`curves/${kind}/${i}`), frame = frameOf(kind);
  if (mine !== shown) return;
  if (!answer.ok) return frame.replaceChildren(Object.assign(document.createElement("p"), { textContent: await answer.text() }));
  const { channels, length } = await answer.json(), [low, high] = state.header.value_range, space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  svg.setAttribute("viewBox", "0 0 1000 100");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", `Curve of ${length.toLocaleString("en")} values, ${channels.length} channels, from ${low} to ${high}`);
  if (low < 0 && high > 0) {
    const zero = document.createElementNS(space, "line"), y = 100 - (100 * -low) / (high - low);
    for (const [name, value] of [["x1", 0], ["x2", 1000], ["y1", y], ["y2", y], ["class", "zero"]]) zero.setAttribute(name, value);
    svg.append(zero);
  }
  channels.slice(0, 64).reverse().forEach((values, c) => {
    const line = document.createElementNS(space, "polyline");
    line.setAttribute("points", values.map((value, k) => value === null ? "" : `${((k / Math.max(1, values.length - 1)) * 1000).toFixed(1)},${(100 - (100 * (value - low)) / (high - low)).toFixed(2)}`).join(" "));
    line.style.stroke = channels.length === 1 ? "var(--accent)" : colour(Math.min(channels.length, 64) - 1 - c);
    svg.append(line);
  });
  const parts = [svg];
  if (state.header.has_spectrogram) parts.push(Object.assign(document.createElement("img"), { src: `picture/${kind}/${i}`, alt: "Spectrogram, low frequencies at the bottom" }));
  if (state.header.sample_rate) {
    const audio = Object.assign(document.createElement("audio"), { controls: true, preload: "none", src: `sound/${kind}/${i}` });
    audio.setAttribute("aria-label", `Listen to: ${frame.parentElement.querySelector("b").textContent}`);
    parts.push(audio);
  }
  frame.replaceChildren(...parts);
}

function step(by) {
  const to = state.current + by;
  if (to < 0 || to >= state.view.length) return;
  move(to, { focus: false });
  fill();
}

function slice(by) {
  const most = state.header.shape[0] - 1;
  place = Math.min(most, Math.max(0, place + by));
  fill();
}

function throwThis() {
  state.chosen.clear();
  throwOut();
  if (current() === undefined) $("detail").close();
  else fill();
}

export function setUpDetail() {
  const dialog = $("detail");
  dialog.addEventListener("close", () => { shown++; for (const kind of KINDS) frameOf(kind).replaceChildren(); focusCell(); });
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  $("close").onclick = () => dialog.close();
  $("previous").onclick = () => step(-1);
  $("next").onclick = () => step(1);
  $("larger").onclick = () => zoomBy(1);
  $("smaller").onclick = () => zoomBy(-1);
  $("detail-throw").onclick = throwThis;
  $("place").oninput = () => { place = Number($("place").value); fill(); };
  addEventListener("resize", () => { if (dialog.open) resize(); });
  dialog.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const inPlayer = event.target.matches("audio, input");
    const volume = state.header.kind === "volume";
    const action = {
      ArrowLeft: inPlayer ? null : () => step(-1), ArrowRight: inPlayer ? null : () => step(1),
      ArrowUp: volume && !inPlayer ? () => slice(1) : null, ArrowDown: volume && !inPlayer ? () => slice(-1) : null,
      "+": () => zoomBy(1), "=": () => zoomBy(1), "-": () => zoomBy(-1), x: throwThis,
    }[event.key];
    if (action) { event.preventDefault(); action(); }
  });
}
