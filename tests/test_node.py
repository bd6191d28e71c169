"""Settling, recording, relaying and keeping: what the node does around an answer, on a clock that is handed in."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import pairwise
from pathlib import Path

import pytest

from joulebox.accounting import account, receipt_bytes
from joulebox.client import Client
from joulebox.clock import Clock, SimulatedClock, SystemClock
from joulebox.model import Channel, Message, ModelFile, Prompt, Receipt
from joulebox.node.engine import Event, Finished, LocalModel
from joulebox.node.engines.scripted import Script, Scripted
from joulebox.node.measurement import Machine, measure
from joulebox.node.meter import MeterFault
from joulebox.node.meters import open_meters
from joulebox.node.recorder import KEEP_S, REMARKS_MAX, Recorder
from joulebox.node.relay import Relay
from joulebox.node.settle import WAIT_MAX_S, settle
from joulebox.node.spool import Spool
from joulebox.protocol import SENDS_PER_S, Finish, Lease
from joulebox.rig.physics import Machine as SimulatedMachine
from joulebox.rig.powercap_tree import RigPowercap
from joulebox.units import nanoseconds, seconds
from traces import PLACEMENT, channel, factors

MACHINE = Machine(node="rig", zone="DE", cores=2, memory_bytes=8_000_000_000)


class Counter:
    """A counter of a machine at `idle_w` that draws 40 W more from time to time. `says` decides on odd readings."""

    address = "powercap:test"

    def __init__(
        self,
        clock: Clock,
        busy_s: Sequence[tuple[float, float]] = (),
        idle_w: float = 8.0,
        channels: Sequence[Channel] = (channel(),),
        missing: Sequence[str] = (),
    ) -> None:
        self.missing = missing
        self.says: Callable[[float, int], int | None] = lambda _, raw: raw
        self.closed = False
        self._clock, self._busy_s, self._idle_w, self._channels = clock, busy_s, idle_w, channels

    def channels(self) -> Sequence[Channel]:
        return self._channels

    def read(self) -> Sequence[int | None]:
        t_s = seconds(self._clock.now_ns())
        drawn_j = self._idle_w * t_s + sum(40.0 * min(max(t_s - a, 0.0), b - a) for a, b in self._busy_s)
        return tuple(self.says(t_s, int(drawn_j * 1e6)) for _ in self._channels)

    def close(self) -> None:
        self.closed = True


def recording(clock: SimulatedClock, *meters: Counter, until_s: float = 0.0) -> Recorder:
    recorder = Recorder(meters, clock, reading_hz=10.0)
    recorder.start()
    clock.sleep_until(nanoseconds(until_s))
    return recorder


def settled_s(busy_s: Sequence[tuple[float, float]], lease_s: float = 20.0) -> float:
    """How long a node waits that was idle since the clock began and gets a lease at `lease_s`."""
    clock = SimulatedClock()
    recorder = recording(clock, Counter(clock, busy_s), until_s=lease_s)
    span = settle(recorder, clock, 0)
    return seconds(span.end_ns - span.start_ns)


def test_a_quiet_machine_does_not_wait() -> None:
    """With a quiet guard already behind it the answer begins at once."""
    assert settled_s([]) == 0.0


def test_a_busy_second_before_the_lease_is_waited_for() -> None:
    """Work that ended just before the lease has to leave the guard, and no more than that."""
    assert 0.5 <= settled_s([(19.0, 20.0)]) <= 1.3
    assert settled_s([(17.0, 18.0)]) == 0.0


def test_waiting_is_bounded() -> None:
    """A machine that does not calm down is measured as it is."""
    assert settled_s([(19.0, 60.0)]) == pytest.approx(WAIT_MAX_S, abs=0.2)


def test_after_a_load_a_whole_guard_passes() -> None:
    """Without an idle record the guard is waited for from when the machine became quiet."""
    clock = SimulatedClock()
    recorder = recording(clock, Counter(clock), until_s=0.2)
    span = settle(recorder, clock, clock.now_ns())
    assert seconds(span.end_ns - span.start_ns) == pytest.approx(recorder.guard_s, abs=0.11)


def test_without_meters_nothing_is_waited_for() -> None:
    """No meter, no guard."""
    clock = SimulatedClock()
    span = settle(Recorder([], clock, 10.0), clock, 0)
    assert span.start_ns == span.end_ns


def test_faults_are_noted_and_the_newest_kept() -> None:
    """A meter that faults leaves a remark a reading and no reading; of very many the newest stay."""
    clock = SimulatedClock()
    meter = Counter(clock)
    recorder = recording(clock, meter, until_s=1.0)

    def broken(t_s: float, raw: int) -> int:
        raise MeterFault("no answer")

    meter.says = broken
    clock.sleep_until(nanoseconds(31.05))
    meter.says = lambda _, raw: raw
    clock.sleep_until(nanoseconds(32.0))
    remarks = recorder.record(0, clock.now_ns()).remarks()
    assert len(remarks) == REMARKS_MAX
    assert {(one.code, one.detail) for one in remarks} == {("meter_gap", "powercap:test: no answer")}
    assert remarks[-1].t_ns == pytest.approx(nanoseconds(31.0), abs=nanoseconds(0.1))
    times = recorder.series(0, clock.now_ns())[0].t_ns
    assert not any(nanoseconds(1.0) < t_ns <= nanoseconds(31.0) for t_ns in times)


def test_no_value_is_no_reading() -> None:
    """A channel that has no value at a moment has no reading then; its neighbours have theirs."""
    clock = SimulatedClock()
    meter = Counter(clock, channels=(channel(), channel("package-1")))
    turns = iter(range(1_000))
    meter.says = lambda _, raw: None if next(turns) % 4 == 1 else raw
    one, two = recording(clock, meter, until_s=2.0).series(0, clock.now_ns())
    assert (len(one.t_ns), len(two.t_ns)) == (21, 10)
    assert all(isinstance(raw, int) for raw in two.raw)


def test_times_increase_strictly() -> None:
    """Reading twice at one moment keeps one reading: the evidence is refused otherwise."""
    clock = SimulatedClock()
    recorder = recording(clock, Counter(clock), until_s=0.5)
    for _ in range(3):
        recorder.read_now()
    assert len(recorder.series(0, clock.now_ns())[0].t_ns) == 6


def test_hold_and_forget() -> None:
    """Two minutes of idling are kept; while a run is held nothing is thrown away."""
    clock = SimulatedClock()
    recorder = recording(clock, Counter(clock), until_s=300.0)
    assert recorder.oldest_ns() == nanoseconds(300.0 - KEEP_S)
    recorder.hold(held=True)
    clock.sleep_until(nanoseconds(600.0))
    assert recorder.oldest_ns() == nanoseconds(300.0 - KEEP_S)
    recorder.hold(held=False)
    clock.sleep_until(nanoseconds(601.0))
    assert recorder.oldest_ns() == nanoseconds(601.0 - KEEP_S)


def test_live_power_shows_no_ticks() -> None:
    """Readings a moment apart, as at a run's edges, give the mean over longer, and a meter without readings none."""
    clock = SimulatedClock()
    recorder = recording(clock, Counter(clock), until_s=5.0)
    clock.sleep_until(nanoseconds(5.0003))
    recorder.read_now()
    latest = recorder.latest_power()
    assert latest is not None
    assert (latest[0], latest[2]) == (nanoseconds(5.0003), "cpu")
    assert latest[1] == pytest.approx(8.0, rel=0.01)
    silent = Counter(clock, channels=(channel("package-1"),))
    silent.says = lambda _, raw: None
    assert recording(clock, Counter(clock), silent, until_s=7.0).latest_power() is None


def test_live_power_of_a_stretch() -> None:
    """Moments of it, its beginning among them, as far apart as asked and no more than asked; a meter that is silent
    leaves none, and one that is slow no moment before its first reading."""
    clock = SimulatedClock()
    recorder = recording(clock, Counter(clock, [(3.0, 9.0)]), until_s=5.0)
    found = recorder.power_within(nanoseconds(2.0), nanoseconds(4.0), 40, nanoseconds(0.25))
    assert [seconds(t_ns) for t_ns, *_ in found] == pytest.approx([2.0, 2.2, 2.5, 2.7, 3.0, 3.2, 3.5, 3.7, 4.0])
    assert [watts for _, watts, _ in found] == pytest.approx([8.0] * 5 + [48.0] * 4, rel=0.01)
    assert len(recorder.power_within(nanoseconds(2.0), nanoseconds(4.0), 4, 1)) == 5
    silent = Counter(clock, channels=(channel("package-1"),))
    silent.says = lambda _, raw: None
    later = recording(clock, Counter(clock), silent, until_s=7.0)
    assert later.power_within(nanoseconds(5.0), nanoseconds(7.0), 40, 1) == []


def test_missing_is_what_no_meter_covers() -> None:
    """What one meter misses and another has is not missing; with a wall meter nothing is."""
    clock = SimulatedClock()
    packages = Counter(clock, missing=("wall", "dram", "gpu0"))
    memory = Counter(clock, channels=(channel("dram", "dram"),))
    wall = Counter(clock, channels=(channel("plug", "wall"),))
    assert Recorder([packages], clock, 10.0).missing == ("wall", "dram", "gpu0")
    assert Recorder([packages, memory], clock, 10.0).missing == ("wall", "gpu0")
    assert Recorder([packages, memory, wall], clock, 10.0).missing == ()


def test_memory_counters_alone_miss_the_cpu(tmp_path: Path) -> None:
    """Where RAPL shows memory and no package, the CPU is missing."""
    zone = tmp_path / "intel-rapl:0"
    zone.mkdir()
    for name, text in {"name": "dram", "energy_uj": "1", "max_energy_range_uj": "65712999613"}.items():
        (zone / name).write_text(text)
    (meter,) = open_meters([f"powercap:{tmp_path}"])
    assert meter.missing == ("wall", "cpu")
    meter.close()


def run(
    clock: SimulatedClock, recorder: Recorder, folder: Path, script: Script, engine: type[Scripted] = Scripted
) -> Receipt:
    """The receipt of one scripted answer under these meters."""
    path = folder / "m.gguf"
    path.touch()
    file = ModelFile(id="m", digest="d", quantization="q", size_bytes=1, memory_bytes=1, context_tokens=4096)
    prompt = Prompt(model="m", messages=(Message(role="user", content="hi"),))
    lease = Lease(token="t", job_id="j", attempt=1, prompt=prompt, queued_s=0.0, placement_reason="")
    model = LocalModel(file=file, path=path)
    measured = measure(lease, model, MACHINE, engine(clock, script), recorder, clock, lambda *_, **__: None, 0)
    receipt = account(measured.trace, factors(), receipt_id="r", placement=PLACEMENT)
    receipt_bytes(receipt)
    return receipt


@pytest.mark.parametrize(
    ("from_s", "to_s", "verdict", "known"),
    [
        (2.0, 4.0, "valid", True),  # long before: a hole in the idle record, nothing else
        (10.2, 11.2, "suspect", True),  # in the guard
        (11.8, 12.6, "suspect", True),  # in the answer: the counter went on
        (13.05, 99.0, "suspect", False),  # the guard after is gone, and with it the energy
    ],
)
def test_faults_around_an_answer(tmp_path: Path, from_s: float, to_s: float, verdict: str, known: bool) -> None:
    """A meter that faults around an answer costs the verdict, and the figure only where none can be known."""
    clock = SimulatedClock()
    meter = Counter(clock, busy_s=[(11.5, 13.0)])

    def says(t_s: float, raw: int) -> int:
        if from_s <= t_s <= to_s:
            raise MeterFault("no answer")
        return raw

    meter.says = says
    recorder = recording(clock, meter, until_s=10.0)
    receipt = run(clock, recorder, tmp_path, Script(load_s=0.5, prefill_s=0.5, token_s=0.1, tokens=11))
    assert receipt.verdict == verdict
    assert (receipt.energy.answer is not None) == known
    if receipt.energy.answer is not None:
        assert receipt.energy.answer.j == pytest.approx(1.5 * 48.0, rel=0.05)


def test_first_prompt_right_after_the_start(tmp_path: Path) -> None:
    """With no idle record but the guard the answer is as right as ever; what lies above idle is known less well."""
    clock = SimulatedClock()
    recorder = recording(clock, Counter(clock, busy_s=[(1.1, 2.0)]))
    receipt = run(clock, recorder, tmp_path, Script(load_s=0.1, prefill_s=0.3, token_s=0.1, tokens=7))
    energy = receipt.energy
    assert energy.answer is not None
    assert energy.active is not None
    assert energy.full is not None
    assert energy.answer.j == pytest.approx(0.9 * 48.0, rel=0.01)
    assert energy.active.u >= energy.answer.u + 8.0 * 0.9


def test_an_answer_without_tokens(tmp_path: Path) -> None:
    """A model that ends at once gives a receipt of its prefill, without tokens to divide by."""
    clock = SimulatedClock()
    recorder = recording(clock, Counter(clock), until_s=10.0)
    receipt = run(clock, recorder, tmp_path, Script(prefill_s=0.4, tokens=0))
    assert receipt.energy.answer is not None
    assert receipt.energy.answer.j == pytest.approx(3.2, rel=0.01)
    assert (receipt.times.time_to_first_token_s, receipt.sci.answer.per_output_token_g) == (None, None)
    assert receipt.energy.phases["prefill"].j is None


class Ending(Scripted):
    """Takes a token's time more to find that the answer is over: the token that says so is made and not shown."""

    def generate(self, prompt: Prompt) -> Iterator[Event]:
        for event in super().generate(prompt):
            if isinstance(event, Finished):
                self._clock.sleep_until(event.t_ns + nanoseconds(0.1))
                yield replace(event, t_ns=self._clock.now_ns())
            else:
                yield event


def test_the_token_that_ends_the_answer_belongs_to_it(tmp_path: Path) -> None:
    """The end token costs what any other does and is counted as one: the answer lasts until it is there."""
    clock = SimulatedClock()
    recorder = recording(clock, Counter(clock, busy_s=[(11.5, 13.1)]), until_s=10.0)
    script = Script(load_s=0.5, prefill_s=0.5, token_s=0.1, tokens=11)
    receipt = run(clock, recorder, tmp_path, script, engine=Ending)
    assert receipt.times.duration_s == pytest.approx(1.6)
    assert receipt.energy.answer is not None
    assert receipt.energy.answer.j == pytest.approx(1.6 * 48.0, rel=0.01)
    assert receipt.energy.phases["decode"].j == pytest.approx(1.1 * 48.0, rel=0.01)


RECORDER_COST = """
import sys, time
from joulebox.clock import SystemClock
from joulebox.node.meters import open_meters
from joulebox.node.recorder import Recorder
clock = SystemClock()
recorder = Recorder(open_meters(sys.argv[1:]), clock, reading_hz=10.0)
recorder.start()
clock.sleep_until(clock.now_ns() + 300_000_000)
wall, cpu = time.monotonic(), time.process_time()
clock.sleep_until(clock.now_ns() + 3_000_000_000)
print(len(recorder.channels), (time.process_time() - cpu) / (time.monotonic() - wall))
recorder.stop()
"""


def test_recording_costs_little(tmp_path: Path) -> None:
    """Recording four channels ten times a second costs less than half a percent of a core, in real time."""
    rig = RigPowercap(SimulatedClock(), SimulatedMachine(1), tmp_path)
    command = [sys.executable, "-c", RECORDER_COST, *rig.addresses]
    channels, share = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    rig.close()
    print(f"{channels} channels at 10 Hz: {float(share):.3%} of a core")
    assert int(channels) == 4
    assert float(share) < 0.005


@dataclass
class Server:
    """A tiny real server: it keeps what is sent, and when; `forgets_at` is the send at which it has restarted."""

    url: str = ""
    forgets_at: int = -1
    sends: list[tuple[int, list[int]]] = field(default_factory=list)
    told: list[tuple[str, float | None]] = field(default_factory=list)
    """Each event's kind, and its time where it has one."""

    @contextmanager
    def listening(self) -> Iterator["Server"]:
        server, clock = self, SystemClock()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                seqs = [event["seq"] for event in body["events"]]
                server.told += [(event["kind"], event["data"].get("t_s")) for event in body["events"]]
                forgot = len(server.sends) == server.forgets_at
                server.sends.append((clock.now_ns(), seqs))
                reply = json.dumps({"next_seq": 0 if forgot else seqs[-1] + 1, "cancel": False}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(reply)))
                self.end_headers()
                self.wfile.write(reply)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        with HTTPServer(("127.0.0.1", 0), Handler) as http:
            self.url = f"http://127.0.0.1:{http.server_port}"
            threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
            yield self
            http.shutdown()


def answering(server: Server, mode: str, lasts_s: float) -> tuple[int, int]:
    """Send an answer's events as a node does, a token each 10 ms; when it began and ended."""
    clock = SystemClock()
    with Client(server.url) as client:
        recorder = Recorder([], clock, 10.0)
        relay = Relay(client, "t", mode, MACHINE, recorder, clock, lambda: None)  # type: ignore[arg-type]
        relay("loading", model="m")
        relay("started")
        start_ns = clock.now_ns()
        for count in range(round(lasts_s * 100)):
            clock.sleep_until(start_ns + nanoseconds(count * 0.01))
            relay("token", text="a", n=1)
        relay("answer", finish_reason="stop")
        end_ns = clock.now_ns()
        relay("measuring", expected_s=1.0)
        relay.close()
    return start_ns, end_ns


def test_a_quiet_answer_sends_nothing() -> None:
    """Between `started` and `measuring` a quiet run sends nothing, not even what was waiting to be sent; then all."""
    with Server().listening() as server:
        start_ns, end_ns = answering(server, "quiet", 0.6)
    slack_ns = nanoseconds(0.02)  # what was already on the line when the answer began
    assert not [t_ns for t_ns, _ in server.sends if start_ns + slack_ns < t_ns < end_ns]
    assert sorted({seq for _, seqs in server.sends for seq in seqs}) == [0, 1, 2, 3, 4]


def test_a_live_answer_sends_four_times_a_second() -> None:
    """Tokens travel as they come, gathered: no more than so many sends a second, a server's restart included."""
    with Server(forgets_at=3).listening() as server:
        start_ns, end_ns = answering(server, "live", 1.6)
    times = [t_ns for t_ns, _ in server.sends if start_ns + nanoseconds(0.1) < t_ns < end_ns]
    gaps_s = [seconds(later - earlier) for earlier, later in pairwise(times)]
    assert len(times) >= 4
    assert min(gaps_s) >= 0.9 / SENDS_PER_S


def test_the_first_token_and_the_end_are_not_held_back() -> None:
    """What a person waits for goes at once, however little time has passed since the last send: sooner after it than
    what waits for its turn, in one of some rounds, since a busy machine is late by itself."""

    def gaps_s() -> list[float]:
        clock = SystemClock()
        with Server().listening() as server, Client(server.url) as client:
            relay = Relay(client, "t", "live", MACHINE, Recorder([], clock, 10.0), clock, lambda: None)

            def until_sent(sends: int) -> None:
                for _ in range(5_000):
                    if len(server.sends) == sends:
                        return
                    clock.sleep_until(clock.now_ns() + nanoseconds(0.001))

            relay("started")
            until_sent(1)
            relay("token", text="a", n=1)
            until_sent(2)
            relay("answer", finish_reason="stop")
            until_sent(3)
            relay.close()
        assert [kind for kind, _ in server.told] == ["started", "token", "answer"]
        return [seconds(later - earlier) for (earlier, _), (later, _) in pairwise(server.sends)]

    assert any(max(gaps_s()) < 0.5 / SENDS_PER_S for _ in range(5))


def test_the_power_while_the_prompt_is_read_goes_with_the_first_token() -> None:
    """A live run sends nothing between request and first token; what was drawn meanwhile is told just before that."""
    clock = SystemClock()
    recorder = Recorder([Counter(clock)], clock, reading_hz=50.0)
    recorder.start()
    clock.sleep_until(clock.now_ns() + nanoseconds(0.2))
    with Server().listening() as server, Client(server.url) as client:
        relay = Relay(client, "t", "live", MACHINE, recorder, clock, lambda: None)
        relay("started")
        clock.sleep_until(clock.now_ns() + nanoseconds(0.6))
        relay("token", text="a", n=1)
        relay.close()
    recorder.stop()
    assert [kind for kind, _ in server.told] == ["started", "power", "power", "power", "token", "power"]
    times = [t_s for kind, t_s in server.told if kind == "power"]
    assert times[:3] == pytest.approx([0.0, 0.25, 0.5], abs=0.2)
    assert len(server.sends) == 2


def test_a_restarted_server_is_told_everything_again() -> None:
    """A server that answers that it knows nothing gets all events from the first; numbers and texts stay the same."""
    with Server(forgets_at=1).listening() as server:
        answering(server, "live", 0.7)
    assert server.sends[2][1][0] == 0
    assert server.sends[2][1] == list(range(len(server.sends[2][1])))
    told = [seq for _, seqs in server.sends[2:] for seq in seqs]
    assert told == list(range(len(told)))


def test_a_restart_at_the_end_is_made_good() -> None:
    """Even where the server forgets at the very last send, everything is sent again before the relay closes."""
    with Server(forgets_at=1).listening() as server:
        answering(server, "quiet", 0.3)
    assert server.sends[-1][1][0] == 0
    assert server.sends[-1][1][-1] == 4


def test_a_result_is_kept_whole_or_not_at_all(tmp_path: Path) -> None:
    """A result that could not be written, or was half written when the node died, is not there; a whole one is."""
    spool = Spool(tmp_path)
    kept = Finish(outcome="done", answer="yes", finish_reason="stop")
    spool.put("whole", kept)
    (tmp_path / "half.part").write_bytes(b'{"outcome": "do')
    with pytest.raises(UnicodeEncodeError):
        spool.put("never", replace(kept, answer="\ud800"))
    assert [token for token, _ in spool.waiting()] == ["whole"]
    assert json.loads(next(spool.waiting())[1])["answer"] == "yes"
    spool.done("whole")
    spool.done("whole")
    assert not list(spool.waiting())
