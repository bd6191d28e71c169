"""`joulebox bench tasks` and `joulebox bench score`, as people type them."""

import json
import subprocess
import sys
from pathlib import Path

ANSWERS = [
    {"id": "math-01", "answer": "Answer: 12", "model": "m"},
    {"id": "math-02", "answer": "It is 55.", "model": "m"},
    {"id": "math-03", "answer": "4 boxes of 8 are", "finish_reason": "length", "model": "m"},
    {"id": "sql-03", "answer": "```sql\nSELECT count(*) FROM book\n```", "model": "m"},
    {"id": "questions-01", "answer": "I'm sorry, but I can't say."},
]


def joulebox(*arguments: str) -> subprocess.CompletedProcess[str]:
    """What the command says."""
    return subprocess.run(
        [sys.executable, "-m", "joulebox", *arguments], capture_output=True, text=True, timeout=60, check=False
    )


def test_tasks_are_listed() -> None:
    """Each task has its line, one category its prompts, and JSON everything."""
    assert [line.split()[0] for line in joulebox("bench", "tasks").stdout.splitlines()][:4] == [
        "task",
        "code",
        "math",
        "questions",
    ]
    assert "What is 7 + 5?" in joulebox("bench", "tasks", "--category", "math").stdout
    (task,) = json.loads(joulebox("bench", "tasks", "--category", "sql", "--json").stdout)
    assert task["samples"][2]["target"]["rows"] == [[10]]
    wrong = joulebox("bench", "tasks", "--category", "cooking")
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)


def test_stored_answers_are_scored(tmp_path: Path) -> None:
    """The table counts what became of the answers of each model and task, and JSON says why, the same each time."""
    path = tmp_path / "answers.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in ANSWERS))
    rows = [line.split() for line in joulebox("bench", "score", str(path)).stdout.splitlines()]
    assert rows[1] == ["m", "math", "3", "33%", "of", "3", "1", "1", "1", "0", "0", "0"]
    assert rows[2][:6] == ["m", "sql", "1", "100%", "of", "1"]
    assert rows[3] == ["-", "questions", "1", "0%", "of", "1", "0", "0", "0", "1", "0", "0"]
    first = joulebox("bench", "score", str(path), "--json").stdout
    assert first == joulebox("bench", "score", str(path), "--json").stdout
    assert json.loads(first.splitlines()[1])["reason"] == "It says 55, not 54."


def test_answers_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    """A missing file, a line that is no answer, and an unknown id each get one sentence."""
    path = tmp_path / "answers.jsonl"
    for text, says in (
        ('{"id": 1, "answer": "x"}', "line 1 is no answer"),
        ("no", "line 1 is no JSON"),
        ('{"id": "moon-01", "answer": "x"}', "No task has a prompt 'moon-01'"),
    ):
        path.write_text(text)
        told = joulebox("bench", "score", str(path))
        assert (told.returncode, told.stdout, told.stderr.count("\n")) == (2, "", 1)
        assert says in told.stderr
    assert "cannot be read" in joulebox("bench", "score", str(tmp_path / "nowhere")).stderr
