"""Any work on this machine gets a receipt: a command, a block of Python; against the rig's truth and on real clocks."""

import io
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from statistics import median

import pytest

import joulebox
from joulebox.accounting import receipt_bytes
from joulebox.clock import SimulatedClock, SystemClock
from joulebox.console import show_receipt
from joulebox.errors import JouleboxError
from joulebox.local import IDLE_S, Instruments, Run, Session, instruments, run_command
from joulebox.model import Receipt
from joulebox.node.measurement import Conditions, Machine
from joulebox.node.meters import open_meters
from joulebox.node.neighbours import Census, Process
from joulebox.node.recorder import Recorder
from joulebox.rig.physics import Machine as SimulatedMachine
from joulebox.rig.physics import Zone
from joulebox.rig.powercap_tree import RigPowercap
from joulebox.server.pages import render_receipt
from joulebox.units import nanoseconds
from traces import factors

pytestmark = pytest.mark.usefixtures("own_folder")
ZONES: tuple[Zone, ...] = ("package-0", "package-0/dram")
JSON_KEYS = {"prompt_id", "model", "engine", "seed"}


def on_rig(clock: SimulatedClock, rig: RigPowercap) -> Instruments:
    """Fresh instruments that read the rig."""
    meters = [rig.following(meter) for meter in open_meters(rig.addresses)]
    return Instruments(
        clock=clock,
        machine=Machine(node="rig", zone="DE", cores=2, memory_bytes=8_000_000_000),
        recorder=Recorder(meters, clock, 10.0),
        factors=factors(),
        idle_s=IDLE_S,
    )


def busy(clock: SimulatedClock, machine: SimulatedMachine, duration_s: float) -> Callable[[], tuple[str, int]]:
    """Work that keeps the machine busy for so long."""

    def work() -> tuple[str, int]:
        machine.activity(clock.now_ns(), 0.7)
        clock.sleep_until(clock.now_ns() + nanoseconds(duration_s))
        machine.activity(clock.now_ns(), 0.0)
        return "exit 0", clock.now_ns()

    return work


def test_first_window_is_as_right_as_the_tenth(tmp_path: Path) -> None:
    """Ten windows of 0.2 s, each with meters freshly opened, all lie within 1 % and within their interval of the
    truth."""
    clock, machine = SimulatedClock(), SimulatedMachine(3)
    rig = RigPowercap(clock, machine, tmp_path)
    said: list[str] = []
    for _ in range(10):
        fresh = on_rig(clock, rig)
        trace = fresh.trace(busy(clock, machine, 0.2), said.append)
        receipt = fresh.receipt(trace)
        end_ns = clock.now_ns() - (trace.released_ns - trace.spans[-1].start_ns)
        truth_j = sum(machine.energy_j(z, end_ns) - machine.energy_j(z, end_ns - nanoseconds(0.2)) for z in ZONES)
        answer = receipt.energy.answer
        assert answer is not None
        assert answer.j == pytest.approx(truth_j, rel=0.01)
        assert abs(answer.j - truth_j) <= answer.u
        assert receipt.verdict == "valid", receipt.reasons
    rig.close()
    assert said.count("listening to the idle machine for 3 s") == 10


def test_windows_of_one_session_are_all_as_right(tmp_path: Path) -> None:
    """Ten blocks behind meters opened once, each 0.2 s, lie within 1 % and their interval of the truth, whether their
    receipts are asked for at once or when the meters are closed."""
    clock, machine = SimulatedClock(), SimulatedMachine(3)
    rig = RigPowercap(clock, machine, tmp_path)
    windows, truths_j = [], []
    with Session(on_rig(clock, rig)) as session:
        for number in range(10):
            with session.measure() as window:
                before_j = sum(machine.energy_j(zone, clock.now_ns()) for zone in ZONES)
                busy(clock, machine, 0.2)()
                truths_j.append(sum(machine.energy_j(zone, clock.now_ns()) for zone in ZONES) - before_j)
            windows.append(window)
            if number % 2:
                assert window.receipt.finish_reason == "done"
            clock.sleep_until(clock.now_ns() + nanoseconds(20))
    rig.close()
    for window, truth_j in zip(windows, truths_j, strict=True):
        energy = window.receipt.energy
        assert window.receipt is window.receipt
        assert energy.answer is not None
        assert energy.answer.j == pytest.approx(truth_j, rel=0.01)
        assert abs(energy.answer.j - truth_j) <= energy.answer.u
        assert energy.full is not None
        assert window.receipt.verdict == "valid", window.receipt.reasons


def raise_key_error(clock: SimulatedClock) -> None:
    clock.sleep_until(clock.now_ns() + nanoseconds(0.2))
    raise KeyError("gone")


def test_a_session_measures_one_block_at_a_time(tmp_path: Path) -> None:
    """A block inside another, or outside the session, is refused in one sentence and spoils nothing; what a block
    raises passes through."""
    clock, machine = SimulatedClock(), SimulatedMachine(3)
    rig = RigPowercap(clock, machine, tmp_path)
    session = Session(on_rig(clock, rig))
    with pytest.raises(RuntimeError, match="not open"), session.measure():
        pass
    broken = session.measure()
    with session:
        with session.measure() as window:
            with pytest.raises(RuntimeError, match="one block at a time"), session.measure():
                pass
            with pytest.raises(RuntimeError, match="ended"):
                window.receipt  # noqa: B018 - asking is the test
            clock.sleep_until(clock.now_ns() + nanoseconds(0.2))
        with pytest.raises(KeyError, match="gone"), broken:
            raise_key_error(clock)
    rig.close()
    assert (window.receipt.finish_reason, broken.receipt.finish_reason) == ("done", "KeyError")


def test_a_session_tells_who_else_was_at_work() -> None:
    """What another program did between the looks on either side of a block stands in its receipt; the machine is looked
    at when the session opens and once for all the blocks before a receipt."""
    looks: list[float] = []

    def look() -> Census:
        looks.append(3.0 * len(looks))
        spinner = Process(9, 1, "spinner", 1, kernel=False, cpu_s=looks[-1], children_cpu_s=0.0)
        up_s = 10.0 + looks[-1]
        empty = {"busy_s": None, "steal_s": None, "disk_sectors": None, "network_bytes": None}
        return Census(uptime_s=up_s, cores=2, processes=(spinner,), **empty)

    clock = SimulatedClock()
    session = Session(
        Instruments(
            clock=clock,
            machine=Machine(node="n", zone="DE", cores=2, memory_bytes=8_000_000_000),
            recorder=Recorder([], clock, 10.0),
            factors=factors(),
            idle_s=IDLE_S,
            conditions=Conditions(look=look),
        )
    )
    windows = []
    with session:
        for _ in range(2):
            with session.measure() as window:
                clock.sleep_until(clock.now_ns() + nanoseconds(1))
            windows.append(window)
        told = [{reason.code: reason.sentence for reason in one.receipt.reasons} for one in windows]
    assert len(looks) == 2
    assert all("spinner" in reasons["foreign_load"] for reasons in told)


def test_a_block_is_as_right_as_a_command(tmp_path: Path) -> None:
    """`with measure() as run` lies within 1 % and its interval of the truth, also where the block raises; its receipt
    is the one that `joulebox measure` makes, with the headline at hand."""
    clock, machine = SimulatedClock(), SimulatedMachine(6)
    rig = RigPowercap(clock, machine, tmp_path)
    for fails in (False, True):
        run, truth_j = Run(on_rig(clock, rig)), 0.0
        with suppress(KeyError), run:
            before_j = sum(machine.energy_j(zone, clock.now_ns()) for zone in ZONES)
            busy(clock, machine, 0.5)()
            truth_j = sum(machine.energy_j(zone, clock.now_ns()) for zone in ZONES) - before_j
            if fails:
                raise KeyError("gone")
        receipt = run.receipt
        assert receipt.finish_reason == ("KeyError" if fails else "done")
        assert receipt.joules == pytest.approx(truth_j, rel=0.01)
        assert receipt.joules is not None
        assert receipt.u is not None
        assert abs(receipt.joules - truth_j) <= receipt.u
        assert receipt.to_dict() == json.loads(receipt_bytes(receipt))
        assert receipt.verdict == "valid", receipt.reasons
    rig.close()


def test_a_receipt_of_work_names_no_model(tmp_path: Path) -> None:
    """What only a prompt has is null, never made up; terminal and page show the receipt without a word of tokens."""
    clock, machine = SimulatedClock(), SimulatedMachine(4)
    rig = RigPowercap(clock, machine, tmp_path)
    fresh = on_rig(clock, rig)
    receipt = fresh.receipt(fresh.trace(busy(clock, machine, 2.0), lambda _: None))
    rig.close()
    told = json.loads(receipt_bytes(receipt))
    assert {key for key, value in told.items() if value is None} >= JSON_KEYS
    assert set(told["usage"].values()) == {None}
    assert told["energy"]["phases"]["decode"] == {"j": None, "u": None, "s": None, "method": None}
    assert told["sci"]["answer"]["per_output_token_g"] is None
    assert told["sci"]["answer"]["per_answer_g"] > 0
    assert "start of the work" in told["sci"]["answer"]["boundary"]
    assert told["finish_reason"] == "exit 0"
    shown = io.StringIO()
    show_receipt(told, shown)
    page = render_receipt(told, standalone=True)
    for text in (shown.getvalue(), page):
        assert "exit 0" in text
        assert "Work" in text
        assert not [
            word
            for word in ("oken", "prompt", "Prefill", "last word", "None")
            if word in text.split("</style>")[-1].replace("per_output_token", "")
        ]


def command(*words: str, stdin: str = "", **options: str) -> "subprocess.CompletedProcess[str]":
    """`joulebox measure` as a person starts it."""
    flags = [part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", value)]
    line = [sys.executable, "-m", "joulebox", "measure", *flags, *words]
    return subprocess.run(line, capture_output=True, text=True, input=stdin, check=False, timeout=60)


def test_a_command_keeps_its_input_output_and_exit_code() -> None:
    """stdin, stdout, stderr, options and exit code are the command's own; the receipt stands on stderr."""
    code = "import sys; print(sys.stdin.read().upper(), end=''); print('trouble', file=sys.stderr); sys.exit(7)"
    done = command("--", sys.executable, "-c", code, stdin="words", meter="none:")
    assert (done.returncode, done.stdout) == (7, "WORDS")
    assert "trouble" in done.stderr
    assert "Receipt" in done.stderr
    assert "exit 7" in done.stderr


def test_json_is_the_last_line_of_stdout() -> None:
    """With `--json` the last line of stdout is the receipt, even after output without a line's end."""
    done = command("--json", "sh", "-c", "printf half; sleep 0.1", meter="none:", zone="FR")
    assert done.returncode == 0
    before, _, last = done.stdout.rstrip("\n").rpartition("\n")
    receipt = json.loads(last)
    assert before == "half"
    assert 0.1 <= receipt["times"]["duration_s"] < 10.0
    assert receipt["zone"] == "FR"
    assert "unmetered" in {reason["code"] for reason in receipt["reasons"]}


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("no-such-program",), "no-such-program"),
        (("--idle-s", "0.5", "true"), "idle machine"),
        (("--idle-s", "nan", "true"), "idle machine"),
        (("--zone", "Germani", "true"), "DE"),
        (("--meter", "magic:", "true"), "powercap"),
        (("./broken",), "broken"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_one_sentence(
    words: tuple[str, ...], part: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Wrong use ends with exit code 2 and one sentence, and nothing is run."""
    from joulebox.cli import main

    Path("broken").write_bytes(b"\x7fELF no program")
    Path("broken").chmod(0o755)
    monkeypatch.setattr(
        sys, "argv", ["joulebox", "measure", *(["--meter", "none:"] if "--meter" not in words else []), *words]
    )
    with pytest.raises(SystemExit) as left:
        main()
    said = capsys.readouterr()
    assert (left.value.code, said.out) == (2, "")
    assert said.err.startswith("joulebox: ")
    assert part in said.err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 0)])
def test_signals_reach_the_command_and_the_receipt_is_made(number: signal.Signals, code: int) -> None:
    """SIGTERM is handed on and ends the command as a shell would tell it; Ctrl-C is left to the command."""
    script = f"import os, signal, time; os.kill(os.getppid(), signal.{number.name}); time.sleep(0.2)"
    done = command("--json", "--", sys.executable, "-c", script, meter="none:")
    assert done.returncode == code
    assert json.loads(done.stdout)["finish_reason"] == (f"signal {number}" if code else "exit 0")


def test_a_block_of_python_is_measured() -> None:
    """`with joulebox.measure() as run` times the block alone; the receipt is there only after it."""
    with joulebox.measure(meters=["model:"], idle_s=1.0) as run:
        with pytest.raises(RuntimeError, match="ended"):
            run.receipt  # noqa: B018 - asking is the test
        total = sum(range(3_000_000))
    assert total
    assert isinstance(run.receipt, Receipt)
    assert run.receipt is run.receipt
    assert run.receipt.finish_reason == "done"
    assert 0.001 < run.receipt.times.duration_s < 20.0
    assert run.receipt.times.settle_s >= 0.0
    assert run.receipt.energy.scope == "modelled"
    assert run.receipt.energy.answer is not None
    assert run.receipt.energy.answer.j > 0
    assert run.receipt.joules == run.receipt.energy.answer.j
    assert "modelled" in run.receipt._repr_html_()


def test_a_block_is_marked_where_it_stands() -> None:
    """What a receipt calls the block is no longer than the block, however busy the other threads of the program are."""
    with joulebox.measure(meters=["none:"], idle_s=1.0):
        pass  # all that is loaded only when it is needed
    stopped = threading.Event()

    def spin() -> None:
        while not stopped.is_set():
            pass

    threads = [threading.Thread(target=spin) for _ in range(2)]
    for thread in threads:
        thread.start()
    clock, longer_s = SystemClock(), []
    try:
        for _ in range(5):
            with joulebox.measure(meters=["none:"], idle_s=1.0) as run:
                began_ns = clock.now_ns()
                clock.sleep_until(began_ns + nanoseconds(0.01))
                block_s = (clock.now_ns() - began_ns) / 1e9
            longer_s.append(run.receipt.times.duration_s - block_s)
    finally:
        stopped.set()
        for thread in threads:
            thread.join()
    assert median(longer_s) < 0.002


def test_what_a_block_raises_passes_through() -> None:
    """An error in the block is the caller's, and the receipt names its kind."""
    run = joulebox.measure(meters=["none:"])
    with pytest.raises(KeyError, match="gone"), run:
        raise KeyError("gone")
    assert run.receipt.finish_reason == "KeyError"
    assert run.receipt.energy.answer is None


def test_what_fails_under_the_meters_is_raised_where_the_block_stands(tmp_path: Path) -> None:
    """A program that cannot be started, or a measurement that breaks, fails at once and leaves the meters closed."""
    Path("broken").write_bytes(b"no program")
    Path("broken").chmod(0o755)
    ready, before = instruments(meters=["none:"]), signal.getsignal(signal.SIGTERM)
    with pytest.raises(JouleboxError, match="broken cannot be run"):
        run_command([f"{os.curdir}/broken"], ready)
    assert signal.getsignal(signal.SIGTERM) == before


def test_what_the_command_uses_is_not_called_foreign() -> None:
    """The processor time of a command that has ended is the run's own."""
    burn = "import time; end = time.process_time() + 0.3\nwhile time.process_time() < end: pass"
    trace = instruments(meters=["none:"]).trace(lambda: _burnt(burn), lambda _: None)
    assert trace.neighbours is not None
    assert trace.neighbours.own_s >= 0.25


def _burnt(code: str) -> tuple[str, int]:
    done = subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    return f"exit {done.returncode}", SystemClock().now_ns()
