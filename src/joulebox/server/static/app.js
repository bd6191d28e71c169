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
const run = $("run");
const id = run?.dataset.id;
const address = `/prompts/${encodeURIComponent(id)}`;

let source;
let text;
let last;
let tokens;
let begun;
let counted;
let readings;
let begins;
let scope;
let simulated = "";

const say = (words) => { $("state").textContent = words; };

const roughly = (s) => s > 95 ? `${Math.round(s / 60)} min` : `${s < 10 ? Math.ceil(s) : Math.round(s / 5) * 5} s`;

const about = (s) => fill(_(", about {time}"), { time: roughly(s) });

// --- the power curve: what was read, by phase; the joules are its area ---

const WIDE = 600;
const HIGH = 120;
const KEPT = 600;

/** Watts at once where both ends are known: the power before the first reading is taken as that of the first. */
export const area = (points) => points.reduce((sum, [t, w], n) => {
  const [before, at] = n ? points[n - 1] : [0, w];
  return sum + (t - before) * (w + at) / 2;
}, 0);

/** The curve's paths, before the first word and after; what nothing was read of is hatched, not drawn. */
export const draw = (points, first) => {
  const end = points.at(-1)[0] || 1;
  let top = 0;
  for (const [, w] of points) if (w > top) top = w;
  const across = (t) => (t / end * WIDE).toFixed(1);
  const ends = { read: [], written: [] };
  for (const [t, w] of points) {
    const at = `${across(t)} ${(HIGH - 2 - w / (top || 1) * (HIGH - 6)).toFixed(1)}`;
    if (t <= first) ends.read.push(at);
    if (t >= first) ends.written.push(at);
  }
  for (const [part, of] of Object.entries(ends)) {
    const path = of.length && `M${of.join("L")}V${HIGH}H${of[0].split(" ")[0]}Z`;
    $(part).setAttribute("d", path || "");
  }
  $("unread").setAttribute("width", across(points[0][0]));
  show($("gap"), points[0][0] > end / 50);
  return top;
};

const power = ({ t_s: t, w, scope: of }) => {
  if (!known(w) || !known(t)) return;
  scope ??= of;
  if (of !== scope) return;
  readings.push([t, w]);
  if (readings.length > KEPT) readings = readings.filter((_, n) => n % 2 === 0 || n === readings.length - 1);
  const mark = scope === "modelled" ? ` ${_("modelled")}` : simulated;
  const name = scope === "modelled" ? "" : `${scope.toUpperCase()} `;
  $("power").textContent = `${name}${plain(w, "W")}${mark}`;
  $("joules").textContent = fill(_("about {figure} so far"), { figure: plain(area(readings), "J", 2) });
  if (begun === undefined) begins = t; // told before the first word: the prompt was still being read
  const top = draw(readings, begins ?? readings[0][0]);
  $("curve").setAttribute("aria-label", fill(_("Power, {scope}, from 0 to {top}"),
    { scope: scope + simulated, top: plain(top, "W") }));
  show($("live"));
};

// --- what happens to the prompt ---

const waiting = ({ position, expected_start: start, reason }) => {
  const told = reason || (position ? fill(_("Prompts before yours: {n}"), { n: position })
    : position === 0 ? _("Yours is next") : _("Waiting for a node"));
  const left = (Date.parse(start) - Date.now()) / 1000;
  return `${told[0].toUpperCase()}${told.slice(1).replace(/\.$/, "")}${left > 1 ? about(left) : ""}.`;
};

const blank = () => {
  text.data = "";
  tokens = 0;
  begun = scope = begins = undefined;
  readings = [];
  for (const part of ["answer", "live"]) show($(part), false);
  for (const part of ["pace", "power", "joules"]) $(part).textContent = "";
};

const done = (words, failed) => {
  source?.close();
  show($("stop"), false);
  run.dataset.final = "";
  say(words);
  $("state").classList.toggle("failed", Boolean(failed));
};

const token = ({ text: piece, n }, place) => {
  const [attempt, seq] = place.split(".").map(Number);
  if (last && (attempt < last[0] || (attempt === last[0] && seq <= last[1]))) return;
  if (place) last = [attempt, seq];
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
};

/** What the server makes of it: the answer set, the receipt, the way on. */
const finish = async () => {
  const reply = await fetch(address);
  if (!reply.ok) throw new Error(`no page at ${address}`);
  const made = new DOMParser().parseFromString(await reply.text(), "text/html");
  for (const part of ["answer", "slip", "below"]) $(part).replaceWith(document.adoptNode(made.getElementById(part)));
  show($("live"), false);
  document.dispatchEvent(new Event("slip"));
};

const receipt = (r) => {
  const e = r.energy.answer;
  const marks = [r.energy.scope === "modelled" && _("modelled"), r.simulated && _("simulated")].filter(Boolean);
  const figure = e && [quantity(e.j, e.u, "J"), ...marks].join(", ");
  const told = [_("Done."), e ? fill(_("This answer took {figure}."), { figure }) : _("Its energy was not measured.")];
  if (r.finish_reason === "length") told.push(_("It was cut at the token limit."));
  if (r.finish_reason === "energy") told.push(_("It was stopped at its energy budget."));
  done(told.join(" "));
  finish().catch(() => location.reload());
};

const MEASURING = _("The answer is complete. Measuring until the machine is calm again.");

const settling = ({ sensor, now_c: now, target_c: target, expected_s: s }) => {
  const values = { sensor, now: plain(now, "°C"), target: plain(target, "°C") };
  const told = known(now) ? fill(_("Letting the machine settle: {sensor} at {now}, waiting for {target}"), values)
    : _("Letting the machine settle");
  say(`${told}${known(s) ? about(s) : ""}.`);
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
    simulated = JSON.parse(run.dataset.simulated).includes(node) ? ` ${_("simulated")}` : "";
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
  receipt,
  cancelled: () => done(_("Stopped, as asked.")),
  error: ({ detail }) => done(detail, true),
};

const follow = () => {
  source?.close();
  last = undefined;
  text = new Text();
  $("answer").replaceChildren(text);
  blank();
  source = new EventSource(`/api/v1${address}/events`);
  for (const [name, handle] of Object.entries(HANDLERS)) {
    source.addEventListener(name, (event) => {
      if (event.data !== undefined) handle(JSON.parse(event.data), event.lastEventId);
      else if (source.readyState === EventSource.CLOSED) {
        say(_("The connection is lost. Trying again."));
        setTimeout(follow, 2000);
      }
    });
  }
};

$("stop")?.addEventListener("submit", async (event) => {
  event.preventDefault();
  await fetch(`/api/v1${address}`, { method: "DELETE" }).catch(() => {});
});
if (id && !("final" in run.dataset)) follow();
