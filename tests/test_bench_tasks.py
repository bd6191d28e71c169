"""The tasks that ship: each is well formed, and what stands as right is right."""

import math
import platform
import sqlite3
import sys
import tomllib
from collections import Counter
from fractions import Fraction
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from joulebox.bench.marking import mark
from joulebox.bench.scoring import normalised, same_rows
from joulebox.bench.suite import CATEGORIES, load, parsed, task
from joulebox.bench.task import Answer, CodeTarget, CriteriaTarget, Sample, SqlTarget, TextTarget, TranslationTarget
from joulebox.errors import JouleboxError

LOCKS = sys.platform == "linux" and platform.machine() in ("x86_64", "aarch64")
FOLDER = files("joulebox.bench") / "tasks"
PROMPTS_AT_LEAST = {"code": 50, "math": 50, "questions": 50, "sql": 50, "translation": 50, "summary": 25, "chat": 25}


def table(category: str) -> dict[str, Any]:
    """A task's file as it stands."""
    return tomllib.loads((FOLDER / f"{category}.toml").read_text("utf-8"))


def samples(*categories: str) -> list[Any]:
    """All samples of these categories, for one test each."""
    return [pytest.param(sample, id=sample.id) for category in categories for sample in task(category).samples]


def right(sample: Sample, text: str) -> bool:
    """Whether this text counts."""
    return mark(sample, Answer(id=sample.id, text=text)).correct


@pytest.mark.parametrize("category", CATEGORIES)
def test_a_task_is_complete(category: str) -> None:
    """Enough prompts, from very easy to hard, with ids that stay, licence, version, and no prompt twice."""
    made = task(category)
    assert (made.category, made.licence) == (category, "CC0-1.0")
    assert made.version
    assert made.system
    assert 32 <= made.max_tokens <= 512
    assert len(made.samples) >= PROMPTS_AT_LEAST[category]
    assert [sample.id for sample in made.samples] == [f"{category}-{at:02}" for at in range(1, len(made.samples) + 1)]
    hard = Counter(sample.difficulty for sample in made.samples)
    assert set(hard) == {1, 2, 3, 4, 5}
    assert min(hard.values()) >= len(made.samples) // 10
    assert len({normalised(sample.prompt) for sample in made.samples}) == len(made.samples)
    assert all(sample.prompt.isprintable() or "\n" in sample.prompt for sample in made.samples)


def test_numbers_are_proved() -> None:
    """Each number comes out of another way of computing it, and is read back from a plain answer."""
    for sample, row in zip(task("math").samples, table("math")["sample"], strict=True):
        proved = eval(row["proof"], {"Fraction": Fraction, "math": math})
        assert abs(Fraction(proved) - Fraction(row["answer"])) <= Fraction(row.get("tolerance", "0")), sample.id
        assert right(sample, f"Answer: {row['answer']}")
        assert not right(sample, f"Answer: {Fraction(row['answer']) + 1}")


def test_every_accepted_answer_is_accepted() -> None:
    """Each form counts, alone and in a sentence, no answer counts for another question, and no prompt gives it away."""
    made = task("questions").samples
    for sample in made:
        assert isinstance(sample.target, TextTarget)
        for form in sample.target.accepted:
            assert right(sample, form), (sample.id, form)
            assert right(sample, f"It is {form}."), (sample.id, form)
            assert f" {normalised(form)} " not in f" {normalised(sample.prompt)} ", (sample.id, form)
        assert not right(sample, "I think it is forty-one.")


@pytest.mark.skipif(not LOCKS, reason="code is locked in on Linux (x86-64, arm64) alone")
@pytest.mark.parametrize("sample", samples("code"))
def test_reference_code_passes(sample: Sample) -> None:
    """The reference passes every test in the sandbox, and a function that does nothing does not."""
    assert isinstance(sample.target, CodeTarget)
    judged = mark(sample, Answer(id=sample.id, text=f"Here:\n```python\n{sample.target.reference}\n```\nDone."))
    assert judged.correct, judged.reason
    assert sample.target.entry_point in sample.prompt


def test_no_constant_passes_the_code_tests() -> None:
    """The tests of a function want at least two different values, or one that nobody guesses."""
    for sample in task("code").samples:
        assert isinstance(sample.target, CodeTarget)
        expected = {repr(case.expected) for case in sample.target.cases}
        assert len(expected) > 1 or len(max(expected)) > 50, sample.id


def test_reference_queries_give_the_rows() -> None:
    """Each reference query gives the stored rows, some, and the rows of no other question about the same data."""
    made = task("sql").samples
    for sample in made:
        assert isinstance(sample.target, SqlTarget)
        connection = sqlite3.connect(":memory:")
        connection.executescript(sample.target.setup)
        rows = connection.execute(sample.target.reference).fetchall()
        connection.close()
        assert rows
        assert same_rows(rows, sample.target.rows, ordered=sample.target.ordered), sample.id
        assert ("ORDER BY" in sample.target.reference) or not sample.target.ordered
    assert len({(one.target.setup, one.target.rows) for one in made if isinstance(one.target, SqlTarget)}) == len(made)


def test_a_query_is_scored_in_the_sandbox() -> None:
    """The reference scores as right in Markdown, another query as wrong, a broken one as failed."""
    for sample in task("sql").samples[::16]:
        assert isinstance(sample.target, SqlTarget)
        assert right(sample, f"Sure:\n```sql\n{sample.target.reference};\n```")
        assert not right(sample, "SELECT 'nothing'")
        assert not right(sample, "SELECT colour FROM moon")


def test_translations_count_and_other_texts_do_not() -> None:
    """Each reference counts; the text left as it was, and what belongs to another prompt, do not."""
    made = task("translation").samples
    for sample, other in zip(made, (*made[1:], made[0]), strict=True):
        assert isinstance(sample.target, TranslationTarget)
        assert isinstance(other.target, TranslationTarget)
        assert all(right(sample, text) for text in sample.target.references), sample.id
        assert not right(sample, sample.prompt.splitlines()[-1]), sample.id
        assert not right(sample, other.target.references[0]), sample.id


def test_criteria_can_be_met_and_missed() -> None:
    """Each reference meets every criterion; no answer to another prompt and no empty chatter does."""
    for category in ("summary", "chat"):
        made = task(category).samples
        for sample, other in zip(made, (*made[1:], made[0]), strict=True):
            assert isinstance(sample.target, CriteriaTarget)
            assert isinstance(other.target, CriteriaTarget)
            judged = mark(sample, Answer(id=sample.id, text=sample.target.reference))
            assert judged.correct, (sample.id, judged.reason)
            assert not right(sample, other.target.reference), sample.id
            assert not right(sample, "Sure, I am happy to do that for you, and here is what you wanted from me."), (
                sample.id
            )


def test_the_example_of_the_page_is_a_task(tmp_path: Path) -> None:
    """The file that the page on adding a task shows loads, its reference counts, and another answer does not."""
    page = (Path(__file__).parents[1] / "docs/how-to/add-a-task.md").read_text("utf-8")
    path = tmp_path / "cooking.toml"
    path.write_text(page.partition("```toml\n")[2].partition("```")[0])
    (sample,) = load(path).samples
    assert isinstance(sample.target, CriteriaTarget)
    assert right(sample, sample.target.reference)
    assert not right(sample, "- flour\n- water")


def test_a_file_that_is_wrong_says_where(tmp_path: Path) -> None:
    """What is missing, unknown or twice in a task file is named."""
    head = 'category = "math"\nversion = "1"\nlicence = "CC0-1.0"\nsystem = "s"\nmax_tokens = 9\n'
    one = '[[sample]]\nid = "a"\ndifficulty = 1\nprompt = "p"\nanswer = "1"\n'
    assert parsed(head + one, "x").samples[0].prompt == "p"
    for text, says in (
        ("category = ", "x is no TOML"),
        (head, "x: 'sample' is missing"),
        (head + one.replace('answer = "1"\n', ""), "x, sample a: 'answer' is missing"),
        (head + one + "colour = 3\n", "x, sample a: nothing is known of 'colour'"),
        (head + one + one, "x: two samples have the same id"),
        (head.replace("9", '"many"') + one, "x: invalid literal"),
    ):
        with pytest.raises(JouleboxError, match=says) as told:
            parsed(text, "x")
        assert told.value.code == "bad_task"
    with pytest.raises(JouleboxError, match="cannot be read"):
        load(tmp_path / "nowhere.toml")
    with pytest.raises(JouleboxError, match="choose one of"):
        task("cooking")
