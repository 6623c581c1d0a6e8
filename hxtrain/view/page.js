// The page: fetches what changed, and lets the panels draw it. The stream of events only says what is new.

import * as panels from "/panels.js";

const byId = (name) => document.getElementById(name);
const token = new URLSearchParams(location.search).get("token");
const state = { runs: [], folder: "", id: null, run: null, live: null, axis: "epoch", marks: {}, source: null };

function address(path, id) {
  const words = new URLSearchParams();
  if (id) words.set("id", id);
  if (token) words.set("token", token);
  return `${path}?${words}`;
}

async function ask(path, id) {
  const answer = await fetch(address(path, id), { cache: "no-store" });
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
  const text = await answer.text();
  return text ? JSON.parse(text) : null;
}

function theme(name) {
  document.documentElement.dataset.theme = name;
  try { localStorage.setItem("theme", name); } catch { /* a browser without storage */ }
}

function firstTheme() {
  const wanted = new URLSearchParams(location.search).get("theme");
  let kept = null;
  try { kept = localStorage.getItem("theme"); } catch { /* a browser without storage */ }
  const system = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  return ["dark", "light"].includes(wanted) ? wanted : ["dark", "light"].includes(kept) ? kept : system;
}

function notice(text) {
  byId("notice").hidden = !text;
  byId("notice").textContent = text;
}

function showState() {
  const run = state.runs.find((one) => one.id === state.id) ?? state.run;
  if (!run) {
    byId("name").textContent = state.folder;
    byId("state").textContent = "no run yet";
    byId("state").dataset.state = "new";
    return;
  }
  byId("name").textContent = run.name;
  byId("state").textContent = panels.stateOf(run);
  byId("state").dataset.state = run.state;
  byId("place").textContent = panels.placeOf(run);
  document.title = `${panels.WORDS[run.state] ?? run.state}: ${run.name} – hxtrain`;
  const isKilled = run.state === "stopped";
  notice(isKilled ? `The training stopped at step ${run.step} of epoch ${run.epoch + 1}: its process is gone. Continue it with trainer.resume=true in the same run directory.` : "");
}

function showAxis(at) {
  byId("axis-chip").disabled = !at.hasTime;
  byId("axis-chip").title = at.hasTime ? "" : "no chip time is recorded";
  for (const kind of ["epoch", "chip"]) byId(`axis-${kind}`).setAttribute("aria-pressed", String(at.chosen === kind));
}

function draw() {
  panels.table(state.runs, state.id, choose);
  showState();
  if (!state.run) return;
  const { run, live } = state;
  const works = [
    () => showAxis(panels.curves(run, live, state.axis)), () => panels.numbers(run, live), () => panels.sample(live, byId("order").checked),
    () => panels.firing(live), () => panels.weights(live), () => panels.circuits(live), () => panels.health(run, live),
    () => panels.placement(live), () => panels.settings(run),
  ];
  for (const work of works) {
    try { work(); } catch (error) { console.warn(String(error)); } // a damaged file spoils its own panel only
  }
  document.body.dataset.drawn ??= String(Math.round(performance.now()));
}

async function renew(what) {
  try {
    if (what.runs) {
      const answer = await ask("/runs");
      state.runs = answer.runs;
      state.folder = answer.folder;
      if (!state.runs.some((run) => run.id === state.id)) {
        state.id = new URLSearchParams(location.hash.slice(1)).get("run");
        if (!state.runs.some((run) => run.id === state.id)) state.id = firstRun();
        what.run = what.live = Boolean(state.id);
      }
    }
    const id = state.id;
    const [run, live] = await Promise.all([what.run && id ? ask("/run", id) : state.run, what.live && id ? snapshot(id) : state.live]);
    if (id !== state.id) return;
    [state.run, state.live] = [run, live];
    draw();
  } catch (error) {
    notice(`The page does not get its data (${error.message}); it tries again.`);
  }
}

async function snapshot(id) {
  try {
    const live = await ask("/live", id);
    return live && live.format === 1 ? live : null;
  } catch {
    return null; // being written, or damaged
  }
}

function firstRun() {
  const order = ["running", "stopped", "interrupted", "finished", "new"];
  return [...state.runs].sort((a, b) => order.indexOf(a.state) - order.indexOf(b.state))[0]?.id ?? null;
}

async function choose(id) {
  state.id = id;
  history.replaceState(null, "", `#run=${id}`);
  await renew({ run: true, live: true });
  listen();
}

let waiting = Promise.resolve();

function listen() {
  state.source?.close();
  if (document.hidden) return;
  const source = new EventSource(address("/events", state.id));
  state.source = source;
  state.marks = {};
  source.onmessage = (event) => {
    const marks = JSON.parse(event.data);
    const what = Object.fromEntries(["runs", "run", "live"].map((name) => [name, marks[name] !== state.marks[name]]));
    state.marks = marks;
    document.body.dataset.stream = "open";
    waiting = waiting.then(() => renew({ ...what, runs: true }));
  };
  source.onerror = () => {
    document.body.dataset.stream = "closed";
    const run = state.runs.find((one) => one.id === state.id);
    if (run?.state === "running") {
      byId("state").textContent = "server gone";
      byId("state").dataset.state = "gone";
    }
  };
}

theme(firstTheme());
byId("theme").addEventListener("click", () => { theme(document.documentElement.dataset.theme === "dark" ? "light" : "dark"); draw(); });
for (const kind of ["epoch", "chip"]) byId(`axis-${kind}`).addEventListener("click", () => { state.axis = kind; draw(); });
byId("order").addEventListener("change", draw);
document.addEventListener("visibilitychange", listen);
let resizing = 0;
addEventListener("resize", () => { clearTimeout(resizing); resizing = setTimeout(draw, 150); });
await renew({ runs: true, run: true, live: true });
listen();
