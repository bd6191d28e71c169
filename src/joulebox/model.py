"""The nouns, frozen, in the order a prompt meets them: Prompt, Job, Channel, Series, Trace, CarbonFactors, Receipt.

Nothing here does anything; nothing is edited on the way. Units stand last in every name. `u` is an expanded uncertainty
(k = 2) in the unit of the figure beside it. `None` means unknown or absent, never zero.
"""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Literal

from joulebox.conversation import AUTO, Tool, ToolCall
from joulebox.conversation import Message as Message  # noqa: PLC0414 - one of the nouns here

# --- 1. somebody asks -------------------------------------------------------------------------------------------------

Mode = Literal["live", "quiet"]
Purpose = Literal["prompt", "control"]
"""Why a job is there: somebody asked, or the node checks itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """What somebody asks of a model. `temperature` 0 with a `seed` repeats the same answer on the same engine build."""

    model: str
    messages: tuple[Message, ...]
    max_tokens: int = 256
    temperature: float = 0.0
    seed: int = 0
    stop: tuple[str, ...] = ()
    mode: Mode = "live"
    model_reason: str | None = None  # why this model, where the choice was left to the server
    max_energy_j: float | None = None  # the answer ends when live readings tell that it drew so much above idle
    top_p: float | None = None
    json_schema: str | None = None  # as JSON: the engine lets the model write nothing else
    tools: tuple[Tool, ...] = ()
    tool_choice: str = AUTO  # or `required`, or `function:NAME`


# --- 2. it waits, 3. a node is chosen, 4. the node takes it -----------------------------------------------------------


class JobState(StrEnum):
    """Where a job is; the database guards the changes (after River)."""

    AVAILABLE = "available"
    DEFERRED = "deferred"
    RUNNING = "running"
    COMPLETED = "completed"
    DISCARDED = "discarded"
    CANCELLED = "cancelled"


FINAL_STATES = frozenset({JobState.COMPLETED, JobState.DISCARDED, JobState.CANCELLED})


class AttemptState(StrEnum):
    """What became of one node's try at a job. `lost`: the node went silent; `failed`: it said why."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    LOST = "lost"
    CANCELLED = "cancelled"


Phase = Literal["queued", "settling", "loading", "answering", "measuring"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A failure with a name: a code of `errors.REGISTRY` and one sentence for the person."""

    code: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A prompt waiting for, under or after measurement. Times are calendar times in UTC."""

    id: str
    state: JobState
    prompt: Prompt
    created: datetime
    available: datetime
    attempt: int = 0
    node: str | None = None
    finalized: datetime | None = None
    answer: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: str | None = None
    receipt_id: str | None = None
    error: Problem | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFile:
    """A model a node holds. `memory_bytes` is what loading it takes: weights, KV cache at `context_tokens`, buffers."""

    id: str
    digest: str
    quantization: str
    size_bytes: int | None
    memory_bytes: int | None
    context_tokens: int


Form = Literal["desktop", "mini", "laptop", "server"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuPart:
    """The processors of a machine, all alike. `cores` of all `sockets` together; `family` and `model` as x86 counts."""

    name: str
    vendor: str
    family: int | None
    model: int | None
    sockets: int
    cores: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskPart:
    """A disk inside the machine."""

    kind: Literal["ssd", "hdd"]
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuPart:
    """A graphics card. `name` as its driver calls it; `pci` is `vendor:device` in hexadecimal."""

    name: str | None
    pci: str
    memory_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbodiedPart:
    """What making one part of the machine emitted. `central_kg` is `None` where nobody knows: then `low_kg` is zero and
    `high_kg` what such a part has at most."""

    part: str
    low_kg: float
    central_kg: float | None
    high_kg: float
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Embodied:
    """TE and EL of ISO/IEC 21031: what making the machine emitted, and over how many years it is written off.

    `parts` add up to TE where it was added up from parts. `unknown` names what nobody knows: it widens the range.
    """

    low_kg: float
    central_kg: float
    high_kg: float
    life_years: float
    source: str
    parts: tuple[EmbodiedPart, ...] = ()
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineParts:
    """What a node is made of, as far as its operating system tells. `virtual` is what a virtual machine runs on,
    `footprint` what its operator knows of all of it together."""

    virtual: str | None = None
    form: Form | None = None
    product: str | None = None
    cpu: CpuPart | None = None
    memory_bytes: int | None = None
    disks: tuple[DiskPart, ...] = ()
    gpus: tuple[GpuPart, ...] = ()
    footprint: Embodied | None = None


# --- 5. under the meters ----------------------------------------------------------------------------------------------


class ReadingKind(StrEnum):
    """What one reading is; the unit is in the name."""

    POWER_W = "power_w"
    ENERGY_J = "energy_j"
    TEMPERATURE_C = "temperature_c"
    BUSY_RATIO = "busy_ratio"


class Sampling(StrEnum):
    """How a meter makes a reading: a running `counter`, the `mean` over its tick, or a `snapshot` of one moment."""

    COUNTER = "counter"
    MEAN = "mean"
    SNAPSHOT = "snapshot"


@dataclass(frozen=True, slots=True, kw_only=True)
class Channel:
    """One stream of readings that a meter offers, as the meter's driver declares it.

    A reading's value is `raw * step` in the unit of `kind`. `scope` is what the figure covers: `wall`, `platform`,
    `cpu`, `dram`, `gpu0`..., or `machine` for a modelled whole. A channel with `part_of` covers a share of another
    scope and is never added to it. `gain_u_ratio` and `offset_u` are expanded (k = 2); `accuracy` names their source.
    `wrap_raw` is the number of raw steps after which a counter starts again at zero. `at_wall`: the gain was found by a
    calibration with a meter at the plug.
    """

    name: str
    meter: str
    kind: ReadingKind
    sampling: Sampling
    scope: str
    step: float
    tick_s: float
    lag_s: float = 0.0
    gain_u_ratio: float = 0.0
    offset_u: float = 0.0
    accuracy: str = ""
    part_of: str | None = None
    wrap_raw: int | None = None
    simulated: bool = False
    at_wall: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """The readings of one channel. `t_ns` are the recorder's times since the trace's origin, strictly increasing."""

    channel: Channel
    t_ns: tuple[int, ...]
    raw: tuple[int, ...]


SpanName = Literal["idle", "load", "settle", "answer", "prefill", "decode", "post"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A named stretch of time in a trace (OpenTelemetry's word)."""

    name: SpanName
    start_ns: int
    end_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenTime:
    """When a piece of the answer arrived: `n` tokens, without their text (text is kept apart so that it can be
    deleted)."""

    t_ns: int
    n: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens as the engine counted them. `None`: the engine does not say. Input includes cached tokens."""

    input_tokens: int | None
    cached_tokens: int | None
    output_tokens: int | None
    reasoning_tokens: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineInfo:
    """The program that ran the model."""

    name: str
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    """Something that happened while recording, by its verdict code (`meter_gap`, `meter_reset`, ...)."""

    code: str
    detail: str
    t_ns: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MetersFit:
    """How the power of a whole follows from that of its parts on one machine: `rest_w + slope * parts`.

    `rest_w` is what no part sees (board, fans, what the supply always loses), `slope` what a watt of the parts is
    at the whole. `whole` and `parts` name channels, meter first. The line was fitted to parts between `low_w` and
    `high_w`; at `centre_w` it is known to within `u_centre_w`, and `u_slope` is the slope's uncertainty (both k = 2).
    """

    whole: tuple[str, ...]
    parts: tuple[str, ...]
    rest_w: float
    slope: float
    u_slope: float
    centre_w: float
    u_centre_w: float
    low_w: float
    high_w: float


@dataclass(frozen=True, slots=True, kw_only=True)
class IdleSpread:
    """How well the power seen for `guard_s` tells what an idle machine draws in the `length_s` that follow: the root
    mean square of the error in joules, over about `windows` independent stretches of an idle record."""

    guard_s: float
    length_s: float
    rms_j: float
    windows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class IdleRecord:
    """What a calibration keeps of one channel's idle record, so that the spread for any length follows from it."""

    meter: str
    name: str
    spreads: tuple[IdleSpread, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PhasePowers:
    """How many times as much a model (by digest) draws above idle while it reads the prompt than while it writes the
    answer, on one node and at one scope; `u_ratio` expanded (k = 2), found from `answers`."""

    model: str
    scope: str
    ratio: float
    u_ratio: float
    answers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationRef:
    """Which calibration the meters were read by, and what it says of how they agree (`fits`). `stale`: why it may no
    longer hold, in a few words; `None` while it does. `splits`: how prefill and decode share what slow meters see.
    `idle`: how quiet the idle machine was then. All but `id`, `at` and `stale` is evidence that receipts leave out."""

    id: str
    at: str
    stale: str | None = None
    fits: tuple[MetersFit, ...] = ()
    splits: tuple[PhasePowers, ...] = ()
    idle: tuple[IdleRecord, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeControl:
    """What the control prompt tells of a node: `learning` its reference (of `since`, an ISO time) from `runs` so far,
    `steady`, or `drifted`. `off_ratio`: how far its energy lies from the reference now."""

    state: Literal["learning", "steady", "drifted"]
    since: str
    runs: int
    off_ratio: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramLoad:
    """CPU seconds of all processes of one name."""

    name: str
    cpu_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class NeighboursSeen:
    """Who else used the machine from guard to guard, in CPU seconds (one core busy for a second is 1).

    `foreign` names the greatest programs, `foreign_s` is all of them. `server_s` is Joulebox's own server where it runs
    on this machine, `None` where it does not. `unexplained_s` was busy beyond all processes seen. Disk and network are
    the whole machine's, own traffic included. `throttled` counts how often a core was slowed down because of heat.
    `None`: the machine does not tell.
    """

    window_s: float | None
    own_s: float
    server_s: float | None
    foreign: tuple[ProgramLoad, ...]
    foreign_s: float
    unexplained_s: float | None
    steal_s: float | None
    disk_bytes: int | None
    network_bytes: int | None
    throttled: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """An energy budget. The server judged it spent at `judged_j` above idle, `judged_s` after the request; `None`: the
    answer ended before. `overshoot_j`: how far the answer lies above it in the end, zero where it does not; known once
    it is accounted for, to within what the energy above idle is."""

    max_energy_j: float
    judged_j: float | None = None
    judged_s: float | None = None
    overshoot_j: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """All spans and readings of one run, on one monotonic clock: the evidence, stored untouched.

    `origin` is the calendar time of `t_ns == 0`. `leased_ns` and `released_ns` bound the reservation of the machine.
    `missing` names big parts that no meter covers, e.g. `gpu0` or `wall`. `cores`, `memory_bytes` and `parts` describe
    the machine. Work that is no prompt (`joulebox measure`) has neither model nor engine nor seed, and no tokens.
    `control` is what the node's control prompt told when the job was leased. `engine_s`: the engine's own times.
    """

    job_id: str
    attempt: int
    node: str
    zone: str | None
    origin: datetime
    leased_ns: int
    released_ns: int
    spans: tuple[Span, ...]
    tokens: tuple[TokenTime, ...]
    series: tuple[Series, ...]
    usage: Usage
    finish_reason: str
    model: ModelFile | None
    engine: EngineInfo | None
    seed: int | None
    cores: int
    memory_bytes: int
    missing: tuple[str, ...] = ()
    remarks: tuple[Remark, ...] = ()
    queued_s: float = 0.0
    calibration: CalibrationRef | None = None
    neighbours: NeighboursSeen | None = None
    purpose: Purpose = "prompt"
    control: NodeControl | None = None
    parts: MachineParts | None = None
    budget: Budget | None = None
    engine_s: tuple[tuple[str, float], ...] = ()

    def span(self, name: SpanName) -> Span | None:
        """The span of that name, or `None` where the run had none."""
        return next((span for span in self.spans if span.name == name), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """What one channel counted in a stretch without a job: `amount` in its unit (J; core-seconds of the busy counter),
    and what ticks and edges leave open of it, as a standard uncertainty (k = 1)."""

    channel: Channel
    amount: float
    edge: float


@dataclass(frozen=True, slots=True, kw_only=True)
class IdleStretch:
    """A node between two jobs, by the calendar; `counted` are the channels that together tell what it drew, `loaded`
    whether it kept a model in memory (`None`: it did not say)."""

    start: datetime
    until: datetime
    counted: tuple[Counted, ...]
    loaded: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class IdlePolicy:
    """What a node does when it has been idle so long, in seconds: unload its model, suspend its machine. `None`: never.
    It is woken by `mac`, the address of its network card, within `wake_max_s`."""

    unload_s: float | None = None
    suspend_s: float | None = None
    mac: str | None = None
    wake_max_s: float = 180.0


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlierAttempt:
    """An attempt at the same prompt that gave no answer. `trace` is its evidence, which holds no answer span; `None`
    where the node could not keep it: what it drew is then unknown, not zero."""

    number: int
    trace: Trace | None


# --- 7. carbon --------------------------------------------------------------------------------------------------------

Quality = Literal["measured", "estimated", "forecast", "yearly", "static"]


@dataclass(frozen=True, slots=True, kw_only=True)
class IntensitySlot:
    """A stretch of a run (ISO 8601, UTC) under one intensity, and the share of the run's energy drawn in it."""

    start: str
    end: str
    energy_share: float
    g_per_kwh: float
    low: float
    high: float
    at: str
    quality: Quality


@dataclass(frozen=True, slots=True, kw_only=True)
class Intensity:
    """I of ISO/IEC 21031: the grid's carbon intensity, location-based, with where it comes from.

    In a receipt it is the energy-weighted mean over `slots`: E times it is the sum of each slot's energy and intensity.
    """

    g_per_kwh: float
    low: float
    high: float
    zone: str
    at: str
    source: str
    kind: Literal["average", "marginal"]
    factor: Literal["lifecycle", "direct"]
    quality: Quality
    slots: tuple[IntensitySlot, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DatedIntensity:
    """What holds from one moment to another (ISO 8601, UTC)."""

    start: str
    until: str
    intensity: Intensity


@dataclass(frozen=True, slots=True, kw_only=True)
class WaterFactors:
    """Litres of water that using a kilowatt hour takes: evaporated on site (per kWh of the machine), and in making the
    electricity (per kWh from the grid). `None`: not known, not counted."""

    on_site_l_per_kwh: float | None
    electricity_l_per_kwh: float | None
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CarbonFactors:
    """Everything that turns joules and seconds into grams. Location-based; no offsets, no certificates.

    `intensity` holds from the beginning until the first of `later`, which are in order of time. `resource_share` is
    RR/ToR: 1.0, because a node runs one prompt at a time.
    """

    intensity: Intensity
    embodied: Embodied
    pue: float = 1.0
    pue_source: str = "not metered: taken as 1.0"
    resource_share: float = 1.0
    water: WaterFactors | None = None
    later: tuple[DatedIntensity, ...] = ()


# --- 8. the receipt ---------------------------------------------------------------------------------------------------

Grade = Literal["A", "B", "C", "D"]
Verdict = Literal["valid", "suspect", "invalid"]
PhaseMethod = Literal["measured", "calibrated_split", "modelled"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A named energy with its expanded uncertainty (k = 2) and grade."""

    j: float
    u: float
    grade: Grade


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseFigure:
    """Energy, time and method of one phase; `j` and `u` are `None` where the phase cannot be told."""

    j: float | None
    u: float | None
    s: float | None
    method: PhaseMethod | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ScopeFigure:
    """What one scope drew during the answer. Wall contains the others: scopes are never added across."""

    j: float
    u: float


@dataclass(frozen=True, slots=True, kw_only=True)
class UncertaintyPart:
    """One source of the headline's uncertainty, as a standard uncertainty (k = 1) in joules."""

    source: str
    j: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Energy:
    """All energy figures of a run. A figure is `None` where no meter or model gives it."""

    scope: str | None
    missing: tuple[str, ...]
    answer: Figure | None
    active: Figure | None
    tail: Figure | None
    full: Figure | None
    phases: dict[str, PhaseFigure]
    scopes: dict[str, ScopeFigure]
    uncertainty: tuple[UncertaintyPart, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Power:
    """Mean, idle and peak power in watts. Mean power is a rate, never an energy."""

    mean_w: float | None
    idle_w: float | None
    peak_w: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Temperature:
    """A sensor at the start and at the end of the answer."""

    sensor: str
    start_c: float
    end_c: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Grams:
    """Emissions with their range; the range need not be symmetric."""

    g: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Carbon:
    """Operational, embodied and total emissions of the answer. `None` where there is no energy figure.

    `hardware` is the machine whose making is shared out, `pue` what its energy was multiplied with.
    """

    operational: Grams | None
    embodied: Grams
    total: Grams | None
    intensity: Intensity
    hardware: Embodied
    pue: float
    pue_source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Water:
    """Litres of water the answer's electricity took, always modelled: on site + in making the electricity. A part is
    `None` where its factor is not known, and is then not in `l`. The water of making the machine is not counted."""

    l: float  # noqa: E741 - the unit stands last, and the litre is written so
    low: float
    high: float
    on_site_l: float | None
    electricity_l: float | None
    factors: WaterFactors
    method: Literal["modelled"] = "modelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sci:
    """SCI = (O + M) per R on one boundary, every term visible (ISO/IEC 21031). `O_idle_g` is what a machine that only
    waits would have emitted in this time, `O_active_g` what the work added: together O."""

    O_g: float | None
    O_active_g: float | None
    O_idle_g: float | None
    M_g: float
    E_kwh: float | None
    I_g_per_kwh: float
    TE_kg: float
    EL_years: float
    TiR_s: float
    RR: float
    ToR: float
    per_answer_g: float | None
    per_output_token_g: float | None
    per_token_g: float | None
    boundary: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SciBoundaries:
    """The two boundaries of a receipt, never mixed: the answer alone, and all the time the machine was reserved."""

    answer: Sci
    reserved: Sci


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """Why a receipt is suspect or invalid: a verdict code with its sentence."""

    code: str
    level: Literal["note", "suspect", "invalid"]
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """The model that answered."""

    name: str
    digest: str
    quantization: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """How long everything took."""

    queued_s: float
    settle_s: float
    load_s: float
    time_to_first_token_s: float | None
    time_per_output_token_s: float | None
    duration_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterInfo:
    """A meter channel as the receipt names it."""

    name: str
    kind: str
    scope: str
    tick_s: float
    lag_s: float
    accuracy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Why this node."""

    policy: str
    reason: str
    saved_g: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What an answer cost: a pure, versioned function of (Trace, CarbonFactors).

    Work that is no prompt has no `prompt_id`, `model`, `engine` and `seed`.
    """

    schema: str
    id: str
    prompt_id: str | None
    revision: int
    method_version: str
    created: str
    simulated: bool
    model: ModelInfo | None
    engine: EngineInfo | None
    node: str
    zone: str | None
    seed: int | None
    finish_reason: str
    verdict: Verdict
    reasons: tuple[Reason, ...]
    usage: Usage
    times: Times
    energy: Energy
    power: Power
    temperature: tuple[Temperature, ...]
    carbon: Carbon
    sci: SciBoundaries
    meters: tuple[MeterInfo, ...]
    water: Water | None = None
    calibration: CalibrationRef | None = None
    placement: Placement = field(default=Placement(policy="fastest", reason="", saved_g=None))
    purpose: Literal["prompt", "control", "work"] = "prompt"
    concurrency: Literal[1] = 1
    budget: Budget | None = None
