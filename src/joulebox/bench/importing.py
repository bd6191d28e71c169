"""Public sets of tasks that you have at hand, as task files: HumanEval, MBPP, GSM8K, SQL, any JSON lines.

Nothing is downloaded, and no set ships with Joulebox. An imported task is one JSON file that holds everything its
scoring needs, so that a campaign of it can be scored again wherever the file is. A line that makes no prompt is left
out and named.
"""

import ast
import builtins
import gzip
import json
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from joulebox.bench import sandbox
from joulebox.bench.task import CodeTarget, NumberTarget, Program, Sample, SqlTarget, Target, Task, TextTarget
from joulebox.errors import JouleboxError

Row = Mapping[str, Any]
_CODE: Final = "Answer with Python code alone, in one fenced block, without tests or explanation."
_MATH: Final = "Solve the problem. Keep the working short. End with a line of the form: Answer: NUMBER"
_SQL: Final = "Answer with one SQLite query in a fenced block, without explanation."
_TEXT: Final = "Answer with the answer alone, in a few words."


@dataclass(frozen=True, slots=True)
class Kind:
    """A form of public set: the category its task is of, how it is asked, and how a line becomes a prompt."""

    category: str
    system: str
    max_tokens: int
    licence: str
    read: Callable[[Row, int], tuple[str, str, Target]]


@dataclass(frozen=True, slots=True)
class Imported:
    """The task, and what was left out, line by line."""

    task: Task
    left_out: tuple[str, ...]

    @property
    def prompts(self) -> int:
        """How many prompts it has."""
        return len(self.task.samples)


def _humaneval(row: Row, _: int) -> tuple[str, str, Target]:
    """`task_id`, `prompt`, `entry_point`, `test`, `canonical_solution`."""
    prefix, entry = str(row["prompt"]), str(row["entry_point"])
    target = CodeTarget(
        entry_point=entry,
        check=f"{row['test']}\ncheck({entry})\n",
        prefix=prefix,
        reference=prefix + str(row.get("canonical_solution", "")),
    )
    return str(row["task_id"]), f"Complete this function:\n```python\n{prefix.strip()}\n```", target


def _mbpp(row: Row, at: int) -> tuple[str, str, Target]:
    """`task_id`, `text` or `prompt`, `test_list`, perhaps `test_setup_code` or `test_imports`, `code`."""
    tests = [str(test) for test in row["test_list"]]
    before = row.get("test_setup_code") or "\n".join(row.get("test_imports") or ())
    text = str(row.get("text") or row["prompt"])
    check = "\n".join([str(before), *tests])
    target = CodeTarget(entry_point=_called(tests[0]), check=check, reference=str(row.get("code", "")))
    return f"mbpp-{row.get('task_id', at)}", f"{text}\nYour code should pass this test:\n{tests[0]}", target


def _called(test: str) -> str:
    """The function that a test is of: the first one called that Python does not have itself."""
    calls = [node.func for node in ast.walk(ast.parse(test)) if isinstance(node, ast.Call)]
    names = [call.id for call in calls if isinstance(call, ast.Name) and not hasattr(builtins, call.id)]
    if not names:
        raise ValueError("its first test calls no function")
    return names[0]


def _gsm8k(row: Row, at: int) -> tuple[str, str, Target]:
    """`question`, `answer` with the number after ####."""
    number = str(row["answer"]).rpartition("####")[2].strip().replace(",", "")
    if not re.fullmatch(r"-?\d+(\.\d+)?", number):
        raise ValueError("its answer ends in no number")
    return str(row.get("id", f"gsm8k-{at}")), str(row["question"]), NumberTarget(value=number)


def _sql(row: Row, at: int) -> tuple[str, str, Target]:
    """`question`, `query` (or `answer`, `sql`), and the tables with their data as SQL: `setup` (or `context`). What is
    right is what the query gives, run in the sandbox."""
    setup = str(row.get("setup") or row["context"])
    query = str(row.get("query") or row.get("sql") or row["answer"]).strip().rstrip(";")
    outcome = sandbox.run(Program(language="sql", source=query, setup=setup))
    result = outcome.results[0] if outcome.results else None
    value = result.value if result is not None else None
    if result is None or result.error is not None or not isinstance(value, list):
        why = (result.error if result is not None else outcome.detail) or "it gives nothing"
        raise ValueError(f"its query cannot be run: {why}")
    if not value:
        raise ValueError("its query gives no rows, so any wrong query might be right")
    rows = tuple(tuple(each) for each in value)
    ordered = re.search(r"\border\s+by\b", query, re.IGNORECASE) is not None
    tables = "\n".join(re.findall(r"create\s+table[^;]*;", setup, re.IGNORECASE)) or setup
    target = SqlTarget(setup=setup, rows=rows, ordered=ordered, reference=query)
    return str(row.get("id", f"sql-{at}")), f"{tables}\n\n{row['question']}", target


KINDS: Final[Mapping[str, Kind]] = {
    "humaneval": Kind("humaneval", _CODE, 384, "MIT", _humaneval),
    "mbpp": Kind("mbpp", _CODE, 384, "CC-BY-4.0", _mbpp),
    "gsm8k": Kind("gsm8k", _MATH, 256, "MIT", _gsm8k),
    "sql": Kind("sql-imported", _SQL, 256, "unknown", _sql),
}


def mapped(mapping: Mapping[str, str], judged: str) -> Kind:
    """Any JSON lines: `mapping` says which field is the `prompt`, the `answer`, perhaps the `id`; `judged` as `text`
    (any of the accepted answers, in the first words) or as `number`. Raises `JouleboxError("bad_request")`."""
    if judged not in {"text", "number"} or not {"prompt", "answer"} <= set(mapping):
        sentence = "Say which fields hold prompt and answer: --map prompt=question,answer=target; --as text or number."
        raise JouleboxError("bad_request", sentence)

    def read(row: Row, at: int) -> tuple[str, str, Target]:
        answer = row[mapping["answer"]]
        accepted = tuple(str(one) for one in (answer if isinstance(answer, list) else [answer]))
        target: Target = TextTarget(accepted=accepted) if judged == "text" else NumberTarget(value=accepted[0].strip())
        name = row.get(mapping["id"]) if "id" in mapping else None
        return str(name if name is not None else f"own-{at}"), str(row[mapping["prompt"]]), target

    return Kind("own", _MATH if judged == "number" else _TEXT, 256, "unknown", read)


def imported(
    kind: Kind, path: Path, *, limit: int | None = None, category: str | None = None, licence: str | None = None
) -> Imported:
    """The task that a file of JSON lines makes, packed (.gz) or not; a JSON list does too.

    Raises `JouleboxError("bad_task")` where it cannot be read, or nothing of it is a prompt.
    """
    made: dict[str, Sample] = {}
    left_out = []
    for at, row in enumerate(_rows(path), 1):
        if limit is not None and len(made) >= limit:
            break
        try:
            name, prompt, target = kind.read(row, at)
            if name in made:
                raise ValueError(f"its id {name} is there already")
            made[name] = Sample(id=name, prompt=prompt, target=target)
        except (KeyError, ValueError, TypeError, AttributeError, IndexError, SyntaxError) as error:
            told = f"it has no {error}" if isinstance(error, KeyError) else str(error)
            left_out.append(f"line {at}: {told}")
    if not made:
        first = f" ({left_out[0]})" if left_out else ""
        raise JouleboxError("bad_task", f"Nothing in {path} is a prompt of this kind{first}.")
    task = Task(
        category=category or kind.category,
        version="1",
        licence=licence or kind.licence,
        system=kind.system,
        max_tokens=kind.max_tokens,
        samples=tuple(made.values()),
    )
    return Imported(task=task, left_out=tuple(left_out))


def _rows(path: Path) -> Iterator[Row]:
    try:
        body = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        text = body.decode()
        rows = json.loads(text) if text.lstrip().startswith("[") else _lines(text)
    except (OSError, EOFError, ValueError, zlib.error, RecursionError) as error:
        raise JouleboxError("bad_task", f"{path} cannot be read: {error}. Give a file of JSON lines.") from error
    for row in rows:
        if not isinstance(row, dict):
            raise JouleboxError("bad_task", f"{path} cannot be read: each line must be a JSON object.")
        yield row


def _lines(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines() if line.strip()]


def as_file(task: Task) -> str:
    """The task as the text of a task file (JSON)."""
    return json.dumps(asdict(task), ensure_ascii=False, indent=1) + "\n"
