// Every sample of a run in a grid of which only what is visible exists, and what is thrown out.
import { openDetail, setUpDetail } from "./detail.js";
import { drawMap, setUpMap } from "./map.js";

const $ = (id) => document.getElementById(id);
const GAP = 8, NOTE = 20, OVERSCAN = 2, BATCH = 96, MOST_TILES = 6000, AT_ONCE = 3, SAVE_AFTER = 250;

export const state = {
  header: null, columns: {}, published: null, view: new Uint32Array(0), out: null, chosen: new Set(), current: 0,
  brush: null, classes: null, samplers: null, reasons: null,
};
const wide = { low: { p_label: 0, distance: 0 }, high: { p_label: 1, distance: 1 } };
const layout = { columns: 1, rows: 0, row: 100, side: 84, tall: 84 };
const lines = new Map(), tiles = new Map(), batches = [], waiting = new Set();
let countClasses = () => {};
let inFlight = 0, drawn = 0, anchor = -1, saveTimer = 0, undoable = [], saving = false, again = false, unsaved = false;

export const number = (i) => (i < state.header.n ? `#${i}` : `rejected #${i - state.header.n}`);
export const className = (i) => state.header.class_names[state.columns.label[i]];
export const isRejected = (i) => i >= state.header.n;
export const isOut = (i) => !isRejected(i) && state.out[i] === 1;
export const show = (value, digits = 2) => (Number.isFinite(value) ? value.toFixed(digits) : "not measured");
export const far = (value) => (Number.isFinite(value) ? String(Number(value.toPrecision(3))) : "not measured");
export const colour = (label) => {
  const hue = (label * 137.508 + 210) % 360, dark = matchMedia("(prefers-color-scheme: dark)").matches;
  return `oklch(${(dark ? 0.74 : 0.56) + (label % 2) * 0.06} ${0.13 + (label % 3) * 0.02} ${hue.toFixed(1)})`;
};

async function load() {
  const answer = await fetch("columns");
  if (!answer.ok) throw new Error(await answer.text());
  const buffer = await answer.arrayBuffer();
  const length = new DataView(buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  const n = header.n + header.n_rejected;
  header.columns.forEach(([name, type], place) => {
    const Kind = type === "<f4" ? Float32Array : Int32Array;
    state.columns[name] = new Kind(buffer, 4 + length + 4 * n * place, n);
  });
  state.header = header;
  state.out = new Uint8Array(header.n);
  for (const i of header.excluded) state.out[i] = 1;
  drawn = header.excluded.length;
  state.published = new Uint8Array(header.n);
  for (const i of header.published) state.published[i] = 1;
}

// --- filters

function setUpFilters() {
  const { class_names, samplers, reasons, n } = state.header, { label, sampler, reason } = state.columns;
  const counted = (column, k, from = 0, to = n) => {
    const counts = new Uint32Array(k);
    for (let i = from; i < to; i++) if (column[i] >= 0) counts[column[i]]++;
    return counts;
  };
  state.classes = new Uint8Array(class_names.length).fill(1);
  state.samplers = new Uint8Array(samplers.length).fill(1);
  state.reasons = new Uint8Array(reasons.length).fill(1);
  const end = n + state.header.n_rejected;
  options($("classes").querySelector(".options"), class_names, counted(label, class_names.length), state.classes, true);
  options($("samplers").querySelector(".options"), samplers, counted(sampler, samplers.length), state.samplers);
  options($("reasons"), reasons, counted(reason, reasons.length, n, end), state.reasons);
  const ofClasses = { false: counted(label, class_names.length), true: counted(label, class_names.length, n, end) };
  countClasses = () => $("classes").querySelectorAll(".options small").forEach((count, k) => {
    count.textContent = ofClasses[shownKind() === "rejected"][k].toLocaleString("en");
  });
  for (const button of $("classes").querySelectorAll("[data-all]")) {
    button.onclick = () => {
      const on = Number(button.dataset.all);
      for (const box of $("classes").querySelectorAll(".options label:not([hidden]) input")) {
        box.checked = on === 1;
        state.classes[Number(box.value)] = on;
      }
      refresh();
    };
  }
  const real = state.columns.distance.filter((d) => Number.isFinite(d));
  wide.high.distance = real.reduce((most, d) => Math.max(most, d), 0) || 1;
  for (const name of ["p_label", "distance"]) {
    const box = $(`range-${name}`), [low, high] = box.querySelectorAll("input");
    low.oninput = () => { if (+low.value > +high.value) low.value = high.value; refresh(); };
    high.oninput = () => { if (+high.value < +low.value) high.value = low.value; refresh(); };
  }
  $("search").oninput = () => refresh();
  $("search").onkeydown = (event) => {
    if (event.key === "Enter") { event.preventDefault(); jump(); }
    if (event.key === "Escape") { $("search").value = ""; refresh(); focusCell(); }
  };
  $("filters").onsubmit = (event) => event.preventDefault();
  for (const radio of document.getElementsByName("show")) radio.onchange = () => refresh({ top: true });
  $("order").onchange = () => refresh({ top: true });
  $("direction").onclick = () => {
    const down = $("direction").getAttribute("aria-pressed") !== "true";
    $("direction").setAttribute("aria-pressed", down);
    $("direction").textContent = down ? "↓" : "↑";
    refresh({ top: true });
  };
  $("size").oninput = () => { measure(); render(true); reveal(state.current); };
  $("reset-filters").onclick = $("empty-reset").onclick = reset;
}

function options(box, names, counts, chosen, coloured = false) {
  names.forEach((name, i) => {
    const label = document.createElement("label");
    const input = Object.assign(document.createElement("input"), { type: "checkbox", checked: true, value: i });
    input.onchange = () => { chosen[i] = Number(input.checked); refresh(); };
    const text = Object.assign(document.createElement("span"), { className: "name", textContent: name, title: name });
    const count = Object.assign(document.createElement("small"), { textContent: counts[i].toLocaleString("en") });
    label.append(input);
    if (coloured) {
      const swatch = Object.assign(document.createElement("span"), { className: "swatch" });
      swatch.style.background = colour(i);
      label.append(swatch);
    }
    label.append(text, count);
    box.append(label);
  });
}

function reset() {
  $("filters").reset();
  $("direction").setAttribute("aria-pressed", "false");
  $("direction").textContent = "↑";
  for (const flags of [state.classes, state.samplers, state.reasons]) flags.fill(1);
  state.brush = null;
  measure();
  refresh();
}

const shownKind = () => document.querySelector("input[name=show]:checked").value;

function limits(name) {
  const [low, high] = $(`range-${name}`).querySelectorAll("input");
  const least = wide.low[name], span = wide.high[name] - least;
  // At its end a thumb lets everything pass, what was not measured too.
  return [+low.value === 0 ? -Infinity : least + (low.value / 1000) * span,
    +high.value === 1000 ? Infinity : least + (high.value / 1000) * span];
}

function passing() {
  const { label, p_label, distance, sampler, reason, source, x, y } = state.columns, { n, n_rejected } = state.header;
  const kind = shownKind(), query = $("search").value.trim().toLowerCase();
  const named = query && !query.startsWith("#")
    ? state.header.class_names.map((name) => name.toLowerCase().includes(query)) : null;
  const [p0, p1] = limits("p_label"), [d0, d1] = limits("distance"), brush = state.brush;
  const all = { p_label: p0 === -Infinity && p1 === Infinity, distance: d0 === -Infinity && d1 === Infinity };
  const [from, to] = kind === "rejected" ? [n, n + n_rejected] : [0, n];
  const found = new Uint32Array(to - from);
  let m = 0;
  for (let i = from; i < to; i++) {
    if (!state.classes[label[i]] || (named && !named[label[i]])) continue;
    if (kind === "rejected") { if (!state.reasons[reason[i]]) continue; }
    else {
      if (!state.samplers[sampler[i]]) continue;
      if (kind === "kept" ? state.out[i] : kind === "out" && !state.out[i]) continue;
      if (brush && !(x[i] >= brush[0] && x[i] <= brush[2] && y[i] >= brush[1] && y[i] <= brush[3])) continue;
    }
    if (!all.p_label && !(p_label[i] >= p0 && p_label[i] <= p1)) continue;
    if (!all.distance && !(distance[i] >= d0 && distance[i] <= d1)) continue;
    found[m++] = i;
  }
  const view = found.slice(0, m), order = $("order").value;
  const down = $("direction").getAttribute("aria-pressed") === "true";
  if (order !== "number") {
    const key = order === "source" ? source : state.columns[order];
    // What was not measured comes last, whichever way.
    const value = (i) => (Number.isNaN(key[i]) ? Infinity : down ? -key[i] : key[i]);
    view.sort((a, b) => value(a) - value(b) || a - b);
  } else if (down) view.reverse();
  return view;
}

export function refresh({ top = false } = {}) {
  const before = top ? undefined : state.view[state.current];
  state.view = passing();
  const place = before === undefined ? -1 : state.view.indexOf(before);
  state.current = Math.max(0, place);
  anchor = -1;
  state.chosen.clear();
  describe();
  measure();
  if (place < 0) $("grid").scrollTop = 0;
  render(true);
  drawMap();
  say(`${state.view.length.toLocaleString("en")} samples shown`);
}

function describe() {
  const { n, n_rejected } = state.header, shown = state.view.length, of = shownKind() === "rejected" ? n_rejected : n;
  $("count").textContent = `${shown.toLocaleString("en")} of ${of.toLocaleString("en")} shown, ${drawn.toLocaleString("en")} thrown out${state.out.some((value, i) => value !== state.published[i]) ? " (not published)" : ""}`;
  const counts = { all: n, kept: n - drawn, out: drawn, rejected: n_rejected };
  for (const [name, count] of Object.entries(counts)) $(`n-${name}`).textContent = count.toLocaleString("en");
  countClasses();
  $("samplers").hidden = state.header.samplers.length < 2 || shownKind() === "rejected";
  $("reasons").hidden = shownKind() !== "rejected" || !n_rejected;
  $("empty").hidden = shown > 0;
  $("done").textContent = `Show ${shown.toLocaleString("en")} samples`;
  $("clear-brush").hidden = !state.brush;
  const query = $("search").value.trim().toLowerCase();
  for (const box of $("classes").querySelectorAll(".options label")) {
    box.hidden = Boolean(query) && !query.startsWith("#") && !box.querySelector(".name").textContent.toLowerCase().includes(query);
  }
  for (const name of ["p_label", "distance"]) histogram(name);
  describeFocused();
}

function histogram(name) {
  const box = $(`range-${name}`), canvas = box.querySelector("canvas"), output = box.querySelector("output");
  const values = state.columns[name], [low, high] = limits(name), least = wide.low[name], span = wide.high[name] - least;
  const { n, n_rejected } = state.header, [from, to] = shownKind() === "rejected" ? [n, n + n_rejected] : [0, n];
  const bins = new Uint32Array(48);
  for (let i = from; i < to; i++) {
    const at = (values[i] - least) / span;
    if (at >= 0) bins[Math.min(47, Math.floor(at * 48))]++;
  }
  const ratio = devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
  if (width) {
    canvas.width = width * ratio;
    canvas.height = height * ratio;
    const pen = canvas.getContext("2d"), style = getComputedStyle(document.documentElement);
    // Roots: one full bin does not hide the others.
    const most = Math.sqrt(Math.max(1, ...bins));
    bins.forEach((count, i) => {
      const middle = least + ((i + 0.5) / 48) * span, tall = count ? Math.max(1.5, (Math.sqrt(count) / most) * (height - 8)) : 0;
      pen.fillStyle = style.getPropertyValue(middle >= low && middle <= high ? "--accent" : "--line");
      pen.fillRect((i * width * ratio) / 48 + 1, (height - 4 - tall) * ratio, (width * ratio) / 48 - 1.5, tall * ratio);
    });
  }
  const digits = Math.max(2, 1 - Math.floor(Math.log10(span)));
  output.textContent = `${Math.max(least, low).toFixed(digits)} to ${Math.min(wide.high[name], high).toFixed(digits)}`;
}

function jump() {
  const match = /^#\s*(\d+)$/.exec($("search").value.trim());
  if (match) {
    const at = state.view.indexOf(Number(match[1]));
    if (at < 0) return say(`Sample ${match[1]} is not among those shown`);
    move(at);
  } else focusCell();
}

// --- the grid

function measure() {
  const grid = $("grid"), [height, width] = state.header.kind === "signal" ? [12, 22] : state.header.shape.slice(-3, -1);
  const inner = grid.clientWidth - GAP, wanted = Number($("size").value) * (state.header.kind === "signal" ? 1.6 : 1);
  layout.columns = Math.max(1, Math.floor(inner / (wanted + GAP)));
  layout.side = Math.floor(inner / layout.columns) - GAP;
  layout.tall = Math.max(8, Math.round(layout.side * Math.min(2, height / width)));
  const noted = layout.side >= 64;
  grid.classList.toggle("bare", !noted);
  grid.classList.toggle("smooth", state.header.kind === "signal" || Math.max(height, width) > layout.side);
  document.body.classList.toggle("plots", state.header.kind === "signal");
  layout.row = layout.tall + (noted ? NOTE : 0) + GAP;
  layout.rows = Math.ceil(state.view.length / layout.columns);
  grid.style.setProperty("--gap", `${GAP}px`);
  grid.style.setProperty("--side", `${layout.side}px`);
  grid.style.setProperty("--tall", `${layout.tall}px`);
  $("spacer").style.height = `${layout.rows * layout.row + GAP}px`;
  grid.setAttribute("aria-rowcount", layout.rows);
  grid.setAttribute("aria-colcount", layout.columns);
}

function visibleRows(over) {
  const grid = $("grid"), first = Math.floor(grid.scrollTop / layout.row) - over;
  const last = Math.ceil((grid.scrollTop + grid.clientHeight) / layout.row) + over;
  return [Math.max(0, first), Math.min(layout.rows, last)];
}

function render(anew = false) {
  const focused = anew && $("spacer").contains(document.activeElement);
  if (anew) { for (const line of lines.values()) line.remove(); lines.clear(); }
  const [first, last] = visibleRows(OVERSCAN), current = Math.floor(state.current / layout.columns);
  for (const [row, line] of lines) {
    // The focused cell keeps its element, or the focus would be lost.
    if ((row < first || row >= last) && !(row === current && line.contains(document.activeElement))) { line.remove(); lines.delete(row); }
  }
  for (let row = first; row < last; row++) if (!lines.has(row)) lines.set(row, newLine(row));
  if (focused) focusCell();
  fetchSoon();
}

function newLine(row) {
  const line = document.createElement("div");
  line.className = "line";
  line.setAttribute("role", "row");
  line.setAttribute("aria-rowindex", row + 1);
  line.style.transform = `translateY(${row * layout.row + GAP}px)`;
  const from = row * layout.columns, to = Math.min(from + layout.columns, state.view.length);
  for (let at = from; at < to; at++) {
    const i = state.view[at], cell = document.createElement("div");
    cell.className = "cell";
    cell.dataset.at = at;
    cell.setAttribute("role", "gridcell");
    cell.setAttribute("aria-colindex", at - from + 1);
    const canvas = document.createElement("canvas"), note = document.createElement("div");
    note.className = "note";
    note.append(document.createElement("span"), document.createElement("span"));
    note.firstChild.textContent = className(i);
    note.lastChild.textContent = isRejected(i) ? state.header.reasons[state.columns.reason[i]] : Number.isFinite(state.columns.p_label[i]) ? state.columns.p_label[i].toFixed(2) : "";
    note.setAttribute("aria-hidden", "true");
    cell.append(canvas, note);
    line.append(cell);
    dress(cell, i, at);
    paint(cell, i);
  }
  $("spacer").append(line);
  return line;
}

function dress(cell, i, at) {
  const { p_label, distance, reason } = state.columns, out = isOut(i), chosen = state.chosen.has(i);
  cell.classList.toggle("out", out);
  cell.classList.toggle("current", at === state.current);
  cell.tabIndex = at === state.current ? 0 : -1;
  cell.setAttribute("aria-selected", chosen);
  const parts = [`class ${className(i)}`, isRejected(i) ? number(i) : `sample ${i}`, `p(label) ${show(p_label[i])}`, `distance ${far(distance[i])}`];
  if (isRejected(i)) parts.push(`rejected: ${state.header.reasons[reason[i]]}`);
  if (out) parts.push("thrown out");
  cell.setAttribute("aria-label", parts.join(", "));
}

const cellAt = (at) => lines.get(Math.floor(at / layout.columns))?.children[at % layout.columns];

function dressAll() {
  for (const line of lines.values()) for (const cell of line.children) dress(cell, state.view[cell.dataset.at], Number(cell.dataset.at));
  describeFocused();
}

// --- tiles

function paint(cell, i) {
  const tile = tiles.get(i), canvas = cell.firstChild;
  if (!tile) { waiting.add(i); return; }
  if (canvas.dataset.of === String(i)) return;
  canvas.dataset.of = i;
  canvas.width = tile.width;
  canvas.height = tile.height;
  canvas.getContext("2d").drawImage(tile.sheet, tile.x, tile.y, tile.width, tile.height, 0, 0, tile.width, tile.height);
}

let timer = 0;
function fetchSoon() { clearTimeout(timer); timer = setTimeout(fetchTiles, 20); }

async function fetchTiles() {
  // What was scrolled past is not fetched.
  const wanted = [];
  const [first, last] = visibleRows(1);
  for (let at = first * layout.columns; at < Math.min(last * layout.columns, state.view.length); at++) {
    const i = state.view[at];
    if (waiting.has(i) && !tiles.has(i)) wanted.push(i);
  }
  while (wanted.length && inFlight < AT_ONCE) {
    const part = wanted.splice(0, BATCH);
    for (const i of part) waiting.delete(i);
    inFlight++;
    fetchSheet(part).catch((error) => fail(error)).finally(() => { inFlight--; fetchTiles(); });
  }
}

async function fetchSheet(part) {
  const answer = await fetch(`tiles?of=${part.join(",")}`);
  if (!answer.ok) throw new Error(await answer.text());
  const sheet = await createImageBitmap(await answer.blob());
  const columns = Math.min(16, part.length), width = sheet.width / columns, height = sheet.height / Math.ceil(part.length / columns);
  part.forEach((i, k) => tiles.set(i, { sheet, x: (k % columns) * width, y: Math.floor(k / columns) * height, width, height }));
  batches.push({ part, sheet });
  while (tiles.size > MOST_TILES && batches.length > 1) {
    const old = batches.shift();
    for (const i of old.part) if (tiles.get(i)?.sheet === old.sheet) tiles.delete(i);
    old.sheet.close();
  }
  const fresh = new Set(part);
  for (const line of lines.values()) for (const cell of line.children) {
    const i = state.view[cell.dataset.at];
    if (fresh.has(i)) paint(cell, i);
  }
}

// --- focus, choice and throwing out

export function reveal(at) {
  const grid = $("grid"), top = Math.floor(at / layout.columns) * layout.row;
  if (top < grid.scrollTop) grid.scrollTop = top;
  else if (top + layout.row + GAP > grid.scrollTop + grid.clientHeight) grid.scrollTop = top + layout.row + GAP - grid.clientHeight;
  render();
}

export function focusCell() {
  reveal(state.current);
  cellAt(state.current)?.focus({ preventScroll: true });
}

export function move(at, { choose = false, focus = true } = {}) {
  if (!state.view.length) return;
  const to = Math.min(state.view.length - 1, Math.max(0, at));
  if (choose) {
    if (anchor < 0) anchor = state.current;
    state.chosen = new Set(state.view.subarray(Math.min(anchor, to), Math.max(anchor, to) + 1));
  } else anchor = -1;
  const before = cellAt(state.current);
  state.current = to;
  reveal(to);
  if (choose) dressAll();
  else {
    if (before) dress(before, state.view[before.dataset.at], Number(before.dataset.at));
    const cell = cellAt(to);
    if (cell) dress(cell, state.view[to], to);
  }
  if (focus) focusCell();
  describeFocused();
}

function describeFocused() {
  const i = state.view[state.current], many = state.chosen.size;
  for (const id of ["zoom", "throw"]) $(id).disabled = i === undefined;
  $("undo").disabled = !undoable.length;
  if (i === undefined) { $("focused").textContent = ""; return; }
  const title = document.createElement("b");
  title.textContent = many > 1 ? `${many.toLocaleString("en")} chosen` : className(i);
  const { p_label, distance, sampler, reason } = state.columns;
  const how = isRejected(i) ? `rejected: ${state.header.reasons[reason[i]]}` : state.header.samplers[sampler[i]];
  $("focused").replaceChildren(title, many > 1 ? "" : `${number(i)} · p(label) ${show(p_label[i])} · distance ${far(distance[i])} · ${how}`);
  const back = targets().length > 0 && targets().every(isOut);
  $("throw").classList.toggle("back", back);
  $("throw").firstChild.textContent = back ? "Bring back " : "Throw out ";
  $("throw").disabled = !targets().length;
}

const targets = () => (state.chosen.size ? [...state.chosen] : [state.view[state.current]]).filter((i) => i !== undefined && !isRejected(i));

export function throwOut() {
  const some = targets();
  if (!some.length) return say("Rejected samples are not in the dataset");
  const value = some.every(isOut) ? 0 : 1, changed = some.filter((i) => state.out[i] !== value);
  apply(changed, value);
  undoable.push({ changed, value });
  const what = some.length === 1 ? `sample ${some[0]}` : `${changed.length} samples`;
  say(`${what} ${value ? "thrown out" : "brought back"}; ${drawn} thrown out in all`);
  // Nothing can come into sight: the order stays, and 100,000 samples are not sorted again.
  after(() => state.view.filter((i) => state.out[i] !== value));
}

function undo() {
  const last = undoable.pop();
  if (!last) return;
  apply(last.changed, 1 - last.value);
  say(`Undone; ${drawn} thrown out in all`);
  after(passing);
}

function apply(changed, value) {
  for (const i of changed) state.out[i] = value;
  drawn += (value ? 1 : -1) * changed.length;
}

function after(shown) {
  const focused = $("grid").contains(document.activeElement), at = state.current;
  if (["kept", "out"].includes(shownKind())) {
    state.view = shown();
    state.chosen.clear();
    anchor = -1;
    state.current = Math.min(at, Math.max(0, state.view.length - 1));
    measure();
    render(true);
    if (focused) focusCell();
  } else dressAll();
  describe();
  drawMap();
  clearTimeout(saveTimer);
  $("saved").className = "";
  $("saved").textContent = "saving…";
  unsaved = true;
  saveTimer = setTimeout(save, SAVE_AFTER);
}

async function save() {
  clearTimeout(saveTimer);
  if (saving) { again = true; return; }
  saving = true;
  try {
    do {
      again = false;
      const excluded = [];
      state.out.forEach((value, i) => { if (value) excluded.push(i); });
      const body = JSON.stringify({ excluded, after: state.header.state });
      const answer = await fetch("excluded", { method: "POST", headers: { "Content-Type": "application/json" }, body });
      if (!answer.ok) throw new Error(await answer.text());
      state.header.state = (await answer.json()).state;
      $("saved").className = "";
      $("saved").textContent = `list of ${excluded.length.toLocaleString("en")} saved`;
    } while (again);
    unsaved = false;
  } catch (error) { fail(error, "Not saved: "); }
  saving = false;
}

function fail(error, what = "") {
  $("saved").className = "failed";
  $("saved").textContent = `${what}${error.message}`;
}

function say(text) { $("said").textContent = ""; $("said").textContent = text; }

// --- keys and pointers

function setUpKeys() {
  addEventListener("beforeunload", (event) => { if (unsaved) { save(); event.preventDefault(); } });
  const grid = $("grid");
  grid.addEventListener("scroll", () => render(), { passive: true });
  new ResizeObserver(() => { const at = state.current; measure(); render(true); reveal(at); describe(); }).observe(grid);
  grid.addEventListener("click", (event) => {
    const cell = event.target.closest(".cell");
    if (!cell) return;
    const at = Number(cell.dataset.at), i = state.view[at];
    if (event.shiftKey) return move(at, { choose: true });
    if (event.ctrlKey || event.metaKey) {
      if (!state.chosen.size && state.current !== at) state.chosen.add(state.view[state.current]);
      if (!state.chosen.delete(i)) state.chosen.add(i);
    } else if (state.chosen.size) state.chosen.clear();
    // A second tap opens: touch screens have no Enter.
    else if (at === state.current && event.pointerType === "touch" && document.activeElement === cell) { openDetail(); return; }
    move(at);
    dressAll();
  });
  grid.addEventListener("dblclick", (event) => { if (event.target.closest(".cell")) openDetail(); });
  grid.addEventListener("keydown", (event) => {
    const page = Math.max(1, Math.floor(grid.clientHeight / layout.row) - 1) * layout.columns, { columns } = layout, at = state.current;
    const end = state.view.length - 1, row = at - (at % columns), control = event.ctrlKey || event.metaKey;
    const to = {
      ArrowLeft: at - 1, ArrowRight: at + 1, ArrowUp: at - columns, ArrowDown: at + columns > end && row + columns <= end ? end : at + columns,
      PageUp: at - page, PageDown: at + page, Home: control ? 0 : row, End: control ? end : row + columns - 1,
    }[event.key];
    if (to !== undefined) {
      event.preventDefault();
      const stays = (event.key === "ArrowUp" || event.key === "ArrowDown") && (to < 0 || to > end);
      move(stays ? at : to, { choose: event.shiftKey });
    } else if (event.key === "Enter") { event.preventDefault(); openDetail(); }
    else if (event.key === " ") {
      event.preventDefault();
      const i = state.view[at];
      if (!state.chosen.delete(i)) state.chosen.add(i);
      dressAll();
    } else if (control && event.key === "a") { event.preventDefault(); state.chosen = new Set(state.view); dressAll(); say(`${state.chosen.size} samples chosen`); }
    else if (event.key === "Escape" && state.chosen.size) { state.chosen.clear(); anchor = -1; dressAll(); }
  });
  document.addEventListener("keydown", (event) => {
    const writing = event.target.matches("input[type=search], select"), modified = event.ctrlKey || event.metaKey || event.altKey;
    if (writing || modified || document.querySelector("dialog[open]")) return;
    const action = { x: throwOut, u: undo, m: toggleMap, "/": openSearch, "?": () => $("help").showModal() }[event.key];
    if (action) { event.preventDefault(); action(); }
  });
  $("throw").onclick = throwOut;
  $("undo").onclick = undo;
  $("zoom").onclick = () => openDetail();
  $("toggle-map").onclick = toggleMap;
  $("toggle-filters").onclick = () => toggleFilters();
  $("done").onclick = () => { toggleFilters(false); focusCell(); };
  $("open-help").onclick = () => $("help").showModal();
  $("close-help").onclick = () => $("help").close();
}

function toggleFilters(open = $("filters").hidden) {
  document.body.style.setProperty("--below-top", `${document.querySelector(".top").offsetHeight}px`);
  $("filters").hidden = !open;
  document.querySelector(".body").classList.toggle("no-filters", !open);
  $("toggle-filters").setAttribute("aria-expanded", open);
  if (open) for (const name of ["p_label", "distance"]) histogram(name);
}

function openSearch() { toggleFilters(true); $("search").focus(); $("search").select(); }

function toggleMap() {
  const open = $("map-panel").hidden;
  $("map-panel").hidden = !open;
  document.querySelector("main").classList.toggle("with-map", open);
  $("toggle-map").setAttribute("aria-pressed", open);
  if (open) drawMap();
  else if (state.brush) { state.brush = null; refresh(); }
}

export function setBrush(brush) { state.brush = brush; refresh(); }

load().then(() => {
  $("run").textContent = state.header.out;
  document.title = `${state.header.out}: vaeaug studio`;
  $("command").textContent = state.header.command;
  setUpFilters();
  setUpDetail();
  setUpMap();
  if (innerWidth <= 760) toggleFilters(false);
  $("size").value = $("size").defaultValue = Math.round(Math.min(150, Math.max(72, 52 + innerWidth / 40)));
  setUpKeys();
  refresh();
  focusCell();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { describe(); drawMap(); });
  document.body.dataset.ready = "1";
}).catch((error) => fail(error));
