"""The threat model says nothing that no test shows."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "explanation" / "threat-model.md").read_text("utf-8")
NAMED = re.compile(r"`(tests/test_\w+\.py)(?:::(test_\w+))?`")


def test_every_test_that_the_threat_model_names_exists() -> None:
    """Each file and each test that the page names is there."""
    named = NAMED.findall(PAGE)
    assert len(named) >= 30
    for path, test in named:
        text = (ROOT / path).read_text("utf-8")
        assert not test or f"def {test}(" in text, f"{path}::{test}"


def test_every_defence_names_what_shows_it() -> None:
    """Each paragraph on somebody who is not trusted names a test, or the command that looks."""
    trusted = PAGE[PAGE.index("## Who is not trusted") : PAGE.index("## What is not defended")]
    for paragraph in filter(None, trusted.split("\n\n")[1:]):
        assert NAMED.search(paragraph) or "`make " in paragraph, paragraph[:80]
