"""Public sets become task files whose right answers are right, and whose wrong ones are not."""

import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from joulebox.bench.campaign import begun, tasks_of
from joulebox.bench.importing import KINDS, as_file, imported, mapped
from joulebox.bench.marking import mark
from joulebox.bench.suite import load
from joulebox.bench.task import Answer
from joulebox.clock import SimulatedClock
from joulebox.errors import JouleboxError

HUMANEVAL = {
    "task_id": "HumanEval/900",
    "prompt": 'def twice(x: int) -> int:\n    """Twice x.\n    >>> twice(2)\n    4\n    """\n',
    "entry_point": "twice",
    "canonical_solution": "    return 2 * x\n",
    "test": "def check(candidate):\n    assert candidate(3) == 6\n    assert candidate(-1) == -2\n",
}
MBPP = {
    "task_id": 7,
    "text": "Write a function to add two numbers.",
    "code": "def add(a, b):\n    return a + b",
    "test_list": ["assert set([add(1, 2)]) == {3}", "assert add(0, 0) == 0"],
    "test_setup_code": "",
}
GSM8K = {"question": "Ann has 1,000 apples and buys 234. How many?", "answer": "1000 + 234 = 1234\n#### 1,234"}
SQL = {
    "question": "How many books cost more than 10?",
    "query": "SELECT count(*) FROM book WHERE price > 10;",
    "setup": "CREATE TABLE book (title TEXT, price INT); INSERT INTO book VALUES ('a', 5), ('b', 11), ('c', 12);",
}
FENCED = "```python\n{}\n```"
CASES: list[tuple[str, dict[str, Any], str, str]] = [
    (
        "humaneval",
        HUMANEVAL,
        FENCED.format("def twice(x):\n    return x + x"),
        FENCED.format("def twice(x):\n    return x"),
    ),
    ("humaneval", HUMANEVAL, "return x * 2", "return 6"),
    ("mbpp", MBPP, FENCED.format("def add(x, y):\n    return x + y"), FENCED.format("def add(x, y):\n    return 3")),
    ("gsm8k", GSM8K, "1000 + 234\nAnswer: 1234", "Answer: 1243"),
    ("sql", SQL, "```sql\nSELECT sum(price > 10) FROM book\n```", "```sql\nSELECT count(*) FROM book\n```"),
]


def written(folder: Path, *rows: dict[str, Any]) -> Path:
    path = folder / "set.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(("kind", "row", "right", "wrong"), CASES)
def test_a_set_becomes_a_task(tmp_path: Path, kind: str, row: dict[str, Any], right: str, wrong: str) -> None:
    """A line becomes a prompt; through the task file and back a right answer is right and a wrong one wrong."""
    path = tmp_path / "task.json"
    path.write_text(as_file(imported(KINDS[kind], written(tmp_path, row)).task))
    task = load(path)
    (sample,) = task.samples
    scores = [mark(sample, Answer(id=sample.id, text=text, finish_reason="stop")) for text in (right, wrong)]
    assert [score.mark for score in scores] == ["correct", "wrong"], [score.reason for score in scores]
    header = begun("own", [task], "0", SimulatedClock().utc(), seed=1, repeats=1, block=10, max_tokens=None, limit=None,
                   until_separated=False, precision=None)  # fmt: skip
    assert tasks_of(header, [path]) == [task]


def test_any_lines_by_mapping(tmp_path: Path) -> None:
    """Fields are named by a mapping; lists of accepted answers, packed files and JSON lists are read."""
    rows = [{"q": "Capital of France?", "a": ["Paris"], "n": "x1"}, {"q": "No answer"}]
    path = tmp_path / "set.jsonl.gz"
    path.write_bytes(gzip.compress(json.dumps(rows).encode()))
    made = imported(mapped({"prompt": "q", "answer": "a", "id": "n"}, "text"), path, category="capitals")
    assert (made.task.category, made.task.samples[0].id) == ("capitals", "x1")
    assert made.left_out == ("line 2: it has no 'a'",)
    with pytest.raises(JouleboxError, match="--map"):
        mapped({"prompt": "q"}, "text")


def test_what_makes_no_prompt_is_left_out_and_named(tmp_path: Path) -> None:
    """Queries that fail or give nothing, answers without a number and double ids are named; none left is an error."""
    empty = SQL | {"query": "SELECT 1 WHERE 0"}
    broken = SQL | {"query": "SELECT nothing FROM nowhere"}
    made = imported(KINDS["sql"], written(tmp_path, empty, broken, SQL))
    assert [told.partition(":")[0] for told in made.left_out] == ["line 1", "line 2"]
    assert "no rows" in made.left_out[0]
    with pytest.raises(JouleboxError, match="ends in no number"):
        imported(KINDS["gsm8k"], written(tmp_path, {"question": "?", "answer": "#### many"}))
    twice = imported(KINDS["humaneval"], written(tmp_path, HUMANEVAL, HUMANEVAL))
    assert "there already" in twice.left_out[0]


def test_the_command_imports(tmp_path: Path) -> None:
    """`joulebox bench import` writes a file that the other commands read; a wrong kind or file gets one sentence."""
    out = tmp_path / "g.json"
    command = [sys.executable, "-m", "joulebox", "bench", "import", "gsm8k", str(written(tmp_path, GSM8K))]
    told = subprocess.run([*command, "--out", str(out)], capture_output=True, text=True, check=False)
    assert (told.returncode, told.stdout) == (0, f"{out}: 1 prompts, 0 lines left out.\n"), told.stderr
    assert load(out).samples[0].id == "gsm8k-1"
    (tmp_path / "bad.json").write_text('{"category": "x"}')
    with pytest.raises(JouleboxError, match="is no task at"):
        load(tmp_path / "bad.json")
    wrong = subprocess.run([*command, "--out", "g.toml"], capture_output=True, text=True, check=False)
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)
