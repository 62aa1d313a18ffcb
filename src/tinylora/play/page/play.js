// The page: what is chosen, and what follows from it. `backend.js` answers, `draw.js` draws.

import { open } from "./backend.js";
import * as draw from "./draw.js";
import {
  bf16, bytesOf, interval, norm, randomOfNorm, scaled, shown, spread, summary,
} from "./numbers.js";

const LINE_POINTS = 17, GRID_POINTS = 13, GRID_PROBLEMS = 16;
const CHUNK_SECONDS = 0.5, CHUNK_ANSWERS = 8; // of measuring, at least, between two pictures of it
const FLAT = 26, GROUP = 13; // more sliders than FLAT are folded into groups of GROUP
const BACKGROUND_SECONDS = 300; // a longer measurement waits for the button

const $ = (id) => document.getElementById(id);
const lettersOf = new Map(); // what has been measured: candidate -> a letter for each problem
const state = {
  space: 0, values: [], direction: [], strength: 1, active: "strength", prompted: false,
  problem: 0, name: "With these numbers", randoms: 0,
};
let backend, space, limit, rate = 8, isTimed = false, running = new AbortController();
let sliders = [];
let banded = new Set(); // sliders whose band may be known

start().catch(report);

async function start() {
  backend = await open();
  const { about } = backend;
  $("about").textContent = [about.model, about.where, `task ${about.task}`].filter(Boolean).join(" · ");
  about.spaces.forEach((one, i) => $("space").append(new Option(spaceName(one), i)));
  $("spaces").hidden = about.spaces.length < 2;
  draw.dots($("dots"), about.problems, (place) => { choose(place); refresh(); });
  chooseSpace(0);
  choose(0);
  listen();
  if (!(await readLink())) (space.trained ? presets.trained : presets.zero)();
  document.body.dataset.ready = "yes";
}

function spaceName(one) {
  const count = one.shape[0] * one.shape[1];
  return count === 1 ? "1 number" : `${count} numbers`;
}

function zeros() {
  return new Array(space.shape[0] * space.shape[1]).fill(0);
}

// ---- what is chosen ----

function chooseSpace(place) {
  state.space = place;
  space = backend.about.spaces[place];
  $("space").value = place;
  limit = space.limit;
  state.active = zeros().length === 1 ? 0 : "strength";
  document.querySelector("[data-preset=trained]").disabled = !space.trained;
  $("training").hidden = !space.path.length;
  $("scrubber").max = space.path.length;
  $("strength-box").hidden = zeros().length === 1;
  for (const [values, letters] of space.measured ?? []) {
    if (!known(values)) lettersOf.set(keyOf(values, false), letters);
  }
  buildSliders();
}

function choose(place) {
  state.problem = (place + backend.about.problems.length) % backend.about.problems.length;
  $("prompt").value = backend.about.problems[state.problem].prompt;
}

function chosenProblem() {
  const { problems } = backend.about;
  return problems[state.problem]?.prompt === $("prompt").value ? state.problem : null;
}

function setValues(values, { name = "With these numbers", prompted = false, keepDirection = false } = {}) {
  Object.assign(state, { values, name, prompted });
  if (!keepDirection) {
    const isZero = norm(values) === 0 && norm(state.direction) > 0; // a point on the same line
    Object.assign(state, isZero ? { strength: 0 } : { direction: values, strength: 1 });
  }
  showValues();
  refresh();
}

const presets = {
  zero: () => setValues(zeros(), { name: "Zero: the base model" }),
  trained: () => space.trained && setValues(space.trained, { name: "Trained" }),
  random: () => {
    state.randoms += 1;
    const length = norm(space.trained ?? []) || 1;
    setValues(randomOfNorm(zeros().length, length, state.randoms), { name: `Random ${state.randoms}, norm ${shown(length)}` });
  },
  prompt: async () => {
    note("Trying a few prompts on training problems …");
    const [best, ...others] = await backend.prompt();
    setValues(zeros(), { name: `Prompt: ${best.name}`, prompted: true });
    note(`On training problems: ${[best, ...others].map((t) => `${t.name} ${Math.round(100 * t.accuracy)} %`).join(", ")}.`);
  },
};

function scrub(place) {
  const points = pathPoints();
  const { values, step } = points[Math.min(points.length - 1, Math.max(0, place))];
  setValues(values, { name: step ? `After step ${step}` : "Before training" });
}

function pathPoints() {
  return [{ step: 0, values: zeros() }, ...space.path];
}

// ---- sliders ----

function buildSliders() {
  const [groups, u] = space.shape;
  const label = (i) => (u > 1 ? `number ${(i % u) + 1} of ${u}${groups > 1 ? `, ${space.groups[Math.floor(i / u)]}` : ""}` : space.groups[i]);
  const all = zeros().map((_, i) => i);
  sliders = [];
  banded = new Set();
  state.direction = space.trained ?? zeros();
  if (all.length <= FLAT) {
    $("sliders").replaceChildren(...all.map((i) => slider(i, label(i))));
    return;
  }
  const size = u > 1 && u <= 64 ? u : GROUP;
  const parts = Array.from({ length: Math.ceil(all.length / size) }, (_, k) => all.slice(k * size, (k + 1) * size));
  $("sliders").replaceChildren(...parts.map((part, k) => {
    const title = u > 1 && size === u ? space.groups[k] : `${part[0] + 1} to ${part.at(-1) + 1}`;
    const details = draw.element("details", {}, draw.element("summary", { textContent: `${title} (${part.length})` }));
    details.addEventListener("toggle", () => {
      if (details.open && details.children.length === 1) {
        details.append(...part.map((i) => slider(i, label(i))));
        showValues();
      }
    });
    details.open = k === 0;
    return details;
  }));
}

function slider(i, label) {
  const name = draw.element("label", { htmlFor: `v${i + 1}`, title: label }, `v${i + 1} `, draw.element("small", { textContent: label }));
  const range = draw.element("input", { type: "range", id: `v${i + 1}`, min: -limit, max: limit, step: "any" });
  const field = draw.element("input", { type: "number", step: "any", id: `n${i + 1}` });
  field.setAttribute("aria-label", `Number ${i + 1}`);
  range.addEventListener("input", () => move(i, Number(range.value)));
  range.addEventListener("keydown", (event) => keyOnSlider(event, state.values[i], limit, (x) => move(i, x)));
  range.addEventListener("focus", () => lookAt(i));
  field.addEventListener("change", () => Number.isFinite(field.valueAsNumber) && move(i, field.valueAsNumber));
  sliders[i] = { range, field };
  return draw.element("div", { className: "slider" }, name, range, field);
}

function keyOnSlider(event, value, largest, set) {
  const step = (event.shiftKey ? largest / 500 : largest / 50);
  const moves = { ArrowLeft: -step, ArrowDown: -step, ArrowRight: step, ArrowUp: step, PageDown: -largest / 5, PageUp: largest / 5 };
  const goal = event.key in moves ? value + moves[event.key] : { Backspace: 0, Delete: 0, Home: -largest, End: largest }[event.key];
  if (goal === undefined || event.ctrlKey || event.altKey || event.metaKey) return;
  event.preventDefault();
  set(Math.min(largest, Math.max(-largest, goal)));
}

function move(i, x) {
  state.active = i;
  setValues(state.values.with(i, bf16(x)));
}

function moveAll(strength) {
  state.active = "strength";
  state.strength = strength;
  const values = strength === 1 ? state.direction : scaled(state.direction, strength);
  setValues(values, { name: `All times ${shown(strength)}`, keepDirection: true });
}

function lookAt(i) {
  if (state.active === i) return;
  state.active = i;
  refresh(true);
}

function showValues() {
  sliders.forEach(({ range, field }, i) => {
    range.value = state.values[i];
    range.setAttribute("aria-valuetext", shown(state.values[i]));
    if (document.activeElement !== field) field.value = shown(state.values[i]);
  });
  $("strength").value = state.strength;
  $("strength-value").textContent = shown(state.strength);
  $("steered-name").textContent = state.name;
  const bytes = bytesOf(state.values);
  $("bytes").textContent = `${state.values.length} number${state.values.length > 1 ? "s" : ""}, ${bytes} bytes, |v| = ${shown(norm(state.values))}`;
  const place = pathPoints().findIndex((point) => same(point.values, state.values));
  $("scrubber").value = Math.max(0, place);
  $("step").textContent = place < 0 ? "elsewhere" : `after step ${pathPoints()[place].step}`;
  for (const i of banded) showBand(i, linePoints(i));
  note("");
}

function same(one, other) {
  return one.length === other.length && one.every((x, i) => x === other[i]);
}

// ---- what follows ----

let timer;
function refresh(chartOnly = false) {
  running.abort();
  running = new AbortController();
  const { signal } = running;
  report(null);
  drawKnown();
  document.body.dataset.busy = "yes";
  $("progress").textContent = "";
  clearTimeout(timer);
  timer = setTimeout(() => follow(signal, chartOnly).catch((error) => signal.aborted || report(error)), 60);
}

async function follow(signal, chartOnly) {
  if (!chartOnly) {
    await showText();
    await showAnswers(signal);
  }
  await measured([state.values], signal, { prompted: state.prompted, each: showGauge });
  await measured([zeros()], signal, { each: showGauge });
  if (space.path.length) await measured(pathPoints().map((p) => p.values), signal, { each: showPath });
  document.body.dataset.busy = "chart";
  if (zeros().length === 2) await showLandscape(signal);
  else await showLine(signal, state.active);
  document.body.dataset.busy = "no";
}

function drawKnown() {
  showGauge();
  showPath();
  if (zeros().length === 2) drawLandscape();
  else drawLine(state.active);
}

async function showText() {
  const text = await backend.text(state.space, state.values);
  $("text").value = text;
  const place = chosenProblem();
  const link = new URLSearchParams({ v: text });
  if (place === null) link.set("ask", $("prompt").value);
  else link.set("problem", place);
  if (state.prompted) link.set("prompted", 1);
  if ($("temperature").valueAsNumber) link.set("temperature", $("temperature").value);
  if ($("seed").valueAsNumber) link.set("seed", $("seed").value);
  history.replaceState(null, "", `#${link}`);
}

// The state in the address, if it has one.
async function readLink() {
  const link = new URLSearchParams(location.hash.slice(1));
  if (!link.has("v")) return false;
  if (link.has("ask")) $("prompt").value = link.get("ask");
  else choose(Number(link.get("problem")) || 0);
  $("temperature").value = link.get("temperature") ?? 0;
  $("seed").value = link.get("seed") ?? 0;
  const prompted = link.has("prompted");
  if (prompted) await backend.prompt();
  return paste(link.get("v"), { name: prompted ? "From the link, with the best prompt" : "From the link", prompted });
}

async function paste(text, how = { name: "Pasted" }) {
  try {
    const told = await backend.numbers(text);
    if (told.space !== state.space) chooseSpace(told.space);
    setValues(told.values, how);
    return true;
  } catch (error) {
    report(error);
    return false;
  }
}

async function showAnswers(signal) {
  const boxes = { base: $("base"), steered: $("steered") };
  const verdicts = { base: $("base-verdict"), steered: $("steered-verdict") };
  const question = {
    space: state.space, values: state.values, prompt: $("prompt").value, problem: chosenProblem(),
    prompted: state.prompted, temperature: $("temperature").valueAsNumber || 0, seed: $("seed").valueAsNumber || 0,
  };
  let isFirst = true;
  for await (const event of backend.answer(question, signal)) {
    if (signal.aborted) return;
    if (isFirst) {
      Object.values(boxes).forEach((box) => box.replaceChildren());
      Object.values(verdicts).forEach((verdict) => { verdict.textContent = ""; verdict.className = "verdict"; });
      isFirst = false;
    }
    for (const side of ["base", "steered"]) {
      if (event[side]) boxes[side].append(draw.token(event[side]));
      if (event.verdicts) showVerdict(verdicts[side], event.verdicts[side], question.problem);
    }
  }
}

function showVerdict(node, score, place) {
  const { gold } = backend.about.problems[place];
  node.textContent = score === null ? "could not be judged" : score >= 1 ? "right" : `wrong (${gold})`;
  node.className = `verdict ${score === null ? "q" : score >= 1 ? "r" : "w"}`;
}

// ---- measuring ----

function keyOf(values, prompted) {
  return `${state.space} ${prompted ? "p" : ""} ${values.join()}`;
}

function known(values, prompted = false) {
  return lettersOf.get(keyOf(values, prompted)) ?? "";
}

// Letters of all candidates up to `upTo` problems, in batches of all of them; `each` after a batch.
async function measured(candidates, signal, { prompted = false, upTo = backend.about.problems.length, each = () => {} } = {}) {
  for (;;) {
    const length = (values) => known(values, prompted).length;
    const open = candidates.filter((values, i) => length(values) < upTo && candidates.findIndex((other) => same(other, values)) === i);
    if (!open.length || signal.aborted) return each();
    const first = Math.min(...open.map(length));
    const batch = open.filter((values) => length(values) === first).slice(0, 64);
    const wanted = Math.max(Math.ceil(CHUNK_ANSWERS / batch.length), Math.floor((rate * CHUNK_SECONDS) / batch.length));
    const count = Math.min(upTo - first, wanted);
    const before = performance.now(), where = state.space;
    const letters = await backend.measure(where, batch, first, count, prompted, signal);
    if (where !== state.space) return;
    isTimed = true;
    rate = 0.5 * rate + 0.5 * Math.min(4 * rate, (1000 * batch.length * count) / (performance.now() - before));
    batch.forEach((values, i) => lettersOf.set(keyOf(values, prompted), known(values, prompted) + letters[i]));
    if (signal.aborted) return;
    each();
  }
}

function showGauge() {
  const letters = known(state.values, state.prompted);
  const { right, of, share } = summary(letters);
  draw.colourDots($("dots"), letters, chosenProblem());
  $("right").textContent = letters ? right : "–";
  $("of").textContent = letters ? ` of ${of} right` : " measuring …";
  const base = summary(known(zeros()));
  const [low, high] = of ? interval(right, of) : [0, 0];
  $("interval").textContent = of ? `${Math.round(100 * share)} % (95 %: ${Math.round(100 * low)} to ${Math.round(100 * high)})${base.of ? `; base model ${base.right}` : ""}` : "";
  $("bar-right").style.width = `${100 * share}%`;
  $("bar-base").style.left = `${100 * base.share}%`;
  $("bar-base").hidden = !base.of;
}

function showPath() {
  const points = pathPoints();
  draw.bars($("path"), points.map(({ step, values }) => {
    const { of, share } = summary(known(values));
    return { step, share: of ? share : null };
  }), points.findIndex((point) => same(point.values, state.values)));
}

function lineOf(active) {
  const isStrength = active === "strength";
  const xs = isStrength ? spread(-1, 3, LINE_POINTS) : spread(-limit, limit, LINE_POINTS);
  return xs.map((x) => ({ x, values: isStrength ? (x === 1 ? state.direction : scaled(state.direction, x)) : state.values.with(active, x) }));
}

// Whether measuring all this would take so long that it waits for the button.
async function isLong(candidates, upTo, what, signal) {
  if (!isTimed) await measured(candidates.slice(0, CHUNK_ANSWERS), signal, { prompted: state.prompted, upTo: 1 });
  const missing = candidates.reduce((sum, values) => sum + Math.max(0, upTo - known(values, state.prompted).length), 0);
  if (missing / rate <= BACKGROUND_SECONDS) return false;
  $("progress").textContent = `${what} takes about ${Math.ceil(missing / rate / 60)} min here: it waits for the button.`;
  return true;
}

async function showLine(signal, active) {
  const line = lineOf(active);
  if (await isLong(line.map(({ values }) => values), backend.about.problems.length, "This line", signal)) return;
  await measured(line.map(({ values }) => values), signal, { prompted: state.prompted, each: () => drawLine(active) });
}

function linePoints(active) {
  return lineOf(active).map(({ x, values }) => ({ x, ...summary(known(values, state.prompted)) }));
}

function drawLine(active) {
  const points = linePoints(active);
  const name = active === "strength" ? "the strength of all" : `v${active + 1}`;
  const path = zeros().length === 1 && space.path.length
    ? pathPoints().map(({ step, values }) => ({ step, x: values[0], ...summary(known(values)) })).filter((p) => p.of)
    : [];
  $("chart-title").textContent = `Right answers along ${name}`;
  draw.line($("chart"), {
    points, path, label: `Share of right answers along ${name}`,
    current: active === "strength" ? state.strength : state.values[active],
    choose: (x) => (active === "strength" ? moveAll(bf16(x)) : move(active, x)),
  });
  showBand(active, points);
}

function showBand(active, points) {
  const range = active === "strength" ? $("strength") : sliders[active]?.range;
  if (!range) return;
  if (points.every((point) => point.of)) {
    range.style.setProperty("--band", draw.band(points));
    banded.add(active);
  } else if (banded.delete(active)) range.style.removeProperty("--band");
}

async function mapAll() {
  running.abort();
  running = new AbortController();
  const { signal } = running;
  document.body.dataset.busy = "map";
  if (zeros().length === 2) await landscape(signal);
  const which = [...new Set([state.active, ...zeros().keys()])]; // the one on the chart first
  for (const [place, active] of which.entries()) {
    const rest = ((which.length - place) * LINE_POINTS * backend.about.problems.length) / rate;
    $("progress").textContent = `Line ${place + 1} of ${which.length}, about ${Math.ceil(rest)} s left`;
    const line = lineOf(active);
    const each = () => (zeros().length !== 2 && active === state.active ? drawLine(active) : showBand(active, linePoints(active)));
    await measured(line.map(({ values }) => values), signal, { prompted: state.prompted, each });
    if (signal.aborted) return;
  }
  $("progress").textContent = "";
  document.body.dataset.busy = "no";
}

function grid() {
  const xs = spread(-limit, limit, GRID_POINTS);
  return { xs, ys: xs, rows: xs.map((second) => xs.map((first) => [first, second])) };
}

async function showLandscape(signal) {
  const upTo = Math.min(GRID_PROBLEMS, backend.about.problems.length);
  if (!(await isLong(grid().rows.flat(), upTo, "The landscape", signal))) await landscape(signal);
}

async function landscape(signal) {
  const { rows } = grid();
  const upTo = Math.min(GRID_PROBLEMS, backend.about.problems.length);
  for (const of of [Math.ceil(upTo / 4), upTo]) {
    for (const row of rows) {
      await measured(row, signal, { prompted: state.prompted, upTo: of, each: drawLandscape });
      if (signal.aborted) return;
    }
  }
}

function drawLandscape() {
  const { xs, ys, rows } = grid();
  $("chart-title").textContent = "The landscape: right answers for every pair of numbers";
  draw.landscape($("chart"), {
    xs, ys, current: state.values, label: "Share of right answers for every pair of numbers",
    cells: rows.map((row) => row.map((values) => summary(known(values, state.prompted)))),
    path: space.path.length ? pathPoints().map(({ step, values }) => ({ step, x: values[0], y: values[1] })) : [],
    choose: (values) => setValues(values.map(bf16)),
  });
}

// ---- the reader ----

function listen() {
  document.querySelectorAll("[data-preset]").forEach((button) => {
    button.onclick = () => Promise.resolve(presets[button.dataset.preset]()).catch(report);
  });
  $("space").onchange = () => { chooseSpace(Number($("space").value)); setValues(space.trained ?? zeros(), { name: "Trained" }); };
  $("scrubber").oninput = () => scrub(Number($("scrubber").value));
  $("strength").oninput = () => moveAll(bf16(Number($("strength").value)));
  $("strength").onkeydown = (event) => keyOnSlider(event, state.strength, 3, (x) => moveAll(bf16(Math.max(-1, x))));
  $("strength").onfocus = () => lookAt("strength");
  $("previous").onclick = () => { choose(state.problem - 1); refresh(); };
  $("next").onclick = () => { choose(state.problem + 1); refresh(); };
  $("again").onclick = () => refresh();
  $("temperature").onchange = $("seed").onchange = $("prompt").onchange = () => refresh();
  $("map").onclick = () => mapAll().catch(report);
  $("text").onchange = () => paste($("text").value.trim());
  $("copy").onclick = () => copy($("text").value, "The adapter");
  $("share").onclick = () => copy(location.href, "The link");
  window.addEventListener("hashchange", () => readLink().catch(report));
  document.addEventListener("keydown", onKey);
}

function onKey(event) {
  if ((event.ctrlKey || event.metaKey) && event.key === "Enter") return refresh();
  const isTyping = event.target.matches("textarea, input:not([type=range]), select");
  if (isTyping || event.ctrlKey || event.metaKey || event.altKey) return undefined;
  const keys = {
    z: presets.zero, t: presets.trained, r: presets.random, p: presets.prompt,
    ",": () => $("previous").click(), ".": () => $("next").click(),
    "[": () => space.path.length && scrub(Number($("scrubber").value) - 1),
    "]": () => space.path.length && scrub(Number($("scrubber").value) + 1),
  };
  if (!(event.key in keys)) return undefined;
  event.preventDefault();
  return Promise.resolve(keys[event.key]()).catch(report);
}

async function copy(text, what) {
  try {
    await navigator.clipboard.writeText(text);
    $("copied").textContent = `${what} was copied.`;
  } catch {
    $("copied").textContent = `This browser does not let the page copy. ${what}: select it and copy it yourself.`;
  }
}

function note(text) {
  $("note").textContent = text;
}

function report(error) {
  $("problem-report").hidden = !error;
  $("problem-report").textContent = error ? error.message ?? String(error) : "";
}
