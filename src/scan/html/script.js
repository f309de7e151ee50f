"use strict";
// The report's page. DATA is what to_html() (src/scan/report_html.cpp) wrote; nothing is loaded from elsewhere.
const DATA = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const CLASSES = ["critical", "privileged", "innocuous"];
const CONFIDENCES = ["certain", "likely", "speculative", "hidden", "executed"];
const KINDS = { c: "certain", l: "likely", s: "speculative", p: "padding", d: "data" };
// A finding's fields, as they lie in its array.
const SECTION = 0, OFFSET = 1, FUNCTION = 2, ROW = 3, CLASS = 4, CONFIDENCE = 5, BYTES = 6, TEXT = 7, PATCH = 8, OVERLAPS = 9;
const ROW_HEIGHT = 26;

let image, filter, view, shown = [], selected = -1;
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
const number = (n) => n.toLocaleString("en");
const bytesText = (n) => n < 1024 ? n + " B" : n < 1048576 ? (n / 1024).toFixed(1) + " KiB" : (n / 1048576).toFixed(2) + " MiB";
const element = (tag, cls, text) => {
  const e = document.createElement(tag);
  if (cls) e.className = cls;
  if (text !== undefined) e.textContent = text;
  return e;
};

function place(section, offset) {
  const s = image.sections[section];
  if (image.relocatable) return s.name + "+0x" + offset.toString(16);
  return (BigInt(s.address) + BigInt(offset)).toString(16).padStart(image.bits === 64 ? 16 : 8, "0");
}
const functionName = (f) => f < 0 ? "" : image.functions[f][0];

// -- state in the address: a view can be linked to
function readHash() {
  const p = new URLSearchParams(location.hash.slice(1));
  const set = (name, all) => new Set(p.has(name) ? p.get(name).split(",").filter((x) => all.includes(x)) : all);
  return { image: Math.min(Math.max(0, +p.get("image") || 0), DATA.images.length - 1), q: p.get("q") || "",
    classes: set("class", CLASSES), confidences: set("confidence", CONFIDENCES), patching: p.get("patch") || "all",
    row: p.get("instruction") || "", fn: p.has("function") ? p.get("function") : null };
}
function writeHash() {
  const p = new URLSearchParams();
  if (filter.image) p.set("image", filter.image);
  if (filter.q) p.set("q", filter.q);
  if (filter.classes.size < CLASSES.length) p.set("class", [...filter.classes]);
  if (filter.confidences.size < CONFIDENCES.length) p.set("confidence", [...filter.confidences]);
  if (filter.patching !== "all") p.set("patch", filter.patching);
  if (filter.row) p.set("instruction", filter.row);
  if (filter.fn !== null) p.set("function", filter.fn);
  try { history.replaceState(null, "", "#" + p); } catch (e) { /* a file: page may not */ }
}

function matches(f) {
  if (!filter.classes.has(CLASSES[f[CLASS]]) || !filter.confidences.has(CONFIDENCES[f[CONFIDENCE]])) return false;
  if (filter.patching === "in" && f[PATCH] < 0 || filter.patching === "out" && f[PATCH] >= 0) return false;
  if (filter.row && image.rows[f[ROW]].id !== filter.row) return false;
  if (filter.fn !== null && functionName(f[FUNCTION]) !== filter.fn) return false;
  if (!filter.q) return true;
  const q = filter.q.toLowerCase();
  return [f[TEXT], functionName(f[FUNCTION]), image.rows[f[ROW]].name, f[BYTES], place(f[SECTION], f[OFFSET]),
    image.sections[f[SECTION]].name, f[PATCH] < 0 ? "" : image.patches[f[PATCH]]].some((t) => t.toLowerCase().includes(q));
}
function apply() {
  shown = [];
  image.findings.forEach((f, i) => { if (matches(f)) shown.push(i); });
  $("shown").textContent = number(shown.length) + " of " + number(image.findings.length);
  writeHash();
  drawChips();
  drawInstructions();
  $("spacer").style.height = shown.length * ROW_HEIGHT + "px";
  $("list").scrollTop = 0;
  drawRows();
  drawAll();
}

// -- tiles, notes
function drawHead() {
  $("file").replaceChildren(element("b", "", image.name), document.createTextNode("  " + image.format + " · judged as " + image.bits + "-bit code of ring " + image.ring));
  document.title = "Trapline scan: " + image.name;
  const t = image.bytes, all = Object.values(t).reduce((a, b) => a + b, 0);
  const tile = (value, text, cls) => {
    const e = element("div", "tile " + (cls || ""));
    e.append(element("b", "", value), element("span", "", text));
    return e;
  };
  const code = tile(bytesText(all), "in code sections, " + number(image.decoded) + " instructions");
  const stack = element("div", "stack");
  for (const k of Object.keys(t)) {
    const part = element("i");
    part.style.cssText = `flex:${t[k]};background:var(--${k})`;
    part.title = k + " " + bytesText(t[k]);
    stack.append(part);
  }
  code.insertBefore(stack, code.lastChild);
  $("tiles").replaceChildren(
    tile(number(image.counts.critical), "critical: sensitive, and do not trap", "critical"),
    tile(number(image.counts.privileged), "privileged: they trap", "privileged"),
    tile(number(image.patched.critical + image.patched.privileged), "of these in sites that the kernel patches"),
    tile(number(image.active), "functions hold any, of " + number(image.functions.length)), code);
  const legend = [["critical", "critical"], ["privileged", "privileged"], ...(image.findings.some((f) => f[CLASS] === 2) ? [["innocuous", "innocuous"]] : []), ["certain", "code, certain"], ["likely", "likely"],
    ["speculative", "speculative"], ["padding", "padding"], ["data", "data"]];
  $("legend").replaceChildren(...legend.map(([c, text]) => {
    const e = element("span"), i = element("i");
    i.style.background = `var(--${c})`;
    e.append(i, text);
    return e;
  }));
  const notes = image.warnings.concat(Object.entries(image.tables).map(([k, v]) => k + ": " + number(v) + " entries"));
  $("notes").replaceChildren();
  if (notes.length) {
    const list = element("ul");
    notes.forEach((n) => list.append(element("li", "", n)));
    $("notes").append(element("h2", "", "Tables and warnings"), list);
  }
}

// -- chips and instructions
function chips(id, all, set, labels) {
  $(id).replaceChildren(...all.map((name) => {
    const b = element("button", "", labels ? labels[name] : name);
    b.type = "button";
    b.setAttribute("aria-pressed", set.has(name));
    b.onclick = () => { set.has(name) ? set.delete(name) : set.add(name); apply(); };
    return b;
  }));
}
function drawChips() {
  const present = (field, names) => names.filter((_, i) => image.findings.some((f) => f[field] === i));
  chips("classes", present(CLASS, CLASSES), filter.classes);
  chips("confidences", present(CONFIDENCE, CONFIDENCES), filter.confidences);
  const modes = { all: "all", in: "patched at boot", out: "not patched" };
  $("patching").replaceChildren(...(image.patches.length ? Object.keys(modes) : []).map((m) => {
    const b = element("button", "", modes[m]);
    b.type = "button";
    b.setAttribute("aria-pressed", filter.patching === m);
    b.onclick = () => { filter.patching = m; apply(); };
    return b;
  }));
}
function drawInstructions() {
  const counts = image.rows.map(() => [0, 0]);
  for (const f of image.findings) { counts[f[ROW]][0]++; counts[f[ROW]][1] = Math.max(counts[f[ROW]][1], 2 - f[CLASS]); }
  const order = counts.map((c, i) => [i, c[0], c[1]]).filter((c) => c[1]).sort((a, b) => b[2] - a[2] || b[1] - a[1]);
  const most = Math.max(1, ...order.map((o) => o[1]));
  $("instructions").replaceChildren(...order.map(([i, n, cls]) => {
    const row = image.rows[i], b = element("button", "ins"), bar = element("i");
    b.type = "button";
    b.title = row.why;
    b.setAttribute("aria-pressed", filter.row === row.id);
    bar.style.cssText = `width:${Math.max(2, 100 * Math.sqrt(n / most))}%;background:var(--${CLASSES[2 - cls]})`;
    b.append(element("span", "", row.name), bar, element("em", "", number(n)));
    b.onclick = () => { filter.row = filter.row === row.id ? "" : row.id; apply(); };
    return b;
  }));
}

// -- the list: only the rows in sight exist
function drawRows() {
  const list = $("list"), first = Math.max(0, Math.floor(list.scrollTop / ROW_HEIGHT) - 6);
  const count = Math.ceil(list.clientHeight / ROW_HEIGHT) + 12;
  $("rows").style.transform = `translateY(${first * ROW_HEIGHT}px)`;
  $("rows").replaceChildren(...shown.slice(first, first + count).map((i) => {
    const f = image.findings[i], e = element("div", "row" + (i === selected ? " on" : ""));
    const name = functionName(f[FUNCTION]);
    const at = f[FUNCTION] < 0 ? image.sections[f[SECTION]].name : name + "+0x" + (f[OFFSET] - image.functions[f[FUNCTION]][2]).toString(16);
    e.append(element("span", "mono", place(f[SECTION], f[OFFSET])), element("span", "", at), element("span", "mono", f[TEXT]),
      element("span", "c-" + CLASSES[f[CLASS]], CLASSES[f[CLASS]]), element("span", "dim", CONFIDENCES[f[CONFIDENCE]]),
      element("span", "dim", f[PATCH] < 0 ? "" : image.patches[f[PATCH]]));
    e.onclick = () => select(i, false);
    return e;
  }));
}
function select(i, scroll) {
  selected = i;
  const f = image.findings[i], row = image.rows[f[ROW]], detail = $("detail");
  const p = (...parts) => { const e = element("p"); e.append(...parts); return e; };
  detail.replaceChildren(
    p(element("code", "", f[TEXT]), "   ", element("span", "dim mono", f[BYTES])),
    p(element("span", "c-" + CLASSES[f[CLASS]], CLASSES[f[CLASS]]), ", " + row.sensitivity + ". " + row.why),
    p(element("span", "dim", row.what + " · " + row.manual)),
    p(element("span", "dim", place(f[SECTION], f[OFFSET]) + " in " + image.sections[f[SECTION]].name +
      (f[FUNCTION] < 0 ? "" : ", " + functionName(f[FUNCTION])) + " · " + CONFIDENCES[f[CONFIDENCE]] +
      (f[OVERLAPS] ? " · overlaps another instruction" : "") + (f[PATCH] < 0 ? "" : " · " + image.patches[f[PATCH]]))));
  if (scroll) {
    const at = shown.indexOf(i);
    if (at >= 0) $("list").scrollTop = Math.max(0, at * ROW_HEIGHT - 120);
    $("list").scrollIntoView({ block: "nearest" });
  }
  drawRows();
  drawStrip();
}

// -- canvases
function paper(id, height) {
  const c = $(id), ratio = window.devicePixelRatio || 1, w = c.clientWidth;
  c.style.height = height + "px";
  c.width = Math.max(1, Math.round(w * ratio));
  c.height = Math.round(height * ratio);
  const g = c.getContext("2d");
  g.setTransform(ratio, 0, 0, ratio, 0, 0);
  g.clearRect(0, 0, w, height);
  return { g, w, h: height };
}
// All code sections one behind the other: `start` of each, and the findings as positions.
function layOut() {
  let at = 0;
  image.starts = image.sections.map((s) => { const start = at; at += s.size; return start; });
  image.total = Math.max(1, at);
  image.positions = Float64Array.from(image.findings, (f) => image.starts[f[SECTION]] + f[OFFSET]);
  image.byPlace = image.functions.map((f, i) => i).sort((a, b) => spot(a) - spot(b));
  view = { from: 0, to: image.total };
}
const spot = (i) => image.starts[image.functions[i][1]] + image.functions[i][2];
function lowest(list, key, value) {
  let low = 0, high = list.length;
  while (low < high) { const m = (low + high) >> 1; key(list[m]) < value ? low = m + 1 : high = m; }
  return low;
}
function drawCells(g, x0, x1, y, h, from, to) {
  const per = (to - from) / (x1 - x0);
  let last = "", since = x0;
  const paint = (x) => { if (last && x > since) { g.fillStyle = colours[last]; g.fillRect(since, y, x - since + .5, h); } since = x; };
  for (let x = x0; x < x1; x++) {
    const at = from + (x - x0 + .5) * per;
    const s = Math.max(0, lowest(image.starts, (v) => v, at + .5) - 1), section = image.sections[s];
    const cell = section.cells[Math.min(section.cells.length - 1, Math.floor((at - image.starts[s]) / section.size * section.cells.length))] || "d";
    if (cell !== last) { paint(x); last = cell; }
  }
  paint(x1);
}
let colours = {};
function readColours() {
  colours = {};
  for (const k in KINDS) colours[k] = colour(KINDS[k]);
  for (const k of [...CLASSES, "ink", "soft", "line", "accent", "panel", "bg"]) colours[k] = colour(k);
}
// How many findings of each class fall on each pixel.
function histogram(w, from, to) {
  const bins = CLASSES.map(() => new Uint32Array(Math.ceil(w))), per = w / (to - from);
  for (const i of shown) {
    const x = (image.positions[i] - from) * per;
    if (x >= 0 && x < w) bins[image.findings[i][CLASS]][Math.floor(x)]++;
  }
  return bins;
}
function drawOverview() {
  const { g, w, h } = paper("overview", 46);
  drawCells(g, 0, w, 26, h - 26, 0, image.total);
  const bins = histogram(w, 0, image.total);
  let most = 1;
  for (let x = 0; x < w; x++) most = Math.max(most, bins[0][x] + bins[1][x]);
  for (let x = 0; x < w; x++) {
    let y = 25;
    for (const c of [0, 1]) {
      if (!bins[c][x]) continue;
      const size = Math.max(2, 24 * Math.sqrt(bins[c][x] / most));
      g.fillStyle = colours[CLASSES[c]];
      g.fillRect(x, y - size, 1.2, size);
    }
  }
  g.fillStyle = colours.accent;
  const a = view.from / image.total * w, b = view.to / image.total * w;
  g.globalAlpha = .16; g.fillRect(a, 0, b - a, h); g.globalAlpha = 1;
  g.fillRect(a, 0, 2, h); g.fillRect(Math.max(a, b - 2), 0, 2, h);
}
function drawStrip() {
  const { g, w, h } = paper("strip", 190);
  const per = w / (view.to - view.from), base = 118;
  drawCells(g, 0, w, base, 34, view.from, view.to);
  g.font = "12px system-ui, sans-serif";
  image.starts.forEach((start, s) => {
    const a = (start - view.from) * per, b = a + image.sections[s].size * per;
    if (b < 0 || a > w || b - a < 2) return;
    g.fillStyle = colours.line; g.fillRect(Math.max(0, a), base - 4, 1, 42);
  });
  drawSectionNames(g, w, h, base, per);
  drawFunctions(g, w, base, per);
  const bins = histogram(w, view.from, view.to);
  let most = 1;
  for (let x = 0; x < w; x++) most = Math.max(most, bins[0][x], bins[1][x]);
  for (const c of [2, 1, 0]) {
    g.fillStyle = colours[CLASSES[c]];
    for (let x = 0; x < w; x++) {
      if (!bins[c][x]) continue;
      const size = 10 + 96 * Math.sqrt(bins[c][x] / most);
      g.fillRect(x, base - 6 - size, 1.6, size);
      g.fillRect(x, base, 1.6, 34);
    }
  }
  if (selected >= 0) {
    const x = (image.positions[selected] - view.from) * per;
    g.fillStyle = colours.ink;
    g.beginPath(); g.moveTo(x, base + 36); g.lineTo(x - 5, base + 45); g.lineTo(x + 5, base + 45); g.fill();
  }
}
// Every section that can be seen has its name, in the first of two rows with room: right below its start, or moved left from the edge.
function drawSectionNames(g, w, h, base, per) {
  const taken = [-8, -8];
  image.starts.forEach((start, s) => {
    const a = (start - view.from) * per, b = a + image.sections[s].size * per;
    if (b < 0 || a > w) return;
    const label = image.sections[s].name, width = g.measureText(label).width;
    const x = Math.min(Math.max(4, a + 4), w - width - 4), row = taken.findIndex((end) => x >= end + 8);
    if (row < 0) return;
    taken[row] = x + width;
    const y = h - 22 + row * 16;
    g.fillStyle = colours.line; g.fillRect(Math.max(0, Math.min(w - 1, a)), base + 34, 1, y - base - 36);
    g.fillStyle = colours.ink; g.fillText(label, x, y);
  });
}
// As much of a text as fits, with an ellipsis; nothing if that is little.
function fitted(g, text, width) {
  if (g.measureText(text).width <= width) return text;
  let n = text.length;
  while (n > 3 && g.measureText(text.slice(0, n) + "\u2026").width > width) n--;
  return n > 3 ? text.slice(0, n) + "\u2026" : "";
}
// Borders and names, once there is room for them.
function drawFunctions(g, w, base, per) {
  const first = Math.max(0, lowest(image.byPlace, spot, view.from) - 1);
  const last = lowest(image.byPlace, spot, view.to);
  if (last - first > w / 3) return;
  for (let k = first; k < last; k++) {
    const f = image.functions[image.byPlace[k]], x = (spot(image.byPlace[k]) - view.from) * per, size = f[3] * per;
    g.fillStyle = colours.panel;
    g.fillRect(x, base, 1, 34);
    if (size > 42) {
      const left = Math.max(4, x + 5);
      g.fillStyle = colours.ink; g.fillText(fitted(g, f[0], x + size - left - 3), left, base + 21);
    }
  }
}
function zoom(factor, at) {
  const size = Math.min(image.total, Math.max(64, (view.to - view.from) * factor));
  const share = (at - view.from) / (view.to - view.from);
  pan(at - share * size, size);
}
function pan(from, size) {
  view.from = Math.max(0, Math.min(image.total - size, from));
  view.to = view.from + size;
  drawOverview();
  drawStrip();
}

// -- treemap: squarified (Bruls, Huizing and van Wijk 2000)
let boxes = [], weight = "findings", inside = -1;
function squarify(items, x, y, w, h, out) {
  let total = items.reduce((a, i) => a + i.weight, 0), at = 0;
  while (at < items.length && w > .5 && h > .5) {
    const side = Math.min(w, h), scale = w * h / total;
    let sum = 0, worst = Infinity, end = at;
    for (; end < items.length; end++) {
      const next = sum + items[end].weight * scale, thick = next / side;
      const ratio = Math.max(...[items[at], items[end]].map((i) => { const long = i.weight * scale / thick; return Math.max(long / thick, thick / long); }));
      if (ratio > worst) break;
      worst = ratio;
      sum = next;
    }
    const thick = sum / side;
    let along = 0;
    for (; at < end; at++) {
      const long = items[at].weight * scale / thick;
      out.push(w >= h ? { item: items[at], x, y: y + along, w: thick, h: long } : { item: items[at], x: x + along, y, w: long, h: thick });
      along += long;
      total -= items[at].weight;
    }
    if (w >= h) { x += thick; w -= thick; } else { y += thick; h -= thick; }
  }
}
function functionItems() {
  const found = new Map();
  for (const i of shown) {
    const f = image.findings[i], key = f[FUNCTION] < 0 ? "s" + f[SECTION] : f[FUNCTION];
    let e = found.get(key);
    if (!e) found.set(key, e = { fn: f[FUNCTION], section: f[SECTION], counts: [0, 0, 0] });
    e.counts[f[CLASS]]++;
  }
  const items = [...found.values()];
  for (const e of items) {
    const n = e.counts[0] + e.counts[1] + e.counts[2];
    e.weight = weight === "findings" ? n : weight === "critical" ? e.counts[0] : e.fn < 0 ? 1 : Math.max(1, image.functions[e.fn][3]);
  }
  return items.filter((e) => e.weight > 0);
}
function drawTreemap() {
  const { g, w, h } = paper("treemap", 340);
  const bySection = new Map();
  for (const e of functionItems()) {
    if (inside >= 0 && e.section !== inside) continue;
    if (!bySection.has(e.section)) bySection.set(e.section, []);
    bySection.get(e.section).push(e);
  }
  const groups = [...bySection].map(([section, items]) => ({ section, items, weight: items.reduce((a, i) => a + i.weight, 0) })).sort((a, b) => b.weight - a.weight);
  const outer = [];
  squarify(groups, 0, 0, w, h, outer);
  boxes = [];
  g.font = "12px system-ui, sans-serif";
  for (const o of outer) {
    const head = o.w > 60 && o.h > 40 ? 17 : 0, inner = [];
    squarify(o.item.items.sort((a, b) => b.weight - a.weight), o.x + 1, o.y + head, o.w - 2, o.h - head - 1, inner);
    if (head) { g.fillStyle = colours.ink; g.fillText(fitted(g, image.sections[o.item.section].name, o.w - 8), o.x + 4, o.y + 12); }
    for (const b of inner) drawBox(g, b);
    boxes.push(...inner);
    if (head) boxes.push({ x: o.x, y: o.y, w: o.w, h: head, section: o.item.section });
  }
  $("crumb").textContent = (inside >= 0 ? "In " + image.sections[inside].name + "; a click on its name shows all sections. " : "") +
    (filter.fn !== null ? "Listing " + (filter.fn || "no function") + "; a click on it again lists all." : "A click on a function lists what is in it.");
}
function drawBox(g, b) {
  const c = b.item.counts, n = c[0] + c[1] + c[2], name = functionName(b.item.fn);
  g.fillStyle = c[0] ? colours.critical : c[1] ? colours.privileged : colours.innocuous;
  g.globalAlpha = c[0] ? .35 + .6 * c[0] / n : .55;
  g.fillRect(b.x + .5, b.y + .5, Math.max(.4, b.w - 1), Math.max(.4, b.h - 1));
  g.globalAlpha = 1;
  if (filter.fn !== null && filter.fn === name) { g.strokeStyle = colours.ink; g.lineWidth = 2; g.strokeRect(b.x + 1, b.y + 1, b.w - 2, b.h - 2); }
  if (b.w < 46 || b.h < 16) return;
  // On the full colour of the class light text, on the pale one dark text.
  g.fillStyle = c[0] > .6 * n ? "#fff" : colours.ink;
  g.fillText(fitted(g, name || "(no symbol)", b.w - 9), b.x + 5, b.y + 14);
  if (b.h > 32) g.fillText(fitted(g, number(n), b.w - 9), b.x + 5, b.y + 28);
}
function drawAll() {
  readColours();
  drawOverview();
  drawStrip();
  drawTreemap();
}

// -- input
function tip(text, event) {
  const t = $("tip");
  t.style.opacity = text ? 1 : 0;
  if (!text) return;
  t.textContent = text;
  t.style.left = Math.min(event.clientX + 14, innerWidth - t.offsetWidth - 8) + "px";
  t.style.top = Math.min(event.clientY + 16, innerHeight - t.offsetHeight - 8) + "px";
}
const positionAt = (event) => view.from + (event.clientX - $("strip").getBoundingClientRect().left) / $("strip").clientWidth * (view.to - view.from);
function nearest(at) {
  const reach = 5 * (view.to - view.from) / $("strip").clientWidth;
  let best = -1, distance = reach, cls = 9;
  for (const i of shown) {
    const d = Math.abs(image.positions[i] - at), c = image.findings[i][CLASS];
    if (d > reach) continue;
    if (c < cls || c === cls && d < distance) { best = i; distance = d; cls = c; }
  }
  return best;
}
function describe(at) {
  const s = Math.max(0, lowest(image.starts, (v) => v, at + .5) - 1), offset = Math.floor(at - image.starts[s]);
  if (!image.sections[s]) return "";
  const k = lowest(image.byPlace, spot, at + .5) - 1, f = k >= 0 ? image.functions[image.byPlace[k]] : null;
  const owner = f && f[1] === s && offset - f[2] < f[3] ? "\n" + f[0] : "";
  const i = nearest(at), hit = i < 0 ? "" : "\n" + image.findings[i][TEXT] + " (" + CLASSES[image.findings[i][CLASS]] + ")";
  return place(s, offset) + "  " + image.sections[s].name + owner + hit;
}
function listen() {
  const strip = $("strip"), overview = $("overview"), map = $("treemap");
  strip.addEventListener("wheel", (e) => { e.preventDefault(); zoom(e.deltaY > 0 ? 1.25 : .8, positionAt(e)); }, { passive: false });
  let grabbed = null;
  strip.onpointerdown = (e) => { grabbed = { x: e.clientX, from: view.from, moved: false }; strip.setPointerCapture(e.pointerId); };
  strip.onpointermove = (e) => {
    if (!grabbed) return tip(describe(positionAt(e)), e);
    tip("");
    const dx = e.clientX - grabbed.x;
    if (Math.abs(dx) > 3) grabbed.moved = true;
    if (grabbed.moved) pan(grabbed.from - dx / strip.clientWidth * (view.to - view.from), view.to - view.from);
  };
  strip.onpointerup = (e) => {
    const i = grabbed && !grabbed.moved ? nearest(positionAt(e)) : -1;
    grabbed = null;
    if (i >= 0) select(i, true);
  };
  strip.onpointerleave = () => tip("");
  strip.ondblclick = () => pan(0, image.total);
  const jump = (e) => { if (e.buttons) { const at = e.offsetX / overview.clientWidth * image.total; let size = view.to - view.from; if (size === image.total) size /= 12; pan(at - size / 2, size); } };
  overview.onpointerdown = jump;
  overview.onpointermove = jump;
  overview.ondblclick = () => pan(0, image.total);
  const boxAt = (e) => boxes.find((b) => e.offsetX >= b.x && e.offsetX < b.x + b.w && e.offsetY >= b.y && e.offsetY < b.y + b.h);
  map.onpointermove = (e) => {
    const b = boxAt(e);
    if (!b) return tip("");
    if (!b.item) return tip(image.sections[b.section].name, e);
    tip((functionName(b.item.fn) || "no symbol") + "  " + image.sections[b.item.section].name + "\n" +
      CLASSES.map((c, i) => b.item.counts[i] ? number(b.item.counts[i]) + " " + c : "").filter(Boolean).join(", "), e);
  };
  map.onpointerleave = () => tip("");
  map.onclick = (e) => {
    const b = boxAt(e);
    if (!b) return;
    if (!b.item) { inside = inside === b.section ? -1 : b.section; return drawTreemap(); }
    const name = functionName(b.item.fn);
    filter.fn = filter.fn === name ? null : name;
    apply();
  };
  $("list").addEventListener("scroll", drawRows);
  $("list").onkeydown = (e) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[e.key];
    if (!step || !shown.length) return;
    e.preventDefault();
    select(shown[Math.max(0, Math.min(shown.length - 1, shown.indexOf(selected) + step))], true);
  };
  $("search").oninput = (e) => { filter.q = e.target.value; apply(); };
  $("image").onchange = (e) => { filter = { ...readHash(), image: +e.target.value, fn: null, row: "", q: "" }; open(); };
  $("theme").onclick = () => {
    const root = document.documentElement, dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    drawAll();
  };
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  addEventListener("resize", drawAll);
  const weights = { findings: "by findings", critical: "by critical ones", bytes: "by size" };
  $("weights").replaceChildren(...Object.keys(weights).map((k) => {
    const b = element("button", "", weights[k]);
    b.type = "button";
    b.setAttribute("aria-pressed", k === weight);
    b.onclick = () => { weight = k; [...$("weights").children].forEach((o) => o.setAttribute("aria-pressed", o === b)); drawTreemap(); };
    return b;
  }));
}
function open() {
  image = DATA.images[filter.image];
  selected = -1;
  inside = -1;
  $("detail").replaceChildren();
  $("search").value = filter.q;
  layOut();
  drawHead();
  apply();
}

filter = readHash();
DATA.images.forEach((i, n) => { const o = element("option", "", i.name); o.value = n; $("image").append(o); });
$("image").hidden = DATA.images.length < 2;
$("image").value = filter.image;
listen();
open();
document.body.dataset.ready = "true";
