// Panels: each shows a part of a run, and says in its caption, in words, what it shows.

import { HUES, bars, chip, colour, element, empty, hue, lineChart, matrix, number, raster, seconds, spark } from "/draw.js";

const panel = (name) => document.getElementById(`panel-${name}`);
const percent = (value, digits = 2) => (Number.isFinite(value) ? `${(100 * value).toFixed(digits)} %` : "–");
const NO_SNAPSHOT = "recorded only with live=true";
// What a run calls its numbers: a training on samples, or play in an environment.
const TERMS = {
  samples: { spikes: "hidden_spikes_per_sample", stepSpikes: "hidden_spikes", of: "hidden spikes per sample", speed: "samples_per_second", rate: "samples per second" },
  play: { spikes: "output_spikes_per_trial", stepSpikes: "output_spikes_per_trial", of: "output spikes per trial", speed: "trials_per_second", rate: "trials per second" },
};
const isPlay = (run, live) => [...list(run.records), run.result ?? {}].some((record) => "score" in record) || Boolean(live?.steps?.score);
const termsOf = (run, live) => (isPlay(run, live) ? TERMS.play : TERMS.samples);
const isArtificial = (run) => Boolean(run.settings?.model) && !run.settings?.network;

function caption(name, text, data = {}) {
  const section = panel(name);
  section.querySelector(".caption").textContent = text;
  for (const [key, value] of Object.entries(data)) section.dataset[key] = value;
}

const contents = new WeakMap();

// Draws a part of the page only if what it shows has changed: a selected text or an open tip stays.
function changed(node, value, work) {
  const text = JSON.stringify(value);
  if (contents.get(node) === text) return;
  work();
  contents.set(node, text);
}

const list = (value) => (Array.isArray(value) ? value : []);
const chart = (name) => panel(name).querySelector(".chart");

// Horizontal positions: epochs, or chip time if it was recorded. A step has a place between epochs.
function axis(run, live, kind) {
  const records = list(run.records);
  let sum = 0;
  const times = records.map((record) => (sum += record.chip_seconds ?? NaN));
  const hasTime = times.some(Number.isFinite) || list(live?.steps?.chip_seconds).some((value) => value > 0);
  const chosen = kind === "chip" && hasTime ? "chip" : "epoch";
  return {
    hasTime,
    chosen,
    label: chosen === "chip" ? "chip time" : "epoch",
    format: chosen === "chip" ? seconds : number,
    ofRecord: (index) => (chosen === "chip" ? times[index] : records[index].epoch),
    ofStep: (index) => (chosen === "chip" ? live.steps.chip_seconds[index] : live.steps.step[index] / live.steps_per_epoch),
  };
}

function ofRecords(run, at, key, factor = 1) {
  return list(run.records).map((record, index) => [at.ofRecord(index), record[key] === null || record[key] === undefined ? NaN : factor * record[key]]);
}

function ofSteps(live, at, key, factor = 1) {
  return list(live?.steps?.[key]).map((value, index) => [at.ofStep(index), value === null ? NaN : factor * value]);
}

function averaged(points, size = 9) {
  return points.map(([x], index) => {
    const part = points.slice(Math.max(0, index - size + 1), index + 1).filter((point) => Number.isFinite(point[1]));
    return [x, part.reduce((sum, point) => sum + point[1], 0) / part.length];
  });
}

const last = (points) => points.filter((point) => Number.isFinite(point[1])).at(-1)?.[1];

export function curves(run, live, kind) {
  const at = axis(run, live, kind);
  const terms = termsOf(run, live);
  const isGame = isPlay(run, live);
  const common = { xlabel: at.label, isWhole: at.chosen === "epoch", formatX: at.format, empty: "no step yet" };
  const evaluated = run.result?.evaluated_on ?? "test";
  const steps = (key, factor) => ({ name: "steps", colour: colour("grey"), points: averaged(ofSteps(live, at, key, factor)), width: 1.3, opacity: 0.8, dots: false });

  const loss = ofRecords(run, at, "train_loss");
  lineChart(chart("loss"), [steps("loss"), { name: "epochs", colour: colour("blue"), points: loss }], isGame ? { ...common, empty: "rewards take the place of a loss" } : common);
  const stepLoss = last(ofSteps(live, at, "loss"));
  caption("loss", isGame ? "play has a score instead" : `${loss.length} epochs; last epoch ${number(last(loss) ?? NaN)}, last step ${number(stepLoss ?? NaN)}`, { points: loss.length + ofSteps(live, at, "loss").length, axis: at.chosen });

  const train = ofRecords(run, at, "train_accuracy", 100);
  const test = ofRecords(run, at, "test_accuracy", 100);
  const score = ofRecords(run, at, "score");
  const format = (value) => `${number(value)} %`;
  panel("accuracy").querySelector("h2").textContent = isGame ? "Score" : "Accuracy";
  if (isGame) lineChart(chart("accuracy"), [steps("score"), { name: "epochs", colour: colour("blue"), points: score }], common);
  else lineChart(chart("accuracy"), [steps("accuracy", 100), { name: "training", colour: colour("blue"), points: train }, { name: evaluated, colour: colour("red"), points: test }], { ...common, top: 100, format });
  caption("accuracy", isGame ? `reward of an action; last epoch ${number(last(score) ?? NaN)}${Number.isFinite(run.result?.best_score) ? ` of ${number(run.result.best_score)}` : ""}` : `${evaluated} ${percent((last(test) ?? NaN) / 100)}, training ${percent((last(train) ?? NaN) / 100)}`, { points: test.length });

  const spikes = ofRecords(run, at, terms.spikes);
  const rate = last(spikes) ?? last(ofSteps(live, at, terms.stepSpikes));
  const noSpikes = isArtificial(run) ? "an artificial network has no spikes" : "no hidden layer spikes, or no step yet";
  panel("spikes").querySelector("h2").textContent = isGame ? "Output spikes" : "Hidden spikes";
  lineChart(chart("spikes"), [steps(terms.stepSpikes), { name: isGame ? "epochs" : evaluated, colour: colour("green"), points: spikes }], { ...common, zero: true, empty: noSpikes });
  caption("spikes", rate === undefined ? "none" : `${number(rate)} per ${isGame ? "trial" : "sample"}`, { points: spikes.length });

  const speed = ofRecords(run, at, terms.speed);
  lineChart(chart("throughput"), [steps(terms.speed), { name: "epochs", colour: colour("violet"), points: speed }], { ...common, zero: true });
  const stepSpeed = last(ofSteps(live, at, terms.speed));
  caption("throughput", `${terms.rate}; last epoch ${number(last(speed) ?? NaN)}, last step ${number(stepSpeed ?? NaN)}`, { points: speed.length });
  return at;
}

export function numbers(run, live) {
  const records = list(run.records);
  const at = axis(run, live, "epoch");
  const record = records.at(-1) ?? {};
  const chipTime = last(ofSteps(live, at, "chip_seconds")) ?? records.reduce((sum, part) => sum + (part.chip_seconds ?? NaN), 0);
  const rest = run.result ?? {};
  const accuracy = rest.test_accuracy ?? record.test_accuracy ?? null;
  const isNewer = (record.epoch ?? 0) * (live?.steps_per_epoch ?? 0) >= (list(live?.steps?.step).at(-1) ?? 0); // a snapshot may be epochs old
  const latest = (key, value) => (isNewer ? value : undefined) ?? last(ofSteps(live, at, key)) ?? value ?? NaN;
  const terms = termsOf(run, live);
  const scores = isPlay(run, live)
    ? [[number(latest("score", record.score)), "score"], [percent(record.success ?? NaN), "success"]]
    : [[percent(accuracy ?? NaN), `accuracy, ${rest.evaluated_on ?? "test"}`], [number(latest("loss", record.train_loss)), "loss"]];
  const tiles = [
    ...scores,
    [number(record[terms.spikes] ?? last(ofSteps(live, at, terms.stepSpikes)) ?? NaN), terms.of],
    [number(latest(terms.speed, record[terms.speed])), terms.rate],
    [chipTime > 0 ? seconds(chipTime) : "–", "chip time in training"],
    [[rest.backend ?? run.settings?.backend?.name, rest.chip ?? run.settings?.chip?.name].filter((word) => word && word !== "none").join(" ") || "–", [rest.preset ?? run.settings?.chip?.preset, rest.data ?? run.settings?.data?.name ?? rest.environment].filter(Boolean).join(", ") || "device"],
  ];
  panel("numbers").replaceChildren(...tiles.map(([value, name]) => {
    const tile = element("div", { class: "tile" });
    tile.append(element("b", value.length > 9 ? { class: "long" } : {}, value), element("span", {}, name));
    return tile;
  }));
}

export function sample(run, live, byFirstSpike) {
  const views = live?.sample;
  const canvas = panel("raster").querySelector("canvas");
  const stack = panel("membranes").querySelector(".stack");
  canvas.hidden = panel("raster").querySelector("label").hidden = !views;
  if (!views) {
    const reason = !live ? NO_SNAPSHOT : isArtificial(run) ? "an artificial network has neither" : "not in the snapshot";
    caption("raster", reason);
    caption("membranes", reason);
    return stack.replaceChildren();
  }
  raster(canvas, views, byFirstSpike);
  const words = views.trains.map((train) => `${train.name} ${train.spikes} spikes`).join(", ");
  canvas.setAttribute("aria-label", words);
  caption("raster", `first sample of the step${views.label === null ? "" : `, class ${views.label}`}: ${words}`, { points: views.trains.reduce((sum, train) => sum + train.times.length, 0) });
  const holders = views.membranes.map((membranes) => {
    const isMeasured = Array.isArray(membranes.measured);
    const block = element("div");
    const title = element("p", { class: "sub" }, `${membranes.name} `);
    title.append(element("span", {}, isMeasured ? "measured as a line, modelled dashed" : "modelled; the device records none"));
    const holder = element("div", { class: "chart" });
    block.append(title, holder);
    return [block, holder, membranes, isMeasured];
  });
  stack.replaceChildren(...holders.map(([block]) => block));
  for (const [, holder, membranes, isMeasured] of holders) {
    const points = (trace) => trace.map((value, step) => [step * views.dt, value]);
    const series = membranes.neurons.flatMap((neuron, index) => [
      ...(isMeasured ? [{ name: `${neuron}`, colour: hue(index), points: points(membranes.measured[index]), width: 2.2, opacity: 0.75, dots: false }] : []),
      { name: isMeasured ? "" : `${neuron}`, colour: hue(index), points: points(membranes.modelled[index]), width: 1.4, dash: "4 3", dots: false },
    ]);
    lineChart(holder, series, { xlabel: "time (µs)", keyTitle: "neuron", lines: membranes.spiking ? [1] : [], label: `membranes of ${membranes.name}` });
  }
  const measured = holders.filter(([, , , isMeasured]) => isMeasured).map(([, , membranes]) => membranes);
  const deviation = Math.sqrt(mean(measured.flatMap((membranes) => membranes.measured.flatMap((trace, index) => trace.map((value, step) => ((value ?? NaN) - (membranes.modelled[index][step] ?? NaN)) ** 2))).filter(Number.isFinite)));
  caption("membranes", measured.length ? `threshold = 1; measured and modelled differ by ${number(deviation, 2)} rms` : list(live.placement).length ? "threshold = 1; the model's, for the spikes that the device measured" : "threshold = 1; in software the model is the device", { points: measured.length });
}

const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

export function firing(live) {
  const stack = panel("firing").querySelector(".stack");
  const layers = list(live?.firing).filter((layer) => layer.counts);
  if (!layers.length) {
    caption("firing", live ? "no layer spikes" : NO_SNAPSHOT);
    return stack.replaceChildren();
  }
  const holders = layers.map((layer) => {
    const block = element("div");
    const holder = element("div", { class: "chart" });
    block.append(element("p", { class: "sub" }, layer.name), holder);
    return [block, holder, layer];
  });
  stack.replaceChildren(...holders.map(([block]) => block));
  for (const [, holder, layer] of holders) bars(holder, layer.counts, 0, layer.end, { xlabel: "spikes per sample", fill: (index) => (index === 0 && layer.silent.length ? colour("grey") : colour("green")) });
  const silent = layers.reduce((sum, layer) => sum + layer.silent.length, 0);
  const saturated = list(live.firing).reduce((sum, layer) => sum + layer.saturated.length, 0);
  caption("firing", `${silent} silent and ${saturated} saturated neurons in the last batch`, { silent, saturated });
}

export function weights(live) {
  const stack = panel("weights").querySelector(".stack");
  const matrices = list(live?.weights);
  if (!matrices.length) {
    caption("weights", NO_SNAPSHOT);
    return stack.replaceChildren();
  }
  const holders = matrices.map((one) => {
    const block = element("div");
    const title = element("p", { class: "sub" }, `${one.name} `);
    const limit = one.at_limit === null ? "" : `, ${percent(one.at_limit, 1)} at the limit ±${number(one.end)}`;
    title.append(element("span", {}, `${one.shape[0]} × ${one.shape[1]}, ${percent(one.zero, 1)} zero${limit}`));
    const both = element("div", { class: "weights" });
    const canvas = element("canvas", { role: "img", "aria-label": `weights of ${one.name}` });
    const holder = element("div", { class: "chart" });
    both.append(canvas, holder);
    block.append(title, both);
    return [block, canvas, holder, one];
  });
  stack.replaceChildren(...holders.map(([block]) => block));
  for (const [, canvas, holder, one] of holders) {
    matrix(canvas, one.image, one.image_shape);
    bars(holder, one.counts, -one.end, one.end, { xlabel: one.unit ? `weight (${one.unit})` : "weight" });
  }
  caption("weights", `${matrices.length} ${matrices.length === 1 ? "matrix" : "matrices"} [post, pre], red positive, blue negative`, { points: matrices.length });
}

export function circuits(live) {
  const section = panel("chip");
  const [canvas, legend] = [section.querySelector("canvas"), section.querySelector(".legend")];
  const map = live?.chip;
  canvas.hidden = !map;
  if (!map) {
    caption("chip", !live ? NO_SNAPSHOT : list(live.placement).length ? "the device does not tell which circuits it uses" : "there is no device");
    return legend.replaceChildren();
  }
  const kinds = Array(map.circuits).fill(-1);
  const ofNeuron = map.neurons.map(() => []);
  for (const row of map.places) row.forEach((circuit, neuron) => { if (circuit >= 0) { kinds[circuit] = map.neurons[neuron]; ofNeuron[neuron].push(circuit); } });
  const marked = (key) => list(live.firing).flatMap((layer) => {
    const first = map.neurons.indexOf(map.populations.indexOf(layer.name));
    return first < 0 ? [] : layer[key].flatMap((neuron) => ofNeuron[first + neuron] ?? []);
  });
  const missed = [...new Set(Object.values(map.missed).flat())];
  const used = missed.filter((circuit) => kinds[circuit] >= 0).length;
  const [silent, saturated] = [marked("silent"), marked("saturated")];
  chip(canvas, kinds, [[silent, "ring"], [saturated, "square"], [missed, "cross"]]);
  const free = kinds.filter((kind) => kind < 0).length;
  const words = `chip ${map.name}: ${map.circuits - free} of ${map.circuits} circuits in use; ${missed.length} missed a target of the calibration, ${used} of them in use`;
  canvas.setAttribute("aria-label", words);
  caption("chip", words, { missed: missed.length, used, silent: silent.length });
  const entry = (className, text, sign = "") => {
    const item = element("li");
    item.append(element("i", { class: className }, sign), document.createTextNode(text));
    return item;
  };
  legend.replaceChildren(
    ...map.populations.map((name, index) => entry(`key-${index % 6}`, name)),
    entry("key-empty", "free"), entry("", `${missed.length} missed a target`, "✕"), entry("", `${silent.length} circuits of silent neurons`, "○"), entry("", `${saturated.length} of saturated ones`, "■"),
  );
}

export function health(run, live) {
  const notes = list(run.records).flatMap((record) => list(record.notes));
  const remarks = [...new Set([...list(live?.remarks), ...notes, ...list(run.result?.notes)])];
  const dropped = list(run.records).reduce((sum, record) => sum + (record.dropped_spikes ?? 0), 0);
  const retries = list(run.records).reduce((sum, record) => sum + (record.retries ?? 0), 0);
  const items = remarks.map((text) => element("li", {}, String(text)));
  const holder = panel("health").querySelector("ul");
  changed(holder, remarks, () => holder.replaceChildren(...(items.length ? items : [element("li", { class: "good" }, "no warnings")])));
  caption("health", `${remarks.length} ${remarks.length === 1 ? "warning or note" : "warnings and notes"}; ${dropped} spikes dropped, ${retries} runs repeated`, { warnings: remarks.length });
}

export function placement(live) {
  const rows = list(live?.placement);
  const body = panel("placement").querySelector("tbody");
  panel("placement").querySelector("thead").hidden = !rows.length;
  changed(body, rows, () => body.replaceChildren(...rows.map((row) => {
    const line = element("tr");
    line.append(...list(row).map((cell) => element("td", {}, String(cell))));
    return line;
  })));
  caption("placement", rows.length ? "of the device" : live ? "without a device, nothing needs a place" : NO_SNAPSHOT, { rows: rows.length });
}

export function settings(run) {
  const lines = [];
  const walk = (values, prefix) => Object.entries(values ?? {}).forEach(([name, value]) => (value && typeof value === "object" && !Array.isArray(value) ? walk(value, `${prefix}${name}.`) : lines.push([prefix + name, JSON.stringify(value)])));
  walk(run.settings, "");
  const columns = panel("settings").querySelector(".columns");
  changed(columns, lines, () => columns.replaceChildren(...lines.map(([name, value]) => {
    const line = element("div");
    line.append(element("span", {}, name), element("span", {}, value));
    return line;
  })));
  caption("settings", `${lines.length} values of config.yaml`, { rows: lines.length });
}

export const WORDS = {
  running: "running", silent: "no news", finished: "finished", interrupted: "interrupted", stopped: "stopped", new: "not begun",
};

export function placeOf(run) {
  const step = run.steps_per_epoch && run.step < run.steps_per_epoch ? `, step ${run.step} of ${run.steps_per_epoch}` : "";
  if (run.state === "finished" || !run.steps_per_epoch) return `${run.finished_epochs} of ${run.epochs ?? "?"} epochs`;
  return `epoch ${Math.min(run.epoch + 1, run.epochs ?? Infinity)} of ${run.epochs ?? "?"}${step}`;
}

export function spotOf(run) {
  if (run.steps_per_epoch && run.step) return `step ${run.step} of epoch ${run.epoch + 1}`;
  return run.finished_epochs ? `the end of epoch ${run.finished_epochs}` : "its start";
}

export function duration(value) {
  const units = [[86400, "days"], [3600, "h"], [60, "min"], [1, "s"]];
  const [size, unit] = units.find(([length]) => value >= (length === 86400 ? 2 * length : length)) ?? [1, "s"];
  return `${Math.floor(value / size)} ${unit}`;
}

export function stateOf(run) {
  if (run.state === "stopped" || run.state === "interrupted") return `${WORDS[run.state]} at ${spotOf(run)}`;
  return WORDS[run.state] ?? run.state;
}

export function table({ runs, id, isComplete }, choose) {
  const section = panel("runs");
  section.hidden = runs.length < 2;
  if (section.hidden) return;
  const counts = {};
  for (const run of runs) counts[run.state] = (counts[run.state] ?? 0) + 1;
  const isGame = runs.some((run) => run.is_scored);
  const [goal, shown] = isGame ? ["score", number] : ["accuracy", percent];
  const best = runs.filter((run) => Number.isFinite(run[goal]) && Boolean(run.is_scored) === isGame).sort((a, b) => b[goal] - a[goal])[0];
  const words = Object.entries(counts).map(([state, count]) => `${count} ${WORDS[state] ?? state}`).join(", ");
  caption("runs", `${runs.length} runs: ${words}${best ? `; best ${goal} ${shown(best[goal])} by ${best.name}` : ""}${isComplete ? "" : "; further runs are left out, view a folder further down"}`, { runs: runs.length });
  section.querySelector("th:nth-child(6)").textContent = goal;
  const series = runs.map((run, index) => ({
    name: run.name, colour: hue(index), points: Boolean(run.is_scored) === isGame ? run.curve.map((value, epoch) => [epoch + 1, isGame ? value : 100 * value]) : [],
    width: run.id === id ? 3.2 : 1.5, opacity: run.id === id ? 1 : 0.6, dots: run.id === id,
  })).filter((one) => one.points.length);
  lineChart(section.querySelector(".chart"), series, { keys: false, xlabel: "epoch", isWhole: true, ...(isGame ? {} : { top: 100, format: (value) => `${number(value)} %` }), empty: "no epoch yet", label: `${goal} of all runs` });
  const body = section.querySelector("tbody");
  const rows = new Map([...body.children].map((row) => [row.dataset.id, row])); // kept, so that focus and clicks survive
  const wanted = runs.map((run, index) => {
    const row = rows.get(run.id) ?? newRow(run.id, choose);
    row.dataset.state = run.state;
    row.setAttribute("aria-selected", String(run.id === id));
    changed(row, [run.state, run.step, run.finished_epochs, run.epochs, run.loss, run.accuracy, run.score, run.differences, run.curve, index, document.documentElement.dataset.theme], () => fill(row, run, index));
    return row;
  });
  if (wanted.length !== body.children.length || wanted.some((row, index) => row !== body.children[index])) body.replaceChildren(...wanted);
}

function newRow(id, choose) {
  const row = element("tr", { tabindex: "0", "data-id": id });
  row.addEventListener("click", () => choose(id));
  row.addEventListener("keydown", (event) => { if (event.key === "Enter") choose(id); });
  return row;
}

function fill(row, run, index) {
  const dot = element("td");
  dot.append(element("span", { class: `dot key-${index % HUES.length}` }));
  const line = element("td", { class: "spark" });
  line.append(spark(run.curve));
  const label = element("td", {}, run.name);
  const differences = Object.entries(run.differences ?? {}).map(([name, value]) => `${name}=${value === null ? "–" : typeof value === "object" ? JSON.stringify(value) : value}`);
  if (differences.length) label.append(element("small", {}, differences.join("  ")));
  row.replaceChildren(dot, label, element("td", {}, stateOf(run)), element("td", {}, `${run.finished_epochs}/${run.epochs ?? "?"}`), element("td", {}, number(run.loss ?? NaN)), element("td", {}, run.is_scored ? number(run.score ?? NaN) : percent(run.accuracy ?? NaN)), line);
}
