const SECONDS = 120;
const byId = (name) => document.getElementById(name);
const history = [];
const turns = [];
let key = "";
let running = null;

const megabytes = (bytes) =>
  bytes === null ? "-" : bytes < 1e9 ? `${(bytes / 1e6).toFixed(0)} MB` : `${(bytes / 1e9).toFixed(2)} GB`;
const headers = () => ({
  "content-type": "application/json",
  ...(key ? { authorization: `Bearer ${key}` } : {}),
});

function path(kind, values, top, height) {
  const end = history.at(-1).when;
  let text = "";
  values.forEach((value, index) => {
    if (value === null || value === undefined) return;
    const x = 600 * (1 - (end - history[index].when) / (SECONDS * 1000));
    const y = height - 4 - (height - 8) * Math.min(1, value / top);
    text += `${text ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`;
  });
  const line = document.createElementNS("http://www.w3.org/2000/svg", "path");
  line.setAttribute("class", kind);
  line.setAttribute("d", text);
  return line;
}

function draw() {
  const column = (name) => history.map((row) => row[name]);
  const model = history.map((row) => row.weights + row.cache);
  const process = column("process");
  // A limit far above all that is taken would press everything else to the ground.
  const most = Math.max(...process, ...model);
  const limit = column("limit").map((value) => (value === null || value > 3 * most ? null : value));
  const top = 1.1 * Math.max(most, ...limit.filter((value) => value !== null));
  byId("memory-chart").replaceChildren(
    path("limit", limit, top, 180),
    path("process", process, top, 180),
    path("model", model, top, 180),
  );
  byId("scale").textContent = `· up to ${megabytes(top)}, last ${SECONDS / 60} minutes`;
  const fastest = Math.max(1, ...column("rate"));
  const levels = Math.max(1, history.at(-1).levels - 1);
  byId("level-chart").replaceChildren(
    path("level", column("level"), levels, 90),
    path("rate", column("rate"), fastest, 90),
  );
  byId("rate-scale").textContent = `· levels up to ${levels}, ${fastest.toFixed(0)} tokens/s`;
}

function show(state) {
  byId("level").textContent = `${state.level} of ${state.levels - 1}`;
  byId("level-note").textContent = state.loss === null ? "" : `loss ${state.loss.toFixed(3)} nats a token`;
  byId("memory").textContent = megabytes(state.weights + state.cache);
  byId("memory-note").textContent = `weights ${megabytes(state.weights)}, cache ${megabytes(state.cache)}`;
  byId("free").textContent = megabytes(state.free);
  byId("free-note").textContent =
    state.limit === null ? "no limit" : `of ${megabytes(state.limit)} (${state.bound})`;
  byId("rate").textContent = `${state.rate.toFixed(1)} tokens/s`;
  byId("rate-note").textContent = `${state.running} running, ${state.waiting} waiting`;
}

function say(words, bad = false) {
  byId("status").textContent = words;
  byId("status").className = bad ? "bad" : "";
}

async function look() {
  try {
    const answer = await fetch("/state", { headers: headers() });
    const state = await answer.json();
    byId("key-label").hidden = answer.status !== 401 && !key;
    if (!answer.ok) throw new Error(state.error.message);
    history.push({ when: Date.now(), ...state });
    while (history[0].when < Date.now() - SECONDS * 1000) history.shift();
    say(`${state.engine}, ${state.answer_tokens} tokens made`);
    show(state);
    draw();
  } catch (error) {
    say(error.message, true);
  }
  setTimeout(look, document.hidden ? 5000 : 1000);
}

function bubble(kind, text) {
  const box = document.createElement("div");
  box.className = kind;
  box.textContent = text;
  byId("log").append(box);
  return box;
}

async function* events(answer) {
  let rest = "";
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts)
      if (part.startsWith("data: ") && part !== "data: [DONE]") yield JSON.parse(part.slice(6));
  }
}

async function ask(text) {
  turns.push({ role: "user", content: text });
  bubble("user", text);
  const box = bubble("assistant", "");
  running = new AbortController();
  byId("send").disabled = !(byId("stop").disabled = false);
  try {
    const body = JSON.stringify({
      model: document.querySelector("h1").textContent,
      messages: turns,
      stream: true,
      temperature: 0.7,
    });
    const answer = await fetch("/v1/chat/completions", {
      method: "POST",
      headers: headers(),
      body,
      signal: running.signal,
    });
    if (!answer.ok) throw new Error((await answer.json()).error.message);
    for await (const part of events(answer)) {
      if (part.error) throw new Error(part.error.message);
      box.textContent += part.choices[0]?.delta.content ?? "";
    }
  } catch (error) {
    if (error.name !== "AbortError") bubble("error", error.message);
  }
  turns.push({ role: "assistant", content: box.textContent });
  byId("send").disabled = !(byId("stop").disabled = true);
}

byId("ask").addEventListener("submit", (submitted) => {
  submitted.preventDefault();
  const text = byId("text").value.trim();
  if (!text || byId("send").disabled) return;
  byId("text").value = "";
  ask(text);
});
byId("text").addEventListener("keydown", (pressed) => {
  if (pressed.key === "Enter" && !pressed.shiftKey) {
    pressed.preventDefault();
    byId("ask").requestSubmit();
  }
});
byId("stop").addEventListener("click", () => running?.abort());
byId("key").addEventListener("change", () => {
  key = byId("key").value;
});
look();
