// The embedded model in a worker: onnxruntime-web computes, this file decodes and grades.
// It mirrors tinylora.play.steering and the grader of task pocket; tests compare the two.

import { Tokenizer } from "./vendor/tokenizers.min.mjs";
import * as ort from "./vendor/ort.wasm.min.mjs";
import { uniforms } from "./numbers.js";
import * as codec from "./text.js";

const HIDDEN = -1e9; // added to a score that must not count
const SIDES = ["base", "steered"];

ort.env.wasm.wasmPaths = new URL("vendor/", import.meta.url).href;
ort.env.wasm.numThreads = 1; // more need headers that plain web hosts do not send
const loaded = load();
const aborted = new Set();
let turn = Promise.resolve(); // one request after the other

self.onmessage = ({ data }) => {
  if (data.kind === "abort") aborted.add(data.id);
  else turn = turn.then(() => serve(data));
};

async function load() {
  const [data, tokenizer, config] = await Promise.all(
    ["data.json", "tokenizer.json", "tokenizer_config.json"].map(async (name) =>
      (await fetch(new URL(name, import.meta.url))).json()));
  const session = await ort.InferenceSession.create(new URL("model.onnx", import.meta.url).href, { executionProviders: ["wasm"] });
  return { data, session, tokenizer: new Tokenizer(tokenizer, config), mixings: data.about.spaces.map(mixingOf) };
}

function mixingOf({ mixing }) {
  return new ort.Tensor("float32", Float32Array.from(mixing.flat()), [mixing.length, mixing[0].length]);
}

const kinds = {
  about: async ({ data }) => data.about,
  prompt: async ({ data }) => data.tried,
  text: async ({ data }, { space, values }) => codec.encode(data.texts[space], values),
  numbers: async ({ data }, { text }) => codec.decode(data.texts, text),
  answer, measure,
  ids: async (model, { prompt, prompted }) => idsOf(model, prompt, prompted), // for tests
  greedy: async (model, { space, candidates, prompts }) => // for tests
    (await complete(model, prompts, candidates, space, () => false)).map(({ ids }) => ids),
};

async function serve(told) {
  const isStopped = () => aborted.has(told.id);
  try {
    const model = await loaded;
    const part = (value) => self.postMessage({ id: told.id, part: value });
    if (!isStopped()) self.postMessage({ id: told.id, value: await kinds[told.kind](model, told, part, isStopped) });
  } catch (error) {
    self.postMessage({ id: told.id, error: error.message ?? String(error) });
  } finally {
    aborted.delete(told.id);
  }
}

function idsOf({ data, tokenizer }, prompt, prompted) {
  const { before, after, examples } = data.template;
  return tokenizer.encode((prompted ? examples : "") + before + prompt + after, { add_special_tokens: false }).ids;
}

function decoded({ tokenizer }, ids) {
  return ids.length ? tokenizer.decode(ids, { skip_special_tokens: true }) : "";
}

// ---- a batch of rows, each with a v of its own ----

class Batch {
  // `prompts`: token ids, padded on the left; `vs`: as many v.
  constructor({ session, data, mixings }, prompts, vs, space) {
    const { layers, heads, head_size: size } = data.sizes;
    Object.assign(this, { session, mixing: mixings[space], vocabulary: data.sizes.vocabulary });
    this.longest = Math.max(...prompts.map((ids) => ids.length));
    this.padding = prompts.map((ids) => this.longest - ids.length);
    this.prompts = prompts;
    this.vs = vs;
    this.shape = [layers, prompts.length, heads, 0, size];
    this.keys = this.values = new Float32Array(0);
  }

  get rows() {
    return this.vs.length;
  }

  // Logits after the prompts, all positions of them where `all`.
  read() {
    return this.forward(this.prompts.map((ids, row) => [...new Array(this.padding[row]).fill(0), ...ids]));
  }

  // Logits (rows x tokens x vocabulary) of the next tokens, as many in each row.
  async forward(ids) {
    const rows = this.rows, tokens = ids[0].length, past = this.shape[3], total = past + tokens;
    const positions = ids.map((_, row) => Array.from({ length: tokens }, (_, t) => BigInt(Math.max(0, past + t - this.padding[row]))));
    const mask = new Float32Array(rows * tokens * total);
    for (let row = 0, at = 0; row < rows; row++) {
      for (let t = 0; t < tokens; t++) {
        for (let k = 0; k < total; k++, at++) if (k < this.padding[row] || k > past + t) mask[at] = HIDDEN;
      }
    }
    const whole = (lists) => BigInt64Array.from(lists.flat(), BigInt);
    const floats = (data, dims) => new ort.Tensor("float32", data, dims);
    const found = await this.session.run({
      input_ids: new ort.Tensor("int64", whole(ids), [rows, tokens]),
      position_ids: new ort.Tensor("int64", whole(positions), [rows, tokens]),
      mask: floats(mask, [rows, 1, tokens, total]),
      v: floats(Float32Array.from(this.vs.flat()), [rows, this.vs[0].length]),
      mixing: this.mixing,
      keys: floats(this.keys, this.shape),
      values: floats(this.values, this.shape),
    });
    this.keys = found.new_keys.data;
    this.values = found.new_values.data;
    this.shape = found.new_keys.dims.slice();
    return found.logits.data;
  }

  // Keep these rows alone.
  keep(places) {
    const [layers, rows, ...rest] = this.shape;
    const size = rest.reduce((product, n) => product * n, 1);
    const chosen = (data) => {
      const kept = new Float32Array(layers * places.length * size);
      for (let layer = 0, at = 0; layer < layers; layer++) {
        for (const row of places) {
          const start = (layer * rows + row) * size;
          kept.set(data.subarray(start, start + size), at);
          at += size;
        }
      }
      return kept;
    };
    this.keys = chosen(this.keys);
    this.values = chosen(this.values);
    this.vs = places.map((row) => this.vs[row]);
    this.padding = places.map((row) => this.padding[row]);
    this.shape = [layers, places.length, ...rest];
  }

  // The logits of one row at its last token.
  last(logits, row) {
    const tokens = logits.length / this.vocabulary / this.rows;
    const end = (row + 1) * tokens * this.vocabulary;
    return logits.subarray(end - this.vocabulary, end);
  }
}

function argmax(logits) {
  let best = 0;
  for (let i = 1; i < logits.length; i++) if (logits[i] > logits[best]) best = i;
  return best;
}

function logNorm(logits) {
  const largest = logits[argmax(logits)];
  let sum = 0;
  for (const x of logits) sum += Math.exp(x - largest);
  return largest + Math.log(sum);
}

// A token at the place `noise` of the cumulative distribution; the likeliest at temperature 0.
function drawn(logits, temperature, noise) {
  if (!temperature) return argmax(logits);
  const hot = logits.map((x) => x / temperature), norm = logNorm(hot);
  let sum = 0;
  for (let i = 0; i < hot.length; i++) {
    sum += Math.exp(hot[i] - norm);
    if (sum > noise) return i;
  }
  return hot.length - 1;
}

// ---- two answers, token by token ----

// Four rows: the base model writes rows 0 and 1, v rows 2 and 3; one of each reads the other's.
async function answer(model, { question }, part, isStopped) {
  const { data } = model;
  const { values, prompt, prompted, temperature, space } = question;
  const zero = values.map(() => 0);
  const plain = idsOf(model, prompt, false), steered = idsOf(model, prompt, prompted);
  if (Math.max(plain.length, steered.length) + data.about.budget > data.sizes.context) {
    throw new Error(`The prompt has ${Math.max(plain.length, steered.length)} tokens, and with ${data.about.budget} of an answer it passes the model's context of ${data.sizes.context}. Shorten the prompt.`);
  }
  const batch = new Batch(model, [plain, steered, plain, steered], [zero, values, zero, values], space);
  const next = uniforms(question.seed);
  const spoken = SIDES.map(() => ({ ids: [], shown: "", hasEnded: false }));
  let logits = await batch.read();
  for (let t = 0; t < data.about.budget && !isStopped(); t++) {
    const noise = next();
    const rows = [0, 1, 2, 3].map((row) => batch.last(logits, row));
    const tokens = [0, 3].map((row) => drawn(rows[row], temperature, noise));
    const norms = rows.map(logNorm);
    const event = {};
    SIDES.forEach((side, k) => {
      const [under, without] = [2 * k + 1, 2 * k].map((row) => rows[row][tokens[k]] - norms[row]);
      event[side] = add(model, spoken[k], tokens[k], k ? under : without, under - without);
    });
    part(event);
    if (spoken.every(({ hasEnded }) => hasEnded)) break;
    if (t + 1 < data.about.budget) logits = await batch.forward([tokens[0], tokens[0], tokens[1], tokens[1]].map((id) => [id]));
  }
  const problem = question.problem === null ? null : data.about.problems[question.problem];
  if (problem && !isStopped()) {
    part({ verdicts: Object.fromEntries(SIDES.map((side, k) => [side, Number(isRight(problem.gold, decoded(model, spoken[k].ids)))])) });
  }
}

function add(model, said, id, logprob, change) {
  if (said.hasEnded) return null;
  said.ids.push(id);
  said.hasEnded = model.data.eos.includes(id);
  const whole = decoded(model, said.ids);
  if (whole.endsWith("\ufffd")) return { text: "", logprob, change };
  const text = whole.slice(said.shown.length);
  said.shown = whole;
  const isFinite = Number.isFinite(change);
  return { text, logprob: isFinite ? logprob : null, change: isFinite ? change : null };
}

// ---- which problems come out right ----

async function measure(model, { space, candidates, first, count, prompted }, part, isStopped) {
  const problems = model.data.about.problems.slice(first, first + count);
  const prompts = candidates.flatMap(() => problems.map(({ prompt }) => idsOf(model, prompt, prompted)));
  const vs = candidates.flatMap((values) => problems.map(() => values));
  const completions = await complete(model, prompts, vs, space, isStopped);
  const means = await baseMeans(model, prompts, completions, space, isStopped);
  if (isStopped()) return null;
  const letters = completions.map(({ ids, isCut }, i) => {
    if (isRight(problems[i % problems.length].gold, decoded(model, ids))) return "r";
    const isOdd = !(means[i] >= -model.data.broken_nats); // NaN is odd
    return isOdd || (isCut && runsInCircles(ids, model.data.circle_tokens)) ? "b" : "w";
  });
  return candidates.map((_, c) => letters.slice(c * problems.length, (c + 1) * problems.length).join(""));
}

function runsInCircles(ids, count) {
  const last = ids.slice(-count);
  return 4 * new Set(last).size < last.length;
}

// Greedy completions of all prompts, a row each; rows that have ended leave the batch.
async function complete(model, prompts, vs, space, isStopped) {
  const { eos, about } = model.data;
  const done = prompts.map(() => ({ ids: [], isCut: true }));
  const batch = new Batch(model, prompts, vs, space);
  let open = prompts.map((_, i) => i);
  let logits = await batch.read();
  for (let t = 0; t < about.budget && !isStopped(); t++) {
    const tokens = open.map((_, row) => argmax(batch.last(logits, row)));
    tokens.forEach((id, row) => {
      done[open[row]].ids.push(id);
      if (eos.includes(id)) done[open[row]].isCut = false;
    });
    const rows = open.map((_, row) => row).filter((row) => !eos.includes(tokens[row]));
    if (!rows.length || t + 1 === about.budget) break;
    if (rows.length < open.length) {
      batch.keep(rows);
      open = rows.map((row) => open[row]);
    }
    logits = await batch.forward(rows.map((row) => [tokens[row]]));
  }
  return done;
}

// The mean log-probability of each answer's tokens under the base model, in nats.
async function baseMeans(model, prompts, completions, space, isStopped) {
  if (isStopped()) return [];
  const zero = new Array(model.data.about.spaces[space].shape.reduce((a, b) => a * b)).fill(0);
  const texts = prompts.map((ids, i) => [...ids, ...completions[i].ids]);
  const batch = new Batch(model, texts, texts.map(() => zero), space);
  const logits = await batch.read(), { vocabulary } = batch;
  return texts.map((ids, row) => {
    const length = completions[row].ids.length;
    let sum = 0;
    for (let t = ids.length - length; t < ids.length; t++) {
      const before = (row * batch.longest + batch.padding[row] + t - 1) * vocabulary;
      const here = logits.subarray(before, before + vocabulary);
      sum += here[ids[t]] - logNorm(here);
    }
    return sum / length;
  });
}

function isRight(gold, answer) {
  const match = answer.match(/####\s*(-?\d+)/);
  return match !== null && Number(match[1]) === Number(gold);
}
