// The page: fetches what changed, and lets the panels draw it. The stream of events only says what is new.

import * as panels from "/panels.js";

const byId = (name) => document.getElementById(name);
const token = new URLSearchParams(location.search).get("token");
const state = { runs: [], folder: "", isComplete: true, id: null, run: null, live: null, axis: "epoch", marks: {}, source: null, received: 0 };
const AGAIN = 5000; // ms after which a page asks again for a stream that was refused
const LONG = 180; // seconds without news that deserve a word

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
  const run = state.runs.find((one) => one.id === state.id);
  if (!run) {
    byId("name").textContent = state.run?.name ?? state.folder;
    byId("state").textContent = state.run ? "gone" : "no run yet";
    byId("state").dataset.state = state.run ? "gone" : "new";
    byId("place").textContent = byId("age").textContent = "";
    document.title = "hxtrain";
    return notice(state.run ? `${state.run.name} is no longer in ${state.folder}: it was deleted, renamed or moved. The page shows what it was.` : "");
  }
  byId("name").textContent = run.name;
  byId("name").title = state.folder;
  byId("state").textContent = panels.stateOf(run);
  byId("state").dataset.state = run.state;
  byId("place").textContent = panels.placeOf(run);
  document.title = `${panels.WORDS[run.state] ?? run.state}: ${run.name} – hxtrain`;
  const isKilled = run.state === "stopped";
  notice(isKilled ? `The training stopped at ${panels.spotOf(run)}: its process is gone. Continue it with trainer.resume=true in the same run directory.` : "");
  showAge();
}

// Durations alone come from the server, so that no two clocks are compared; this page counts on from the answer.
function showAge() {
  const run = state.runs.find((one) => one.id === state.id);
  const isAtWork = run && Number.isFinite(run.age) && ["running", "silent", "stopped"].includes(run.state);
  const age = isAtWork ? run.age + (performance.now() - state.received) / 1000 : NaN;
  const isLate = run?.state === "silent" || (run?.state === "running" && run.is_live && age >= LONG);
  byId("age").textContent = !isAtWork ? "" : isLate ? `no news for ${panels.duration(age)}` : `last news ${panels.duration(age)} ago`;
  byId("age").dataset.late = String(isLate);
  const place = run?.state === "silent" ? `; it runs on ${run.machine}, of which this server sees the files alone` : "";
  byId("age").title = isAtWork ? `time since the training last wrote a file${place}` : "";
}

function showAxis(at) {
  byId("axis-chip").disabled = !at.hasTime;
  byId("axis-chip").title = at.hasTime ? "" : "no chip time is recorded";
  for (const kind of ["epoch", "chip"]) byId(`axis-${kind}`).setAttribute("aria-pressed", String(at.chosen === kind));
}

function draw() {
  panels.table(state, choose);
  showState();
  if (!state.run) return;
  const { run, live } = state;
  const works = [
    () => showAxis(panels.curves(run, live, state.axis)), () => panels.numbers(run, live), () => panels.sample(run, live, byId("order").checked),
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
      state.isComplete = answer.is_complete;
      state.received = performance.now();
      if (!state.run && !isThere(state.id)) {
        const wanted = new URLSearchParams(location.hash.slice(1)).get("run");
        state.id = isThere(wanted) ? wanted : firstRun();
        what.run = what.live = Boolean(state.id);
      }
    }
    const id = isThere(state.id) ? state.id : null; // a run that is gone stays on the page
    const [run, live] = await Promise.all([id && (what.run || !state.run) ? ask("/run", id) : state.run, id && what.live ? snapshot(id) : state.live]);
    if (id && id !== state.id) return;
    [state.run, state.live] = [run, live];
    draw();
  } catch (error) {
    notice(`The page does not get its data (${error.message}); it tries again.`);
    setTimeout(() => { waiting = waiting.then(() => renew({ runs: true, run: true, live: true })); }, AGAIN);
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

const isThere = (id) => state.runs.some((run) => run.id === id);

function firstRun() {
  const order = ["running", "silent", "stopped", "interrupted", "finished", "new"];
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
    waiting = waiting.then(() => renew(what));
  };
  source.onerror = () => {
    document.body.dataset.stream = "closed";
    const run = state.runs.find((one) => one.id === state.id);
    if (["running", "silent"].includes(run?.state)) {
      byId("state").textContent = "server gone";
      byId("state").dataset.state = "gone";
    }
    if (source.readyState === EventSource.CLOSED && state.source === source) setTimeout(() => state.source === source && listen(), AGAIN); // it refused
  };
}

theme(firstTheme());
byId("theme").addEventListener("click", () => { theme(document.documentElement.dataset.theme === "dark" ? "light" : "dark"); draw(); });
for (const kind of ["epoch", "chip"]) byId(`axis-${kind}`).addEventListener("click", () => { state.axis = kind; draw(); });
byId("order").addEventListener("change", draw);
document.addEventListener("visibilitychange", listen);
let resizing = 0;
addEventListener("resize", () => { clearTimeout(resizing); resizing = setTimeout(draw, 150); });
setInterval(showAge, 1000);
await renew({ runs: true, run: true, live: true });
listen();
