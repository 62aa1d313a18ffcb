// The answers come from the embedded model in the reader's own browser: a worker runs it.

const worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
const waiting = new Map(); // request -> what to do with its parts and its end
let last = 0;

worker.onmessage = ({ data }) => {
  const { part, end } = waiting.get(data.id) ?? {};
  if ("part" in data) part?.(data.part);
  else end?.(data);
};
worker.onerror = (event) => {
  for (const { end } of waiting.values()) end({ error: event.message || "The worker did not start." });
};

// One request; `part` gets what comes before its end. An abort stops it at the next token.
export function request(kind, told, { signal, part } = {}) {
  const id = ++last;
  return new Promise((resolve, reject) => {
    const stop = () => {
      worker.postMessage({ id, kind: "abort" });
      end({ error: "aborted" });
    };
    const end = ({ value, error }) => {
      waiting.delete(id);
      signal?.removeEventListener("abort", stop);
      if (error === undefined) resolve(value);
      else reject(new Error(error));
    };
    if (signal?.aborted) return end({ error: "aborted" });
    signal?.addEventListener("abort", stop);
    waiting.set(id, { part, end });
    worker.postMessage({ id, kind, ...told });
    return undefined;
  });
}

export async function open() {
  const about = await request("about", {});
  return { about, answer, measure, text, numbers, prompt };
}

async function* answer(question, signal) {
  const parts = [];
  let wake = () => {}, failure = null, isOver = false;
  const part = (event) => { parts.push(event); wake(); };
  request("answer", { question }, { signal, part })
    .catch((error) => { failure = error; })
    .finally(() => { isOver = true; wake(); });
  for (;;) {
    while (parts.length) yield parts.shift();
    if (failure) throw failure;
    if (isOver) return;
    await new Promise((resolve) => { wake = resolve; });
  }
}

function measure(space, candidates, first, count, prompted, signal) {
  return request("measure", { space, candidates, first, count, prompted }, { signal });
}

function text(space, values) {
  return request("text", { space, values });
}

function numbers(text) {
  return request("numbers", { text });
}

function prompt() {
  return request("prompt", {});
}
