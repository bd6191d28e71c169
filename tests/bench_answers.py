"""Tokens per second and joules of real answers with measurement and without (`make bench PART=answers`)."""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from subprocess import PIPE, Popen

from bench_page import Part, Row, table
from costs import CPU, QUESTIONS, RATIO_MIN, TOKENS, Answered, answer, in_pairs
from joulebox.node.engines.llamacpp import LlamaCpp
from joulebox.node.fetch import DEFAULT, fetch
from joulebox.node.models import Registry
from joulebox.rig.physics import Machine, Zone
from joulebox.rig.serve import truth_of
from joulebox.statistics import Interval, ratio_interval

PAIRS = 20
Pair = tuple[Answered, Answered]


def pairs(path: Path, count: int) -> tuple[list[Pair], Machine]:
    """The same prompt with its meters recorded and without, in pairs whose order is drawn; and the machine they drew
    on, which is simulated but for its work: that is what this machine's cores really do."""
    with tempfile.TemporaryDirectory(prefix="joulebox-") as folder:
        rig = Path(folder) / "rig"
        with Popen(
            [sys.executable, "-m", "joulebox", "rig", "run", "--folder", str(rig)], stdout=PIPE, text=True
        ) as process:
            assert process.stdout is not None
            try:
                meters = process.stdout.readline().split('"')[1].split()
                found = answered(path, Path(folder), meters, count)
            finally:
                process.terminate()
                process.communicate()
        return found, truth_of(rig)


def answered(path: Path, folder: Path, meters: Sequence[str], count: int) -> list[Pair]:
    """So many pairs, recorded first."""
    engine = LlamaCpp(CPU, None, 2048)
    engine.load(Registry(folder).add(path, "smollm2", default_system="You are a helpful assistant."))
    try:
        for number in range(len(QUESTIONS)):
            answer(engine, number, ())
        return in_pairs(engine, meters, count)
    finally:
        engine.unload()


def part(_: int) -> Part:
    """Pairs, and the ratio of each figure with its interval."""
    found, machine = pairs(fetch(DEFAULT, Path(__file__).parents[1] / ".cache" / "models"), PAIRS)

    zones: tuple[Zone, ...] = ("package-0", "package-0/dram")

    def joules(one: Answered) -> float:
        return sum(machine.energy_j(zone, one.end_ns) - machine.energy_j(zone, one.start_ns) for zone in zones)

    rate = ratio_interval([(one.tokens_per_s, other.tokens_per_s) for one, other in found])
    cpu = ratio_interval([(one.cpu_s_per_token, other.cpu_s_per_token) for one, other in found])
    drawn = ratio_interval([(joules(one), joules(other)) for one, other in found])
    without = [other for _, other in found]
    lines = [
        ("tokens per second", f"{median(one.tokens_per_s for one in without):.0f}", told(rate)),
        ("CPU a token, engine and recorder", f"{median(o.cpu_s_per_token for o in without) * 1e3:.2f} ms", told(cpu)),
        ("joules of an answer (simulated)", f"{median(map(joules, without)):.1f} J", told(drawn)),
    ]
    head = ("Of an answer", "Without measurement, median", "With it, ratio (95 % interval)")
    checks: Sequence[tuple[str, Interval, str, bool]] = (
        ("tokens/s", rate, f"interval includes 1 or lies above {RATIO_MIN}", rate.high >= 1 or rate.low > RATIO_MIN),
        ("joules (rig)", drawn, f"interval includes 1 or lies below {1 / RATIO_MIN:.2f}", _not_more(drawn)),
    )
    rows = [
        Row(
            what=f"{what} with measurement over without, {PAIRS} pairs",
            figure=told(ratio),
            target=target,
            reached=reached,
            why="The width is what else the machine does: more pairs make it narrower.",
        )
        for what, ratio, target, reached in checks
    ]
    raw = {
        "pairs": [[[one.tokens_per_s, one.cpu_s_per_token, joules(one)] for one in pair] for pair in found],
        "columns": ["tokens_per_s", "cpu_s_per_token", "answer_j"],
    }
    return Part(rows=rows, text=f"{TEXT}\n{table(head, lines)}", raw=raw)


def _not_more(drawn: Interval) -> bool:
    return drawn.low <= 1 or drawn.high < 1 / RATIO_MIN


def told(one: Interval) -> str:
    """A ratio with its interval."""
    return f"{one.value:.3f} ({one.low:.3f} to {one.high:.3f})"


TEXT = f"""## Answers with measurement and without

{DEFAULT.id} on llama.cpp, all cores, {TOKENS} tokens, {PAIRS} pairs of the same prompt in drawn order: once with the
rig's meters recorded at 10 Hz, once without. The power is simulated, the work it follows is that of this machine's
cores, recorder included.
"""
