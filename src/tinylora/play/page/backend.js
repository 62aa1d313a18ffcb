// The answers come from `tinylora play`. The page without a server has another file of this name.

export async function open() {
  const about = await read(await fetch("api/about"));
  return { about, answer, measure, text, numbers, prompt };
}

async function* answer(question, signal) {
  const response = await post("answer", {
    values: question.values, prompt: question.prompt, problem: question.problem,
    prompted: question.prompted, temperature: question.temperature, seed: question.seed,
  }, signal);
  if (!response.ok) await read(response);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    const lines = (rest + (value ?? "")).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      const event = JSON.parse(line);
      if (event.error) throw new Error(event.error);
      yield event;
    }
    if (done) return;
  }
}

async function measure(space, candidates, first, count, prompted, signal) {
  const told = { candidates, first, count, prompted };
  return (await read(await post("measure", told, signal))).letters;
}

async function text(space, values) {
  return (await read(await post("text", { values }))).text;
}

async function numbers(text) {
  return { space: 0, values: (await read(await post("numbers", { text }))).values };
}

async function prompt() {
  return (await read(await post("prompt", {}))).tried;
}

function post(name, told, signal) {
  const headers = { "Content-Type": "application/json" };
  return fetch(`api/${name}`, { method: "POST", headers, body: JSON.stringify(told), signal });
}

async function read(response) {
  const told = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(told.error ?? `The server said ${response.status}.`);
  return told;
}
