"""What can go wrong with an instrument, its wire or the clocks, done to real drivers at any moment of a run.

The clock is simulated, the wires are real: pseudo terminal, sockets, files. A dry run tells when each point of a run
comes; the same run is then made again with the fault beginning there, and a second prompt asked when it is over.
"""

import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from instruments import Instrument, Kind
from joulebox.accounting import account
from joulebox.clock import Repeating, SimulatedClock
from joulebox.errors import JouleboxError
from joulebox.model import Message, ModelFile, Prompt, Receipt, Sampling, Trace
from joulebox.node.engine import LocalModel
from joulebox.node.engines.scripted import Script
from joulebox.node.measurement import Machine as Host
from joulebox.node.measurement import measure
from joulebox.node.meter import Meter, MeterFault
from joulebox.node.meter_host import MeterHost
from joulebox.node.meters import open_meters
from joulebox.node.meters.feed import FeedMeter
from joulebox.node.meters.remote import RemoteMeter
from joulebox.node.recorder import Recorder
from joulebox.protocol import Lease
from joulebox.rig import lan_meters
from joulebox.rig.lan_meters import ModbusPlug, RedfishPlug
from joulebox.rig.mcp39f511n import McpParameters, McpPort, RigMcp39f511n
from joulebox.rig.physics import Machine, Zone
from joulebox.rig.plugs import PlugMeter, PlugParameters, ShellyGen1, ShellyGen2, Tasmota, WebPlug
from joulebox.rig.powercap_tree import RANGE_UJ, RigPowercap, TreeParameters
from joulebox.rig.wall import Wall
from joulebox.units import J_PER_KWH, nanoseconds
from lab import Watched, zones_j
from lines import Line, LineMode
from traces import PLACEMENT, factors

SEED = 5
POINTS = (
    "idle",
    "before the lease",
    "load",
    "settle",
    "before t_s",
    "at t_s",
    "prefill",
    "first token",
    "decode",
    "before t_e",
    "at t_e",
    "after t_e",
    "post-guard",
    "between prompts",
)
FEW_POINTS = ("at t_s", "decode", "between prompts")
Lasts = Literal["once", "while", "ever"]
PATIENT_S, SHORT_S = 5.0, 0.15
"""How long a driver waits for its line: on a busy machine long enough, and where each reading of a fault waits."""
UNDISTURBED_S = 1.0
AGAIN_S = 25.0
"""So long after a fault the next prompt is asked at the latest."""
LASTS_S: dict[Lasts, float] = {"once": 0.12, "while": 2.5, "ever": 1e6}
GAP = frozenset({"meter_gap"})
AFTERWARDS = frozenset({"meter_gap", "noisy_idle"})
"""What the next prompt may say of a fault whose end lies in its own idle record; its figures must hold all the same."""


# --- clocks -----------------------------------------------------------------------------------------------------------


class FaultClock(SimulatedClock):
    """A simulated clock whose calendar can jump, whose repeated turns can be held up, and that can lose time."""

    def __init__(self) -> None:
        super().__init__()
        self.calendar_off = timedelta()
        self.held_up = False

    def utc(self) -> datetime:
        return super().utc() + self.calendar_off

    def every(self, period_s: float, action: Callable[[], None], name: str) -> Repeating:
        return super().every(period_s, lambda: None if self.held_up else action(), name)

    def lose(self, s: float) -> None:
        """Time passes in which nothing of what is due is done."""
        self._now_ns += nanoseconds(s)


class DeviceClock(SimulatedClock):
    """An instrument's own idea of now: it may stand still, or run behind."""

    def __init__(self, clock: SimulatedClock) -> None:
        super().__init__()
        self._true = clock
        self.stands_ns: int | None = None
        self.behind_ns = 0

    def now_ns(self) -> int:
        return self._true.now_ns() - self.behind_ns if self.stands_ns is None else self.stands_ns


# --- what the instruments see -----------------------------------------------------------------------------------------


class CountingWall(Wall):
    """The plug, whose counter of joules may begin anew or jump; its power stays true."""

    begun_j = 0.0

    def energy_j(self, t_ns: int) -> float:
        return super().energy_j(t_ns) - self.begun_j

    def mean_w(self, start_ns: int, end_ns: int) -> float:
        return Wall(self.machine, self.parameters).mean_w(start_ns, end_ns)


class CountingTree(RigPowercap):
    """The powercap tree, whose counters may begin anew or jump."""

    shifted_uj = 0
    restarted_ns: int | None = None

    def count_uj(self, zone: Zone, t_ns: int) -> int:
        if self.restarted_ns is not None:
            drawn_j = self._machine.energy_j(zone, max(t_ns, self.restarted_ns))
            return int((drawn_j - self._machine.energy_j(zone, self.restarted_ns)) * 1e6)
        return (super().count_uj(zone, t_ns) + self.shifted_uj) % self._parameters.period_uj


class Sick:
    """A meter that fails as a driver may: with a fault, with nothing to say, with an error of its own, or slowly."""

    def __init__(self, meter: Meter, clock: FaultClock) -> None:
        self._meter, self._clock = meter, clock
        self.address, self.missing = meter.address, meter.missing
        self.mode: Literal["", "fault", "absent", "crash", "late", "huge"] = ""
        self.channels = meter.channels
        self.close = meter.close
        self.known: Mapping[int, Sequence[int | None]] = {}
        """What an undisturbed run read until the fault began, which is read from there rather than from the wire."""
        self.seen: dict[int, Sequence[int | None]] = {}

    def read(self) -> Sequence[int | None]:
        now_ns = self._clock.now_ns()
        if (raw := self.known.get(now_ns)) is None:
            raw = self._read()
        self.seen[now_ns] = raw
        return raw

    def _read(self) -> Sequence[int | None]:
        if self.mode == "fault":
            raise MeterFault("it does not answer")
        if self.mode == "crash":
            raise ZeroDivisionError
        raw = self._meter.read()
        if self.mode == "absent":
            return [None] * len(raw)
        if self.mode == "huge":
            return [2**70] * len(raw)
        if self.mode == "late":  # what was read is old when the recorder looks at its clock
            self._clock.lose(0.6)
        return raw


# --- the bench --------------------------------------------------------------------------------------------------------


@dataclass
class Bench:
    """One machine, its instrument behind its wire, and the hands that can be laid on them."""

    clock: FaultClock
    machine: Machine
    device: DeviceClock
    wall: CountingWall
    stack: ExitStack
    folder: Path
    timeout_s: float
    """How long a driver waits for its line."""
    tree: CountingTree | None = None
    chip: RigMcp39f511n | None = None
    line: Line | None = None
    sick: Sick | None = None
    sent: Callable[[str], None] = field(default=lambda mode: None)
    replug: Callable[[bool], None] = field(default=lambda plugged: None)


Connect = Callable[[Bench], Meter]


def _line_to(bench: Bench, upstream: int) -> str:
    """Lay a line to a port of this host; where it begins."""
    bench.line = line = Line(upstream)
    bench.stack.callback(line.unplug)
    return f"127.0.0.1:{line.port}"


def _powercap(bench: Bench, range_uj: int = RANGE_UJ) -> Meter:
    bench.tree = tree = CountingTree(bench.device, bench.machine, bench.folder, TreeParameters(range_uj=range_uj))
    bench.stack.callback(tree.close)
    (meter,) = open_meters([f"powercap:{tree.powercap}"])
    return RigPowercap.following(tree, meter)


def _opened(address: str, bench: Bench) -> Meter:
    """The meter, though its time-out may be short and this machine busy."""
    return _patiently(lambda: open_meters([f"{address},timeout={bench.timeout_s:g}"])[0])


def _patiently(open_it: Callable[[], Meter]) -> Meter:
    for _ in range(20):
        with suppress(JouleboxError):
            return open_it()
    return open_it()


def _mcp39f511n(bench: Bench) -> Meter:
    bench.chip = chip = RigMcp39f511n(bench.device, bench.wall, McpParameters())
    link = bench.folder / "port"
    ports = [McpPort(chip.answer)]
    link.symlink_to(ports[0].path)

    def replug(plugged: bool) -> None:
        if plugged:
            ports.append(McpPort(chip.answer))
            link.symlink_to(ports[-1].path)
        else:
            ports[-1].close()
            link.unlink()

    bench.replug = replug
    bench.stack.callback(lambda: [*map(McpPort.close, ports)])
    return _opened(f"mcp39f511n:{link}", bench)


def _web(kind: str, bench: Bench, device: Any) -> Meter:
    web = WebPlug(device)
    bench.stack.callback(web.close)
    return _opened(f"{kind}:http://{_line_to(bench, int(web.url.rpartition(':')[2]))}", bench)


def _shelly(bench: Bench) -> Meter:
    return _web("shelly", bench, ShellyGen2(PlugMeter(bench.device, bench.wall)))


def _shelly_gen1(bench: Bench) -> Meter:
    return _web("shelly", bench, ShellyGen1(PlugMeter(bench.device, bench.wall)))


def _tasmota(bench: Bench) -> Meter:
    parameters = PlugParameters(averaging_s=1.0)
    return _web("tasmota", bench, Tasmota(PlugMeter(bench.device, bench.wall, parameters), watt_digits=1))


def _modbus(bench: Bench) -> Meter:
    plug = ModbusPlug(lan_meters.Plug(bench.device, bench.wall))
    bench.stack.callback(plug.close)
    return _opened(f"modbus:tcp://{_line_to(bench, plug.port)},preset=sunspec,unit=2", bench)


def _redfish(bench: Bench) -> Meter:
    plug = RedfishPlug(lan_meters.Plug(bench.device, bench.wall))
    bench.stack.callback(plug.close)
    return _opened(f"redfish:http://{_line_to(bench, plug.port)}", bench)


def _remote(bench: Bench) -> Meter:
    kind = Kind(sampling=Sampling.COUNTER, tick_s=0.3, step=1e-3, phase_s=0.037)
    host = MeterHost([Instrument(bench.wall, bench.device, kind)], bench.clock)
    bench.stack.callback(host.close)
    url = f"http://{_line_to(bench, host.port)}"
    return _patiently(lambda: RemoteMeter(url, 0, bench.timeout_s, None, bench.clock))


class _Fed:
    """A feed and the script that feeds it: each tick one message, on the clock's own time."""

    def __init__(self, bench: Bench) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self._source = Instrument(bench.wall, bench.device, Kind(sampling=Sampling.MEAN, tick_s=0.5, step=1e-3))
        self._to = ("127.0.0.1", port)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        options = {"tick": "0.5", "lag": "0.01", "sampling": "mean", "accuracy": "1"}
        self._meter = FeedMeter(f"udp://127.0.0.1:{port}", options, bench.clock)
        self.address, self.missing, self.channels = self._meter.address, self._meter.missing, self._meter.channels
        self._bench, self._told, self.mode = bench, -1, ""
        bench.sent = self.set

    def set(self, mode: str) -> None:
        self.mode = mode

    def read(self) -> Sequence[int | None]:
        tick = self._bench.device.now_ns() // nanoseconds(0.5)
        if tick != self._told and self.mode != "silent":
            self._told = tick
            (raw,) = self._source.read()
            line = f"meter power_w {(raw or 0) / 1e3}"
            for said in {"garbage": ["\xff\0{"], "partial": [line[:9]], "twice": [line, line]}.get(self.mode, [line]):
                self._socket.sendto(said.encode(), self._to)
        return self._meter.read()

    def close(self) -> None:
        self._socket.close()
        self._meter.close()


def _plain(kind: Kind) -> Connect:
    return lambda bench: Instrument(bench.wall, bench.device, kind)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """An instrument, how long an answer it is given, and what it is: a wire, counters, or both."""

    connect: Connect
    wire: Literal["files", "serial", "web", "modbus", "feed", "none"]
    counter: bool = False
    zones: bool = False
    duration_s: float = 3.0
    idle_s: float = 25.0


SETUPS: Mapping[str, Setup] = {
    "powercap": Setup(connect=_powercap, wire="files", counter=True, zones=True),
    "powercap that wraps": Setup(connect=lambda bench: _powercap(bench, 60_000_000), wire="files", zones=True),
    "mcp39f511n": Setup(connect=_mcp39f511n, wire="serial"),
    "shelly": Setup(connect=_shelly, wire="web", duration_s=6.0, idle_s=40.0),
    "shelly gen 1": Setup(connect=_shelly_gen1, wire="web", duration_s=6.0, idle_s=40.0),
    "tasmota": Setup(connect=_tasmota, wire="web", duration_s=6.0, idle_s=40.0),
    "modbus": Setup(connect=_modbus, wire="modbus", duration_s=6.0, idle_s=40.0),
    "redfish": Setup(connect=_redfish, wire="web", duration_s=6.0, idle_s=40.0),
    "remote": Setup(connect=_remote, wire="web", counter=True),
    "feed": Setup(connect=_Fed, wire="feed", idle_s=30.0),
    "gpu counter, 100 ms": Setup(
        connect=_plain(Kind(sampling=Sampling.COUNTER, tick_s=0.1, lag_s=0.05, step=1e-3)), wire="none", counter=True
    ),
    "wall, mean over 100 ms": Setup(connect=_plain(Kind(sampling=Sampling.MEAN, tick_s=0.1, lag_s=0.05)), wire="none"),
}


@contextmanager
def bench_of(setup: Setup, timeout_s: float = PATIENT_S) -> Iterator[tuple[Bench, Recorder]]:
    """The instrument opened, with a recorder that has not started."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        clock, machine = FaultClock(), Machine(SEED)
        device = DeviceClock(clock)
        clock.sleep_until(nanoseconds(5.0))
        bench = Bench(clock, machine, device, CountingWall(machine), stack, folder, timeout_s)
        bench.sick = Sick(setup.connect(bench), clock)
        recorder = Recorder([bench.sick], clock, reading_hz=10.0)
        stack.callback(recorder.stop)
        yield bench, recorder


# --- the faults -------------------------------------------------------------------------------------------------------

Hand = Callable[[Bench, bool], None]
"""Begins a fault (True) or ends it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What is done, to which instruments, how long, and the verdict codes of which one must name it where the figures
    do not hold."""

    hand: Hand
    names: frozenset[str]
    wires: frozenset[str] = frozenset()
    counter: bool = False
    lasts: tuple[Lasts, ...] = ("once", "while", "ever")
    waits: bool = False
    """Each reading waits for its time-out in real time: for ever only at a few points."""

    def fits(self, setup: Setup) -> bool:
        return (not self.wires or setup.wire in self.wires) and (setup.counter or not self.counter)


def _sick(mode: Any) -> Hand:
    def hand(bench: Bench, on: bool) -> None:
        assert bench.sick is not None
        bench.sick.mode = mode if on else ""

    return hand


def _line(mode: LineMode) -> Hand:
    def hand(bench: Bench, on: bool) -> None:
        assert bench.line is not None
        bench.line.mode = mode if on else ""

    return hand


def _chip(fault: Any) -> Hand:
    def hand(bench: Bench, on: bool) -> None:
        assert bench.chip is not None
        bench.chip.fault = (lambda: fault) if on else (lambda: None)

    return hand


def _unplugged(bench: Bench, on: bool) -> None:
    if bench.line is not None:
        bench.line.unplug() if on else bench.line.plug()
    bench.replug(not on)


def _stands(bench: Bench, on: bool) -> None:
    bench.device.stands_ns = bench.device.now_ns() if on else None


def _behind(bench: Bench, on: bool) -> None:
    """It stands still for a second, and is a second late from then on."""
    device = bench.device
    if on:
        device.stands_ns = device.now_ns()

        def go_on() -> None:
            if device.stands_ns is not None:
                device.stands_ns, device.behind_ns = None, nanoseconds(1.0)

        bench.clock.call_at(bench.clock.now_ns() + nanoseconds(1.0), go_on)
    else:
        device.stands_ns, device.behind_ns = None, 0


def _restart(bench: Bench, on: bool) -> None:
    if on and bench.tree is not None:
        bench.tree.restarted_ns = bench.clock.now_ns()
    elif on:
        bench.wall.begun_j = Wall.energy_j(bench.wall, bench.clock.now_ns())


def _swap(bench: Bench, on: bool) -> None:
    if on and bench.tree is not None:
        bench.tree.shifted_uj = 100_000_000_000
    elif on:
        bench.wall.begun_j = -5 * J_PER_KWH


def _calendar(s: float) -> Hand:
    def hand(bench: Bench, on: bool) -> None:
        if on:
            bench.clock.calendar_off += timedelta(seconds=s)

    return hand


def _held_up(bench: Bench, on: bool) -> None:
    bench.clock.held_up = on


def _stolen(bench: Bench, on: bool) -> None:
    if on:
        bench.clock.lose(2.0)


def _fed(mode: str) -> Hand:
    return lambda bench, on: bench.sent(mode if on else "")


TCP, HTTP, SERIAL, FEED = frozenset({"web", "modbus"}), frozenset({"web"}), frozenset({"serial"}), frozenset({"feed"})
FAULTS: Mapping[str, Fault] = {
    "no answer": Fault(hand=_sick("fault"), names=GAP),
    "nothing to say": Fault(hand=_sick("absent"), names=GAP),
    "driver breaks": Fault(hand=_sick("crash"), names=GAP),
    "number too large": Fault(hand=_sick("huge"), names=GAP),
    "reading takes long": Fault(hand=_sick("late"), names=GAP, lasts=("once", "while")),
    "value stands": Fault(hand=_stands, names=frozenset({"meter_frozen", "meter_gap"})),
    "shows things late": Fault(
        hand=_behind,
        names=frozenset({"meter_frozen", "meter_gap", "meter_late", "meter_reset"}),
        lasts=("while", "ever"),
    ),
    "counter begins anew": Fault(hand=_restart, names=frozenset({"meter_reset"}), counter=True, lasts=("once",)),
    "counter jumps": Fault(hand=_swap, names=frozenset({"meter_reset"}), counter=True, lasts=("once",)),
    "calendar +1 h": Fault(hand=_calendar(3_600.0), names=frozenset({"clock_step"}), lasts=("once",)),
    "calendar -1 h": Fault(hand=_calendar(-3_600.0), names=frozenset({"clock_step"}), lasts=("once",)),
    "recorder held up": Fault(hand=_held_up, names=GAP, lasts=("while", "ever")),
    "machine stolen": Fault(hand=_stolen, names=GAP, lasts=("once",)),
    "NAK": Fault(hand=_chip("nak"), names=GAP, wires=SERIAL),
    "question refused": Fault(hand=_chip("refused"), names=GAP, wires=SERIAL),
    "checksum": Fault(hand=_chip("checksum"), names=GAP, wires=SERIAL),
    "silent chip": Fault(hand=_chip("silence"), names=GAP, wires=SERIAL, waits=True),
    "cut frame": Fault(hand=_chip("truncated"), names=GAP, wires=SERIAL, waits=True),
    "wrong length": Fault(hand=_chip("length"), names=GAP, wires=SERIAL),
    "noise on the line": Fault(hand=_chip("noise"), names=GAP, wires=SERIAL),
    "unplugged": Fault(hand=_unplugged, names=GAP, wires=TCP | SERIAL),
    "silent line": Fault(hand=_line("silent"), names=GAP, wires=TCP, waits=True),
    "hung up": Fault(hand=_line("closed"), names=GAP, wires=TCP),
    "half an answer": Fault(hand=_line("half"), names=GAP, wires=TCP),
    "garbage": Fault(hand=_line("garbage"), names=GAP, wires=TCP, waits=True),
    "status 500": Fault(hand=_line("error"), names=GAP, wires=HTTP),
    "huge answer": Fault(hand=_line("huge"), names=GAP, wires=HTTP),
    "feed stops": Fault(hand=_fed("silent"), names=GAP, wires=FEED),
    "feed of nonsense": Fault(hand=_fed("garbage"), names=GAP, wires=FEED),
    "feed of half lines": Fault(hand=_fed("partial"), names=GAP, wires=FEED),
    "feed says all twice": Fault(hand=_fed("twice"), names=GAP, wires=FEED),
}


# --- a run ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One fault of one instrument at one point of a run."""

    setup: str
    fault: str
    point: str
    lasts: Lasts

    def __str__(self) -> str:
        return f"{self.setup} / {self.fault} / {self.point} / {self.lasts}"


def cases() -> list[Case]:
    """The whole cross product."""
    return [
        Case(setup=name, fault=fault_name, point=point, lasts=lasts)
        for name, setup in SETUPS.items()
        for fault_name, fault in FAULTS.items()
        if fault.fits(setup)
        for point in POINTS
        for lasts in fault.lasts
        if not (fault.waits and lasts == "ever") or point in FEW_POINTS
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A receipt beside the truth."""

    receipt: Receipt
    trace: Trace
    origin_ns: int
    answer_j: float
    active_j: float

    @property
    def codes(self) -> frozenset[str]:
        """What makes it suspect or invalid."""
        return frozenset(reason.code for reason in self.receipt.reasons if reason.level != "note")

    @property
    def outside(self) -> bool:
        """Whether the truth of `answer` lies outside its interval."""
        figure = self.receipt.energy.answer
        return figure is not None and abs(figure.j - self.answer_j) > figure.u

    def wrong(self) -> str:
        """Which figure is further from the truth than its interval, twice: one in twenty may be outside it, four
        standard uncertainties are a wrong number."""
        energy = self.receipt.energy
        for name, figure, truth_j in (
            ("answer", energy.answer, self.answer_j),
            ("active", energy.active, self.active_j),
        ):
            if figure is not None and abs(figure.j - truth_j) > 2 * figure.u:
                return f"{name} {figure.j:.1f} +- {figure.u:.1f} J, true {truth_j:.1f} J"
        return ""


class Session:
    """Prompts on one bench."""

    def __init__(self, setup: Setup, bench: Bench, recorder: Recorder) -> None:
        self.setup, self.bench, self.recorder = setup, bench, recorder
        prefill_s, tokens = 0.3 * setup.duration_s, round(setup.duration_s * 10)
        script = Script(
            prefill_s=prefill_s,
            token_s=0.7 * setup.duration_s / (tokens - 1),
            tokens=tokens,
            prefill_level=1.0,
            decode_level=0.6,
        )
        self.engine = Watched(bench.clock, script, activity=bench.machine.activity)
        path = bench.folder / "scripted.gguf"
        path.touch()
        file = ModelFile(
            id="scripted", digest="sha256:0", quantization="none", size_bytes=1, memory_bytes=1, context_tokens=4096
        )
        self.model = LocalModel(file=file, path=path)
        self.quiet_since_ns = bench.clock.now_ns()
        self.moments: dict[str, int] = {}

    def wait(self, s: float) -> None:
        self.bench.clock.sleep_until(self.bench.clock.now_ns() + nanoseconds(s))

    def ask(self) -> Asked:
        """One prompt; its receipt beside the truth."""
        prompt = Prompt(model="scripted", messages=(Message(role="user", content="Question"),))
        lease = Lease(token="t", job_id="j", attempt=1, prompt=prompt, queued_s=0.0, placement_reason="")
        host = Host(node="rig", zone="DE", cores=2, memory_bytes=8_000_000_000)

        def sink(kind: str, **_: object) -> None:
            self.moments.setdefault(kind, self.bench.clock.now_ns())

        trace = measure(
            lease, self.model, host, self.engine, self.recorder, self.bench.clock, sink, self.quiet_since_ns
        ).trace
        self.quiet_since_ns = self.bench.clock.now_ns()
        self.moments["released"] = self.quiet_since_ns
        return self._beside_truth(trace, self.engine.last_ns - trace.tokens[-1].t_ns)

    def _beside_truth(self, trace: Trace, origin_ns: int) -> Asked:
        answer = trace.span("answer")
        assert answer is not None
        ends_ns = origin_ns + answer.start_ns, origin_ns + answer.end_ns
        drawn = zones_j if self.setup.zones else lambda machine, t_ns: Wall(machine).energy_j(t_ns)
        asked_j, idle_j = (
            drawn(machine, ends_ns[1]) - drawn(machine, ends_ns[0]) for machine in (self.bench.machine, Machine(SEED))
        )
        return Asked(
            receipt=account(trace, factors(), receipt_id="r", placement=PLACEMENT),
            trace=trace,
            origin_ns=origin_ns,
            answer_j=asked_j,
            active_j=asked_j - idle_j,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DryRun:
    """Two prompts without a fault: when each point comes, and what was read at which moment."""

    points_ns: Mapping[str, int]
    readings: Mapping[int, Sequence[int | None]]


@cache
def dry_run(name: str) -> DryRun:
    """Loading is the first prompt's, all else the second's."""
    setup = SETUPS[name]
    with bench_of(setup) as (bench, recorder):
        session = Session(setup, bench, recorder)
        recorder.start()
        session.wait(setup.idle_s)
        load_ns = bench.clock.now_ns() + 200_000_000
        session.ask()
        session.wait(setup.idle_s)
        leased_ns = bench.clock.now_ns()
        asked = session.ask()
        problem = asked.wrong() or ("" if asked.receipt.verdict == "valid" else f"{asked.receipt.reasons}")
        assert not problem, f"{name} without a fault: {problem}"
        answer, token = asked.trace.span("answer"), asked.trace.tokens[0]
        assert answer is not None
        t_s, t_f, t_e = (asked.origin_ns + t_ns for t_ns in (answer.start_ns, token.t_ns, answer.end_ns))
        assert bench.sick is not None
        readings = bench.sick.seen
    ms = 1_000_000
    points_ns = {
        "idle": leased_ns - 10_000 * ms,
        "before the lease": leased_ns - 300 * ms,
        "load": load_ns,
        "settle": (leased_ns + t_s) // 2,
        "before t_s": t_s - 500 * ms,
        "at t_s": t_s - 10 * ms,
        "prefill": t_s + 300 * ms,
        "first token": t_f - 10 * ms,
        "decode": t_f + 600 * ms,
        "before t_e": t_e - 700 * ms,
        "at t_e": t_e - 10 * ms,
        "after t_e": t_e + 30 * ms,
        "post-guard": t_e + 500 * ms,
        "between prompts": session.moments["released"] + 500 * ms,
    }
    return DryRun(points_ns=points_ns, readings=readings)


def undisturbed(name: str, begin_ns: int) -> Mapping[int, Sequence[int | None]]:
    """What is read until a moment before a fault begins: the same in every run. From then on the wire is asked."""
    until_ns = begin_ns - nanoseconds(UNDISTURBED_S)
    return {t_ns: raw for t_ns, raw in dry_run(name).readings.items() if t_ns < until_ns}


def problem_of(case: Case) -> str:
    """What is wrong with how this case ends, twice in a row: on a busy machine a wire may be late by itself."""
    return outcome(case)[0] and outcome(case)[0]


def outcome(case: Case) -> tuple[str, Asked]:
    """What is wrong with how this case ended, empty where nothing is; and its receipt."""
    setup, fault = SETUPS[case.setup], FAULTS[case.fault]
    begin_ns = dry_run(case.setup).points_ns[case.point]
    with bench_of(setup, SHORT_S if fault.waits else PATIENT_S) as (bench, recorder):
        session = Session(setup, bench, recorder)
        assert bench.sick is not None
        bench.sick.known = undisturbed(case.setup, begin_ns)
        over = [False]

        def end() -> None:
            if not over[0]:
                over[0] = True
                fault.hand(bench, False)

        bench.clock.call_at(begin_ns, lambda: fault.hand(bench, True))
        if case.lasts != "ever":
            bench.clock.call_at(begin_ns + nanoseconds(LASTS_S[case.lasts]), end)
        recorder.start()
        session.wait(setup.idle_s)
        first = session.ask()
        if case.point != "load":
            session.wait(setup.idle_s)
            first = session.ask()
        session.wait(5.0)
        end()
        session.wait(min(setup.idle_s, AGAIN_S))
        second = session.ask()
    return _problem(fault, first, second), first


def _problem(fault: Fault, first: Asked, second: Asked) -> str:
    energy, codes = first.receipt.energy, first.codes
    if energy.answer is None and not codes & fault.names:
        return f"no figure, and only {sorted(codes)} said why"
    if (wrong := first.wrong()) and not codes & fault.names:
        return f"wrong: {wrong}; verdict {first.receipt.verdict} {sorted(codes)}"
    if wrong := second.wrong():
        return f"the next prompt is wrong: {wrong}"
    if second.receipt.verdict != "valid" and not second.codes <= AFTERWARDS:
        return f"the next prompt is {second.receipt.verdict}: {[one.sentence for one in second.receipt.reasons]}"
    return ""
