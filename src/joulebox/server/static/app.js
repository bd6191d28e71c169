// Streams one prompt into the page. The pages work without this file; figures are formatted as in wording.py.
// What stands in an underscore call is put into the reader's language before this file is sent.

const PREFIXES = [[1e9, "G"], [1e6, "M"], [1e3, "k"], [1, ""], [1e-3, "m"], [1e-6, "µ"], [1e-9, "n"]];
const NOT_MEASURED = _("not measured");
const known = (x) => typeof x === "number" && Number.isFinite(x);

const prefixOf = (x) =>
  x === 0 || (x >= 0.1 && x < 1e4) ? [1, ""] : PREFIXES.find(([scale]) => x >= scale) ?? PREFIXES.at(-1);

const placeOf = (x, digits) => Number(Math.abs(x).toExponential(digits - 1).split("e")[1]) + 1 - digits;

const fixed = (x, place) => {
  const step = 10 ** Math.max(place, 0);
  const text = place > 0 ? String(Math.round(Math.abs(x) / step) * step) : Math.abs(x).toFixed(-place);
  const shown = document.documentElement.lang === "de" ? text.replace(".", ",") : text;
  return x < 0 && /[1-9]/.test(text) ? `−${shown}` : shown;
};

const fill = (words, values) => words.replace(/\{(\w+)\}/g, (_, name) => values[name]);

/** `86.4 ± 3.1 J`: two significant digits of `u` decide the digits of both; without `u`, three of the value. */
export const quantity = (value, u, unit) => {
  if (!known(value)) return NOT_MEASURED;
  const spread = known(u) && u > 0 ? u : 0;
  const [scale, prefix] = prefixOf(Math.max(Math.abs(value), spread));
  const place = spread ? placeOf(spread / scale, 2) : placeOf(value / scale, 3);
  const shown = fixed(value / scale, place);
  return spread ? `${shown} ± ${fixed(spread / scale, place)} ${prefix}${unit}` : `${shown} ${prefix}${unit}`;
};

/** `5.21 s`: a figure without uncertainty and without prefix. */
export const plain = (value, unit = "", digits = 3) => {
  if (!known(value)) return NOT_MEASURED;
  const shown = value ? fixed(value, Math.min(0, placeOf(value, digits))) : "0";
  return unit ? `${shown} ${unit}` : shown;
};

const $ = (id) => document.getElementById(id);
const show = (node, on = true) => node?.toggleAttribute("hidden", !on);

// --- one prompt ---

let source;
let text;
let last;
let tokens;
let begun;
let counted;
let powers;
let simulated = "";

const say = (words) => { $("state").textContent = words; };

const roughly = (s) => s > 95 ? `${Math.round(s / 60)} min` : `${s < 10 ? Math.ceil(s) : Math.round(s / 5) * 5} s`;

const waiting = ({ position, expected_start: start, reason }) => {
  const told = reason || (position ? fill(_("Prompts before yours: {n}"), { n: position })
    : position === 0 ? _("Yours is next") : _("Waiting for a node"));
  const left = (Date.parse(start) - Date.now()) / 1000;
  const about = left > 1 ? fill(_(", about {time}"), { time: roughly(left) }) : "";
  return `${told[0].toUpperCase()}${told.slice(1).replace(/\.$/, "")}${about}.`;
};

const blank = () => {
  text.data = "";
  tokens = 0;
  begun = undefined;
  powers = new Map();
  for (const id of ["answer", "live", "spark"]) show($(id), false);
  for (const id of ["pace", "power"]) $(id).textContent = "";
};

const done = (words, failed) => {
  source?.close();
  show($("stop"), false);
  show($("live"), false);
  $("run").dataset.final = "";
  $("ask")?.querySelector("button").removeAttribute("disabled");
  say(words);
  $("state").classList.toggle("failed", Boolean(failed));
};

const token = ({ text: piece, n }, id) => {
  const [attempt, seq] = id.split(".").map(Number);
  if (last && (attempt < last[0] || (attempt === last[0] && seq <= last[1]))) return;
  if (id) last = [attempt, seq];
  const now = performance.now();
  if (begun === undefined) {
    begun = now;
    say(_("Answering."));
  }
  if (now - begun < 300) counted = now; // what comes at once was said before this page listened
  else if (known(n)) tokens += n;
  if (now - counted > 500) $("pace").textContent = plain(tokens / (now - counted) * 1000, _("tokens/s"), 2);
  text.appendData(piece);
  show($("answer"));
  show($("live"));
};

const power = ({ t_s: t, w, scope }) => {
  if (!known(w)) return;
  const points = powers.get(scope) ?? [];
  points.push([t, w]);
  powers.set(scope, points.slice(-240));
  const now = ([name, p]) => name === "modelled" ? `${plain(p.at(-1)[1], "W")} ${_("modelled")}`
    : `${name.toUpperCase()} ${plain(p.at(-1)[1], "W")}${simulated}`;
  $("power").textContent = [...powers].map(now).join(" · ");
  const [first, curve] = powers.entries().next().value;
  const top = Math.max(...curve.map((p) => p[1])) || 1;
  const [start, end] = [curve[0][0], curve.at(-1)[0]];
  const at = ([x, y]) => `${((x - start) / (end - start || 1)) * 120},${31 - (y / top) * 30}`;
  const line = $("spark").firstElementChild;
  line.setAttribute("points", curve.map(at).join(" "));
  $("spark").setAttribute("aria-label", fill(_("Power, {scope}, from 0 to {top}"), { scope: first + simulated, top: plain(top, "W") }));
  show($("spark"), curve.length > 2);
  show($("live"));
};

const receipt = async (r) => {
  const e = r.energy.answer;
  const marks = [r.energy.scope === "modelled" && _("modelled"), r.simulated && _("simulated")].filter(Boolean);
  const figure = e && [quantity(e.j, e.u, "J"), ...marks].join(", ");
  const told = [_("Done."), e ? fill(_("This answer took {figure}."), { figure }) : _("Its energy was not measured.")];
  if (r.finish_reason === "length") told.push(_("It was cut at the token limit."));
  done(told.join(" "));
  const address = `/receipts/${encodeURIComponent(r.id)}`;
  const page = await fetch(address);
  if (!page.ok) throw new Error(`no receipt at ${address}`);
  const slip = new DOMParser().parseFromString(await page.text(), "text/html").querySelector(".receipt");
  $("slip").replaceChildren(document.adoptNode(slip));
  document.dispatchEvent(new Event("slip"));
};

const MEASURING = _("The answer is complete. Measuring until the machine is calm again.");

const settling = ({ sensor, now_c: now, target_c: target, expected_s: s }) => {
  const values = { sensor, now: plain(now, "°C"), target: plain(target, "°C") };
  const told = known(now) ? fill(_("Letting the machine settle: {sensor} at {now}, waiting for {target}"), values)
    : _("Letting the machine settle");
  say(`${told}${known(s) ? fill(_(", about {time}"), { time: roughly(s) }) : ""}.`);
};

const HANDLERS = {
  queued: (d) => say(waiting(d)),
  settling,
  phase: ({ phase }) => {
    const words = {
      settling: _("Waiting until the machine is calm enough to measure."),
      loading: _("Loading the model."),
      answering: _("Reading your prompt."),
      measuring: MEASURING,
    }[phase];
    if (words && !(phase === "answering" && text.data)) say(words);
  },
  started: ({ node }) => {
    simulated = JSON.parse($("run").dataset.simulated).includes(node) ? ` ${_("simulated")}` : "";
    say(fill(_("Reading your prompt on {node}."), { node }));
  },
  token,
  power,
  restarted: ({ attempt }) => {
    blank();
    say(_("Starting again."));
    $("void").textContent = fill(_("The node stopped. The text shown so far is void; attempt {n} begins."), { n: attempt });
    show($("void"));
  },
  answer: () => {
    show($("void"), false);
    say(MEASURING);
  },
  receipt: (r) => receipt(r).catch(() => location.reload()),
  cancelled: () => done(_("Stopped, as asked.")),
  error: ({ detail }) => done(detail, true),
};

const follow = (id) => {
  source?.close();
  last = undefined;
  text = new Text();
  $("answer").replaceChildren(text);
  blank();
  delete $("run").dataset.final;
  $("stop").action = `/prompts/${encodeURIComponent(id)}/stop`;
  $("stop").dataset.id = id;
  for (const part of ["run", "stop"]) show($(part));
  source = new EventSource(`/api/v1/prompts/${encodeURIComponent(id)}/events`);
  for (const [name, handle] of Object.entries(HANDLERS)) {
    source.addEventListener(name, (event) => {
      if (event.data !== undefined) handle(JSON.parse(event.data), event.lastEventId);
      else if (source.readyState === EventSource.CLOSED) {
        say(_("The connection is lost. Trying again."));
        setTimeout(() => follow(id), 2000);
      }
    });
  }
};

// --- asking and stopping ---

const empty = [...($("slip")?.children ?? [])]; // the paper before the first receipt

const refuse = (words) => {
  $("refused").textContent = words;
  show($("refused"), Boolean(words));
};

const ask = async (event) => {
  event.preventDefault();
  const fields = Object.fromEntries(new FormData(event.target));
  const body = { model: fields.model, prompt: fields.prompt };
  if (fields.system.trim()) body.system = fields.system;
  for (const name of ["max_tokens", "temperature", "seed"]) if (fields[name] !== "") body[name] = Number(fields[name]);
  const button = event.target.querySelector("button");
  button.disabled = true;
  refuse("");
  try {
    const headers = { "Content-Type": "application/json" };
    const reply = await fetch("/api/v1/prompts", { method: "POST", headers, body: JSON.stringify(body) });
    const job = await reply.json();
    if (!reply.ok) throw new Error(job.detail ?? job.title);
    history.pushState(null, "", `/prompts/${encodeURIComponent(job.id)}`);
    $("state").classList.remove("failed");
    $("slip").replaceChildren(...empty); // the last receipt is not this answer's
    say(waiting(job));
    follow(job.id);
  } catch (error) {
    button.disabled = false;
    refuse(error instanceof TypeError ? _("The server does not answer. Check that it runs, then ask again.") : error.message);
  }
};

const stop = async (event) => {
  event.preventDefault();
  await fetch(`/api/v1/prompts/${encodeURIComponent(event.target.dataset.id)}`, { method: "DELETE" }).catch(() => {});
};

addEventListener("popstate", () => location.reload());
$("ask")?.addEventListener("submit", ask);
$("ask")?.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) event.currentTarget.requestSubmit();
});
$("stop")?.addEventListener("submit", stop);
if ($("run")?.dataset.id && !("final" in $("run").dataset)) follow($("run").dataset.id);
