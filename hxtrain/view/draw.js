// Drawing: charts of lines and bars as SVG, rasters, matrices and the chip on canvases. All texts are set as text.

const SVG = "http://www.w3.org/2000/svg";
export const HUES = ["blue", "red", "green", "violet", "amber", "sky"];

export const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
export const hue = (index) => colour(HUES[index % HUES.length]);

export function element(tag, attributes = {}, text = "", space = null) {
  const node = space ? document.createElementNS(space, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text !== "") node.textContent = text;
  return node;
}

const shape = (tag, attributes, text = "") => element(tag, attributes, text, SVG);

export function number(value, digits = 3) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e6 || size < 1e-3) return value.toExponential(digits - 1);
  return size >= 1000 ? Math.round(value).toLocaleString("en") : String(Number(value.toPrecision(digits)));
}

export function seconds(value) {
  if (!Number.isFinite(value)) return "–";
  if (value < 1e-3) return `${number(value * 1e6)} µs`;
  if (value < 1) return `${number(value * 1e3)} ms`;
  return value < 120 ? `${number(value)} s` : `${number(value / 60)} min`;
}

function ticks(low, high, count, isWhole = false) {
  const raw = Math.max((high - low) / count, isWhole ? 1 : 0);
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = power * ((isWhole ? [1, 2, 5, 10] : [1, 2, 2.5, 5, 10]).find((factor) => factor * power >= raw) ?? 10);
  const values = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-6; k++) values.push(Number((k * step).toPrecision(12)));
  return values;
}

const finite = (points) => points.filter(([x, y]) => Number.isFinite(x) && Number.isFinite(y));

function thinned(points, most = 500) {
  if (points.length <= most) return points;
  const size = points.length / most;
  return Array.from({ length: most }, (_, index) => points[Math.min(points.length - 1, Math.floor((index + 1) * size) - 1)]);
}

export function empty(holder, text) {
  holder.replaceChildren(element("div", { class: "empty" }, text));
}

const [LEFT, RIGHT, LETTER] = [46, 12, 6.2]; // px: margins of a chart, and the usual width of a letter

// Places of the keys of named series, in as many lines as they need.
function placedKeys(series, title, width) {
  const start = LEFT + (title ? title.length * LETTER + 8 : 0);
  let [x, line] = [start, 0];
  return series.filter((one) => one.name).map((one) => {
    const size = 31 + one.name.length * LETTER;
    if (x > start && x + size - 12 > width - RIGHT) [x, line] = [start, line + 1];
    const place = { x, line, one };
    x += size;
    return place;
  });
}

// series: [{name, colour, points: [[x, y]], width, opacity, dots, dash}]; lines: [y] horizontal marks
export function lineChart(holder, series, options = {}) {
  const drawn = series.map((one) => ({ ...one, points: thinned(finite(one.points)) })).filter((one) => one.points.length);
  if (!drawn.length) return empty(holder, options.empty ?? "nothing yet");
  const width = Math.max(holder.clientWidth || 600, 160);
  const height = Math.max(holder.clientHeight || 200, 80);
  const keys = options.keys === false ? [] : placedKeys(drawn, options.keyTitle ?? "", width);
  const margin = { left: LEFT, right: RIGHT, top: 18 + 14 * (keys.at(-1)?.line ?? 0), bottom: 30 };
  const all = drawn.flatMap((one) => one.points);
  let [x0, x1] = options.x ?? [Math.min(...all.map((p) => p[0])), Math.max(...all.map((p) => p[0]))];
  let [y0, y1] = [Math.min(...all.map((p) => p[1])), Math.max(...all.map((p) => p[1]))];
  if (options.zero) y0 = Math.min(0, y0);
  if (options.top !== undefined) y1 = Math.min(options.top, y1 + (y1 - y0) * 0.06);
  else y1 += (y1 - y0) * 0.06;
  if (!options.zero) y0 -= (y1 - y0) * 0.05;
  if (x1 === x0) [x0, x1] = [x0 - 0.5, x1 + 0.5];
  if (y1 === y0) [y0, y1] = [y0 - 0.5, y1 + 0.5];
  const px = (x) => margin.left + ((x - x0) / (x1 - x0)) * (width - margin.left - margin.right);
  const py = (y) => height - margin.bottom - ((y - y0) / (y1 - y0)) * (height - margin.top - margin.bottom);
  const svg = shape("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": options.label ?? "" });
  for (const y of ticks(y0, y1, 4)) {
    svg.append(shape("line", { class: "gridline", x1: margin.left, x2: width - margin.right, y1: py(y), y2: py(y) }));
    svg.append(shape("text", { x: margin.left - 7, y: py(y) + 4, "text-anchor": "end" }, options.format ? options.format(y) : number(y)));
  }
  for (const x of ticks(x0, x1, Math.max(2, Math.floor(width / 80)), options.isWhole)) {
    svg.append(shape("text", { x: px(x), y: height - margin.bottom + 15, "text-anchor": "middle" }, options.formatX ? options.formatX(x) : number(x)));
  }
  svg.append(shape("line", { class: "axis", x1: margin.left, x2: width - margin.right, y1: height - margin.bottom, y2: height - margin.bottom }));
  if (options.xlabel) svg.append(shape("text", { x: width - margin.right, y: height - 1, "text-anchor": "end" }, options.xlabel));
  for (const y of options.lines ?? []) {
    if (y >= y0 && y <= y1) svg.append(shape("line", { x1: margin.left, x2: width - margin.right, y1: py(y), y2: py(y), stroke: colour("soft"), "stroke-dasharray": "2 3" }));
  }
  if (keys.length && options.keyTitle) svg.append(shape("text", { x: LEFT, y: 10 }, options.keyTitle));
  for (const { x, line, one } of keys) {
    svg.append(shape("line", { x1: x, x2: x + 14, y1: 6 + 14 * line, y2: 6 + 14 * line, stroke: one.colour, "stroke-width": 3, "stroke-opacity": one.opacity ?? 1 }));
    svg.append(shape("text", { x: x + 19, y: 10 + 14 * line }, one.name));
  }
  for (const one of drawn) {
    const path = one.points.map(([x, y], index) => `${index ? "L" : "M"}${px(x).toFixed(1)} ${py(y).toFixed(1)}`).join("");
    svg.append(shape("path", {
      d: path, fill: "none", stroke: one.colour, "stroke-width": one.width ?? 2, "stroke-opacity": one.opacity ?? 1,
      "stroke-linejoin": "round", "stroke-linecap": "round", ...(one.dash ? { "stroke-dasharray": one.dash } : {}),
    }));
    if (one.dots !== false && one.points.length <= 60) {
      for (const [x, y] of one.points) svg.append(shape("circle", { cx: px(x), cy: py(y), r: one.points.length === 1 ? 4 : 2.6, fill: one.colour }));
    }
  }
  hover(svg, holder, drawn, px, py, margin, height, options);
  holder.replaceChildren(svg);
}

function hover(svg, holder, series, px, py, margin, height, options) {
  const tip = document.getElementById("tip");
  const line = shape("line", { y1: margin.top, y2: height - margin.bottom, stroke: colour("soft"), visibility: "hidden" });
  svg.append(line);
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * svg.viewBox.baseVal.width;
    const nearest = series.map((one) => one.points.reduce((best, point) => (Math.abs(px(point[0]) - x) < Math.abs(px(best[0]) - x) ? point : best)));
    const place = nearest.reduce((best, point) => (Math.abs(px(point[0]) - x) < Math.abs(px(best[0]) - x) ? point : best));
    line.setAttribute("x1", px(place[0]));
    line.setAttribute("x2", px(place[0]));
    line.setAttribute("visibility", "visible");
    const format = options.format ?? number;
    const rows = series.map((one, index) => `${one.name || "value"}  ${format(nearest[index][1])}`).slice(0, 12);
    tip.textContent = [`${options.xlabel ?? "x"} ${options.formatX ? options.formatX(place[0]) : number(place[0])}`, ...rows].join("\n");
    tip.hidden = false;
    tip.style.left = `${Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8)}px`;
    tip.style.top = `${event.clientY + 14}px`;
  });
  svg.addEventListener("pointerleave", () => {
    tip.hidden = true;
    line.setAttribute("visibility", "hidden");
  });
}

// counts of equal bins from low to high; marks: function from index to colour
export function bars(holder, counts, low, high, options = {}) {
  if (!counts.some((count) => count > 0)) return empty(holder, options.empty ?? "nothing yet");
  const width = Math.max(holder.clientWidth || 300, 120);
  const height = Math.max(holder.clientHeight || 160, 70);
  const margin = { left: 42, right: 8, top: 8, bottom: 30 };
  const most = Math.max(...counts);
  const svg = shape("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": options.label ?? "" });
  const px = (x) => margin.left + ((x - low) / (high - low)) * (width - margin.left - margin.right);
  const py = (y) => height - margin.bottom - (y / most) * (height - margin.top - margin.bottom);
  for (const y of ticks(0, most, 3)) {
    svg.append(shape("line", { class: "gridline", x1: margin.left, x2: width - margin.right, y1: py(y), y2: py(y) }));
    svg.append(shape("text", { x: margin.left - 6, y: py(y) + 4, "text-anchor": "end" }, number(y)));
  }
  const step = (high - low) / counts.length;
  counts.forEach((count, index) => {
    if (!count) return;
    const left = px(low + index * step);
    svg.append(shape("rect", { x: left + 0.5, width: Math.max(px(low + (index + 1) * step) - left - 1, 1), y: py(count), height: Math.max(height - margin.bottom - py(count), 1), fill: options.fill ? options.fill(index) : colour("blue"), rx: 1 }));
  });
  for (const x of ticks(low, high, 4)) svg.append(shape("text", { x: px(x), y: height - margin.bottom + 14, "text-anchor": "middle" }, number(x)));
  svg.append(shape("line", { class: "axis", x1: margin.left, x2: width - margin.right, y1: height - margin.bottom, y2: height - margin.bottom }));
  if (options.xlabel) svg.append(shape("text", { x: width - margin.right, y: height - 1, "text-anchor": "end" }, options.xlabel));
  holder.replaceChildren(svg);
}

export function spark(values) {
  const svg = shape("svg", { viewBox: "0 0 80 18", "aria-hidden": "true" });
  if (values.length > 1) {
    const [low, high] = [Math.min(...values), Math.max(...values)];
    const points = values.map((value, index) => `${(index / (values.length - 1)) * 78 + 1},${16 - ((value - low) / (high - low || 1)) * 14}`);
    svg.append(shape("polyline", { points: points.join(" "), fill: "none", stroke: colour("blue"), "stroke-width": 1.5 }));
  }
  return svg;
}

export function prepare(canvas) {
  const scale = devicePixelRatio || 1;
  const [width, height] = [canvas.clientWidth || 600, canvas.clientHeight || 300];
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  const context = canvas.getContext("2d");
  context.setTransform(scale, 0, 0, scale, 0, 0);
  context.clearRect(0, 0, width, height);
  context.font = "11px system-ui, sans-serif";
  return { context, width, height };
}

export function raster(canvas, sample, byFirstSpike) {
  const { context, width, height } = prepare(canvas);
  const margin = { left: 46, right: 12, bottom: 30 };
  const trains = sample.trains;
  const weights = trains.map((train) => (train.size <= 32 ? 0.6 : 1));
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  const px = (time) => margin.left + (time / sample.window) * (width - margin.left - margin.right);
  let top = 0;
  trains.forEach((train, index) => {
    const block = ((height - margin.bottom) * weights[index]) / total;
    const [first, last] = [top + 20, top + block - 8];
    context.fillStyle = colour("ink");
    context.fillText(train.name, margin.left, top + 13);
    context.fillStyle = colour("soft");
    const active = new Set(train.units).size;
    context.fillText(`${train.spikes} spikes of ${active} in ${train.size} neurons`, margin.left + context.measureText(train.name).width + 10, top + 13);
    context.strokeStyle = colour("grid");
    context.strokeRect(margin.left, first, width - margin.left - margin.right, last - first);
    context.textAlign = "right";
    context.fillText("0", margin.left - 6, last);
    const count = byFirstSpike ? Math.max(active, 1) : train.size; // silent neurons have no place in an order of spikes
    context.fillText(String(count), margin.left - 6, first + 8);
    context.textAlign = "left";
    context.fillStyle = hue(index);
    const rows = byFirstSpike ? train.ranks : train.units;
    const size = Math.min(Math.max((last - first) / count, 2.5), 9);
    train.times.forEach((time, spike) => {
      const y = last - ((rows[spike] + 0.5) / count) * (last - first);
      context.fillRect(px(time) - 1, y - size / 2, 2.2, size);
    });
    top += block;
  });
  context.fillStyle = colour("soft");
  context.textAlign = "center";
  for (const time of ticks(0, sample.window, 6)) context.fillText(number(time), px(time), height - margin.bottom + 14);
  context.textAlign = "right";
  context.fillText("time (µs)", width - margin.right, height - 3);
  context.textAlign = "left";
}

export function matrix(canvas, text, [rows, columns]) {
  const bytes = Int8Array.from(atob(text), (letter) => (letter.charCodeAt(0) << 24) >> 24);
  canvas.width = columns;
  canvas.height = rows;
  const context = canvas.getContext("2d");
  const image = context.createImageData(columns, rows);
  const parse = (name) => colour(name).match(/[0-9a-f]{2}/gi).map((part) => parseInt(part, 16));
  const largest = bytes.reduce((most, value) => Math.max(most, Math.abs(value)), 1);
  const [paper, positive, negative] = [parse("card"), parse("red"), parse("blue")];
  for (let index = 0; index < rows * columns; index++) {
    const share = (Math.abs(bytes[index] ?? 0) / largest) ** 0.7;
    const end = bytes[index] > 0 ? positive : negative;
    for (let part = 0; part < 3; part++) image.data[4 * index + part] = paper[part] + (end[part] - paper[part]) * share;
    image.data[4 * index + 3] = 255;
  }
  context.putImageData(image, 0, 0);
}

export const CHIP_COLUMNS = 32;

// kinds: population of each circuit or -1; marks: [[circuits, "cross" | "ring" | "bar"]]
export function chip(canvas, kinds, marks) {
  const { context, width, height } = prepare(canvas);
  const lines = Math.ceil(kinds.length / CHIP_COLUMNS);
  const left = 34;
  const quadrants = Math.ceil(lines / 4);
  const [cell, line] = [(width - left - 4) / CHIP_COLUMNS, (height - 6 * (quadrants - 1) - 4) / lines];
  const box = (circuit) => {
    const row = Math.floor(circuit / CHIP_COLUMNS);
    return [left + (circuit % CHIP_COLUMNS) * cell, row * line + 6 * Math.floor(row / 4) + 2];
  };
  context.fillStyle = colour("soft");
  context.textAlign = "right";
  for (let row = 0; row < lines; row += 4) context.fillText(String(row * CHIP_COLUMNS), left - 6, box(row * CHIP_COLUMNS)[1] + 10);
  kinds.forEach((kind, circuit) => {
    const [x, y] = box(circuit);
    context.fillStyle = kind < 0 ? colour("empty") : hue(kind);
    context.globalAlpha = kind < 0 ? 1 : 0.75;
    context.fillRect(x + 0.6, y + 0.6, cell - 1.2, line - 1.2);
  });
  context.globalAlpha = 1;
  for (const [circuits, mark] of marks) {
    for (const circuit of circuits) {
      const [x, y] = box(circuit);
      const [cx, cy, r] = [x + cell / 2, y + line / 2, Math.min(cell, line) * 0.3];
      context.beginPath();
      context.lineWidth = 1.8;
      context.strokeStyle = mark === "cross" ? colour("ink") : colour("card");
      if (mark === "cross") { context.moveTo(cx - r, cy - r); context.lineTo(cx + r, cy + r); context.moveTo(cx + r, cy - r); context.lineTo(cx - r, cy + r); }
      else if (mark === "ring") context.arc(cx, cy, r, 0, 7);
      else { context.fillStyle = colour("card"); context.fillRect(cx - r, cy - r, 2 * r, 2 * r); }
      context.stroke();
    }
  }
}
