"""A little of `make chaos`, with a fixed seed, and what it and `make soak` judge by."""

import subprocess
import sys
from pathlib import Path

import pytest

from chaos import DESCRIPTORS_MORE, grown

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
