"""May the figures be trusted? One table of codes, each with its level, sentence and remedy. Pure."""

from collections.abc import Iterator
from typing import Final, NamedTuple

from joulebox.accounting.attempts import Spent
from joulebox.accounting.closure import contradictions
from joulebox.accounting.figures import MODELLED, Metered, Reckoning, answer_window
from joulebox.accounting.idle_drift import drift
from joulebox.accounting.readings import around_ns, hasty, hole, late, skipped, stands
from joulebox.accounting.surroundings import Level, findings
from joulebox.metering import GUARD_MIN_S
from joulebox.model import CalibrationRef, Reason, Sampling, Trace, Verdict
from joulebox.units import nanoseconds, seconds

NOISY_IDLE_RATIO: Final = 0.5
"""Idle noise is told when it leaves more than this share of the active energy open."""
CACHED_NOTE_RATIO: Final = 0.05
"""Of the input so much may come from the engine's cache before the figures are doubtful."""
FAULTS_TOLD: Final = 3
"""Of one code's remarks so many are told; a line that is down makes a hundred."""
WRAP_W: Final = 200.0
"""A counter that can go round between two readings at less power than this, or at less than twice the power seen, may
have done so unseen. Real ones take minutes; one CPU may well draw so much."""


class Rule(NamedTuple):
    """A verdict code: what it does to the receipt (where that depends on how much: usually), its sentence (with room
    for details), and what to do."""

    level: Level
    sentence: str
    remedy: str


RULES: Final[dict[str, Rule]] = {
    "modelled": Rule(
        "note",
        "No power meter was found: the energy is modelled from how busy the cores were.",
        "Connect a meter (see `joulebox meters list`).",
    ),
    "unmetered": Rule(
        "note", "No meter was recorded: this receipt has no energy.", "Give the node a meter, or `model:`."
    ),
    "missing_scope": Rule(
        "note", "The figure does not cover: {}.", "Add a meter for these parts, or a wall meter for everything."
    ),
    "meter_gap": Rule(
        "suspect", "Readings are missing around the answer ({}).", "Look at the meter's connection; ask again."
    ),
    "meter_reset": Rule(
        "invalid", "A counter started anew during the run ({}).", "Ask again; look at the meter if it happens twice."
    ),
    "meter_wrap": Rule(
        "suspect",
        "A counter may have gone round unseen between two readings ({}).",
        "Read more often (JOULEBOX_READING_HZ).",
    ),
    "meter_frozen": Rule(
        "suspect",
        "A meter showed the same value again and again ({}): it was not measuring.",
        "Look at the meter and what lies between; ask again.",
    ),
    "meter_late": Rule(
        "suspect",
        "The meter shows the work after it was done ({}): its delay is longer than declared.",
        "Calibrate the node (`joulebox meters calibrate`), then ask again.",
    ),
    "clock_step": Rule(
        "suspect",
        "The calendar clock was set during the run, or the machine slept ({}): hour and grams may be wrong.",
        "Keep the clock by NTP and the machine awake, then ask again.",
    ),
    "sensor_gap": Rule("note", "A temperature sensor did not answer ({}).", "Look at the sensor if it happens often."),
    "stale_calibration": Rule(
        "suspect",
        "The meters' calibration of {} may no longer hold: {}.",
        "Calibrate the node again (`joulebox meters calibrate`).",
    ),
    "uncalibrated": Rule(
        "note",
        "The meters' delay and pace were never measured on this machine: their drivers' figures are used.",
        "Calibrate the node (`joulebox meters calibrate`).",
    ),
    "idle_drift": Rule(
        "suspect",
        "The idle power was another one after the answer ({}: {} W before, {} W after): `active` is doubtful.",
        "Find out what began or ended meanwhile, then ask again.",
    ),
    "closure": Rule(
        "suspect",
        "Two meters of this machine contradict each other: {}.",
        "Find out which is wrong, or what else hangs on the plug, then calibrate again (`joulebox meters calibrate`).",
    ),
    "swapped": Rule(
        "invalid",
        "A meter looks at something else: {}.",
        "Check which plug and channel belong to this machine, then calibrate again (`joulebox meters calibrate`).",
    ),
    "foreign_load": Rule(
        "suspect",
        "Other work went on in the {} around the answer: {}.",
        "Stop it, or find out who starts it, then ask again.",
    ),
    "shared_host": Rule(
        "note",
        "The server runs on the measured machine: it used {} around the answer, which is part of the figure.",
        "Run the server elsewhere where answers are compared.",
    ),
    "steal": Rule(
        "suspect",
        "This virtual machine's host took {} away around the answer.",
        "Measure on a machine of its own.",
    ),
    "throttled": Rule(
        "invalid", "The processor was slowed down because of heat ({}).", "Cool the machine better, then ask again."
    ),
    "too_hot": Rule(
        "suspect",
        "The answer began too hot ({}).",
        "Cool the machine better, or wait longer (JOULEBOX_SETTLE_MAX_S).",
    ),
    "too_cold": Rule(
        "suspect",
        "The answer began too cold ({}).",
        "Ask again: the machine is warmer now. Ask quietly (mode quiet), and the processor is warmed up first.",
    ),
    "too_short": Rule(
        "suspect",
        "The answer took {}, too short for a meter that looks every {}.",
        "Ask for more tokens, or for more work.",
    ),
    "noisy_idle": Rule(
        "suspect",
        "The idle machine was not quiet: how much lies above idle is only known to within {} J.",
        "Stop other programs on the node, then ask again.",
    ),
    "node_drift": Rule(
        "suspect",
        "The node has drifted: its control prompt takes energy {} the reference of {}.",
        "Find out what changed; if it is to stay so, begin a new reference (`joulebox control rebaseline`).",
    ),
    "control_prompt": Rule(
        "note", "Nobody asked this: it is the node's own control prompt.", "See the node's history for the others."
    ),
    "failed_attempt": Rule(
        "note",
        "The prompt was tried before ({}): what that drew, {} J, is part of the full energy.",
        "Look into the node's log for why.",
    ),
    "unknown_attempt": Rule(
        "note",
        "The prompt was tried before ({}), and what that drew is unknown: the full energy is at least the figure.",
        "Look into the node's log for why.",
    ),
    "over_budget": Rule(
        "note",
        "No reading told in time that the energy budget of {} J was spent: the answer took {} J above idle.",
        "See whether the node's meters are read while it answers (`joulebox meters check`).",
    ),
    "engine_cache": Rule(
        "suspect",
        "{} input tokens came from the engine's cache, so reading them cost nothing here.",
        "Turn the cache off.",
    ),
    "cache_unknown": Rule(
        "note",
        "The engine does not say how much of the prompt came from its cache: reading it may have cost less here.",
        "Turn the cache off where the engine lets you.",
    ),
    "hidden_load": Rule(
        "suspect",
        "The engine loaded the model within the answer ({}): the figures hold that too.",
        "Let nobody else use this engine, then ask again.",
    ),
    "engine_shared": Rule(
        "suspect",
        "The prompt waited in the engine's own line ({}): it worked for somebody else too.",
        "Let nobody else use this engine, then ask again.",
    ),
}


def judge(trace: Trace, reckoning: Reckoning, spent: Spent) -> tuple[Verdict, tuple[Reason, ...]]:
    """The verdict with its reasons, worst first."""
    order: tuple[Level, ...] = ("invalid", "suspect", "note")
    reasons = sorted(
        [*_reasons(trace, reckoning), *_of_attempts(reckoning, spent), *_of_control(trace)],
        key=lambda reason: order.index(reason.level),
    )
    worst = reasons[0].level if reasons else "note"
    return ("valid" if worst == "note" else worst), tuple(reasons)


def _reason(code: str, *details: object, level: Level | None = None) -> Reason:
    rule = RULES[code]
    return Reason(code=code, level=level or rule.level, sentence=f"{rule.sentence.format(*details)} {rule.remedy}")


def _reasons(trace: Trace, reckoning: Reckoning) -> Iterator[Reason]:
    energy = reckoning.energy
    if energy.scope == MODELLED:
        yield _reason("modelled")
    elif energy.answer is None and not reckoning.unmeasured:
        yield _reason("unmetered")
    elif reckoning.unmeasured:
        yield _too_short(trace) or _reason("meter_gap", "too few before or after it")
    elif trace.missing:
        yield _reason("missing_scope", ", ".join(trace.missing))
    yield from _of_readings(trace, reckoning)
    for code, level, details in (*findings(trace), *contradictions(trace, reckoning), *drift(trace, reckoning)):
        yield _reason(code, *details, level=level)
    if reckoning.metered and energy.scope != MODELLED:
        yield from _of_calibration(trace.calibration)
    if energy.active is not None:
        idle_j = 2 * sum(one.idle("active").j for one in reckoning.metered)
        if idle_j > NOISY_IDLE_RATIO * abs(energy.active.j):
            yield _reason("noisy_idle", f"{idle_j:.1f}" if idle_j < 100 else f"{idle_j:.0f}")
    budget, active = trace.budget, energy.active
    if budget and active and budget.judged_j is None and active.j - active.u > budget.max_energy_j:
        yield _reason("over_budget", f"{budget.max_energy_j:g}", f"{active.j:.3g}")
    yield from _of_cache(trace)


def _of_cache(trace: Trace) -> Iterator[Reason]:
    """What the engine did not have to read. The first few tokens are the same in every prompt (its form): that they
    come from a cache changes next to nothing."""
    usage = trace.usage
    if usage.cached_tokens:
        few = usage.cached_tokens <= CACHED_NOTE_RATIO * (usage.input_tokens or 0)
        yield _reason("engine_cache", usage.cached_tokens, level="note" if few else None)
    elif usage.cached_tokens is None and trace.model is not None:
        yield _reason("cache_unknown")


def _of_control(trace: Trace) -> Iterator[Reason]:
    """What the node's control prompt told before this job, and whether this is one."""
    control = trace.control
    if control is not None and control.state == "drifted":
        off_ratio = control.off_ratio or 0.0
        off = f"{100 * abs(off_ratio):.1f} % {'above' if off_ratio > 0 else 'below'}"
        yield _reason("node_drift", off, control.since[:10])
    if trace.purpose == "control":
        yield _reason("control_prompt")


def _of_attempts(reckoning: Reckoning, spent: Spent) -> Iterator[Reason]:
    """What earlier attempts mean for `full`; without that figure nothing."""
    if reckoning.energy.full is None:
        return
    if spent.known:
        yield _reason("failed_attempt", _attempts(spent.known), f"{spent.j:.3g}")
    if spent.unknown:
        yield _reason("unknown_attempt", _attempts(spent.unknown))


def _attempts(numbers: tuple[int, ...]) -> str:
    return f"attempt{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"


def _of_calibration(calibration: CalibrationRef | None) -> Iterator[Reason]:
    """Whether tick and lag were found on the machine itself, and still hold."""
    if calibration is None:
        yield _reason("uncalibrated")
    elif calibration.stale:
        yield _reason("stale_calibration", calibration.at[:10], calibration.stale)


def _too_short(trace: Trace) -> Reason | None:
    """A meter that only looks once a tick says nothing of an answer shorter than two looks."""
    start_ns, end_ns = answer_window(trace)
    lasted_s = seconds(end_ns - start_ns)
    looks = [one.channel.tick_s for one in trace.series if one.channel.sampling is Sampling.SNAPSHOT]
    looks = [tick_s for tick_s in looks if lasted_s < 2 * tick_s]
    return _reason("too_short", f"{lasted_s:.2g} s", f"{max(looks):.2g} s") if looks else None


def _of_readings(trace: Trace, reckoning: Reckoning) -> Iterator[Reason]:
    """What went wrong between lease, or guard before, and release. What is older tells nothing of this answer."""
    guard_ns = nanoseconds(max((one.window.guard_s for one in reckoning.metered), default=GUARD_MIN_S))
    start_ns = min(trace.leased_ns, answer_window(trace)[0] - guard_ns)
    series = {one.channel: one for one in trace.series}
    told: dict[str, list[str]] = {}
    for one in reckoning.metered:
        for code, detail in (
            ("meter_gap", hole(one, series[one.channel])),
            ("meter_frozen", stands(one, series[one.channel])),
            late(one, series[one.channel]) or ("meter_late", hasty(one, series[one.channel])),
            ("meter_frozen", skipped(one)),
            ("meter_wrap", _wrap(one, reckoning.power.peak_w or 0.0)),
        ):
            told.setdefault(code, []).extend([detail] if detail else [])
        if any(start_ns <= t_ns <= trace.released_ns for t_ns in one.curve.resets_ns):
            told.setdefault("meter_reset", []).append(one.channel.name)
    for remark in trace.remarks:
        if remark.code in RULES and (remark.t_ns is None or start_ns <= remark.t_ns <= trace.released_ns):
            told.setdefault(remark.code, []).append(remark.detail)
    for code, details in told.items():
        for detail in list(dict.fromkeys(details))[:FAULTS_TOLD]:
            yield _reason(code, detail)


def _wrap(one: Metered, peak_w: float) -> str | None:
    """How a counter may have gone round unseen, if it may."""
    gap_s = one.curve.gap_s(*around_ns(one))
    if one.channel.wrap_raw is None or not gap_s:
        return None
    range_j = one.channel.wrap_raw * one.channel.step
    if range_j / gap_s >= max(WRAP_W, 2 * peak_w):
        return None
    return f"{one.channel.name} goes round every {range_j:.3g} J and was read {gap_s:.2g} s apart"
