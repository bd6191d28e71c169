"""A little of `make chaos`, with a fixed seed, and what it and `make soak` judge by."""

import random
import subprocess
import sys
from pathlib import Path

import pytest

from chaos import DESCRIPTORS_MORE, grown
from soak import LEAK_BYTES, Look, climbs, process_rows, slope

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("part", ["sqlite", "postgres"])
def test_a_few_faults(part: str, tmp_path: Path) -> None:
    """After a power cut, a full disk, a cut line and an engine's crash nothing is lost; a backup comes back whole."""
    few = ("power cut", "disk full", "line cut", "engine crashes")
    options = ["--turns", "1", "--part", part, "--page", str(tmp_path / "page.md"), "--only", *few]
    done = subprocess.run([sys.executable, ROOT / "tests" / "chaos.py", *options], check=False, capture_output=True)
    page = (tmp_path / "page.md").read_text()
    assert (done.returncode, "**Held**" in page, "**Broken**" in page) == (0, True, False), page
    assert all(f"| {name} |" in page for name in few)


def test_what_is_held_at_the_end_is_judged() -> None:
    """Memory and descriptors may vary; what grew beyond the bounds breaks the promise, of each process by itself."""
    before = {"server": (100_000_000, 20), "node": (50_000_000, 12)}
    assert grown(before, before)[1] == []
    assert grown(before, before | {"server": (140_000_000, 20)})[1] == []
    assert len(grown(before, before | {"server": (150_000_000, 20)})[1]) == 1
    assert len(grown(before, {"node": (50_000_000, 12 + DESCRIPTORS_MORE + 1)})[1]) == 1


def looks(leak_bytes: float, descriptors: int = 20) -> list[Look]:
    """Half an hour of a process whose memory comes and goes by a megabyte and leaks so much a prompt."""
    chance = random.Random(7)
    memory = [80e6 + leak_bytes * 2 * n + chance.gauss(0.0, 1e6) for n in range(360)]
    return [Look(2 * n, memory[n], descriptors + chance.randrange(4), 9) for n in range(360)]


def test_a_leak_is_told_from_memory_that_comes_and_goes() -> None:
    """What leaks a tenth of a trace with each prompt is found within half an hour; what leaks nothing is not."""
    still = slope([(one.prompts, one.memory_bytes) for one in looks(0.0)])
    leaks = slope([(one.prompts, one.memory_bytes) for one in looks(8_000.0)])
    assert still is not None
    assert leaks is not None
    assert (still.verdict(LEAK_BYTES), leaks.verdict(LEAK_BYTES)) == ("does not grow", "**grows**")
    assert still.low < 0.0 < still.high
    assert leaks.low < 8_000.0 < leaks.high
    assert process_rows("node", looks(0.0))[1] == []
    assert len(process_rows("node", looks(8_000.0))[1]) == 1
    assert process_rows("server", looks(0.0))[1] == ["server: too few prompts"]


def test_descriptors_that_are_never_closed_are_found() -> None:
    """A count that comes and goes is steady; one whose last quarter lies above all of the first grows."""
    assert not climbs([20, 24, 21, 23, 20, 24, 22, 21])
    assert climbs([20, 24, 25, 26, 27, 28, 29, 30])
    assert slope([(0.0, 1.0)]) is None
