"""Reads the tasks that ship with Joulebox: one TOML file for each category, in `tasks/`.

`docs/how-to/add-a-task.md` says how a file looks; what a file leaves out, or says that nobody knows, is named.
"""

import ast
import json
import tomllib
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from joulebox.bench.scoring import CRITERIA
from joulebox.bench.task import (
    Case,
    CodeTarget,
    CriteriaTarget,
    Criterion,
    NumberTarget,
    Row,
    Sample,
    SqlTarget,
    Target,
    Task,
    TextTarget,
    TranslationTarget,
)
from joulebox.errors import JouleboxError

CATEGORIES: Final = ("code", "math", "questions", "sql", "translation", "summary", "chat")
"""The suite `core`, in the order it is shown."""

_COMMON: Final = {"id", "difficulty", "prompt"}
_TASK: Final = TypeAdapter(Task)
_LANGUAGES: Final = {"de": "German", "en": "English", "es": "Spanish", "fr": "French"}
_CHRF_MIN: Final = 55.0


@cache
def task(category: str) -> Task:
    """The task of one category of the suite. Raises `JouleboxError("not_found")` for a name that is none."""
    if category not in CATEGORIES:
        sentence = f"There is no category {category!r}: choose one of {', '.join(CATEGORIES)}."
        raise JouleboxError("not_found", sentence)
    return parsed((files("joulebox.bench") / "tasks" / f"{category}.toml").read_text("utf-8"), f"{category}.toml")


def by_id(tasks: Iterable[Task]) -> dict[str, Sample]:
    """Every prompt of the tasks by its id."""
    return {sample.id: sample for each in tasks for sample in each.samples}


def load(path: Path) -> Task:
    """The task of a file of your own: TOML, or JSON as `joulebox bench import` writes it.

    Raises `JouleboxError("bad_task")`.
    """
    try:
        text = path.read_text("utf-8")
        return _TASK.validate_json(text) if path.suffix == ".json" else parsed(text, str(path))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"][:3]))
        raise JouleboxError("bad_task", f"{path} is no task at {where}: {first['msg']}.") from error
    except (OSError, UnicodeError) as error:
        raise JouleboxError("bad_task", f"{path} cannot be read: {error}. Give a TOML file of tasks.") from error


def parsed(text: str, name: str) -> Task:
    """The task that a TOML text describes. Raises `JouleboxError("bad_task")`, which says where it is wrong."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise JouleboxError("bad_task", f"{name} is no TOML: {error}.") from error
    at = name
    try:
        made = []
        for each in table["sample"]:
            at = f"{name}, sample {each.get('id', '?')}"
            made.append(_sample(table, each))
        at = name
        if len({sample.id for sample in made}) < len(made):
            raise ValueError("two samples have the same id")
        return Task(
            category=str(table["category"]),
            version=str(table["version"]),
            licence=str(table["licence"]),
            system=str(table["system"]).strip(),
            max_tokens=int(table["max_tokens"]),
            samples=tuple(made),
        )
    except KeyError as error:
        raise JouleboxError("bad_task", f"{at}: {error.args[0]!r} is missing.") from error
    except (AttributeError, TypeError, ValueError, SyntaxError) as error:
        raise JouleboxError("bad_task", f"{at}: {error}.") from error


def _sample(table: Mapping[str, Any], each: Mapping[str, Any]) -> Sample:
    """One sample: what is common to all, and the target that its category asks for."""
    make = _TARGETS.get(table["category"], _criteria)
    own = {key: value for key, value in each.items() if key not in _COMMON}
    if "database" in own:
        own["database"] = table["database"][own["database"]]
    prompt, target = make(each["prompt"].strip(), own)
    if own:
        raise ValueError(f"nothing is known of {', '.join(map(repr, own))}")
    return Sample(id=str(each["id"]), prompt=prompt, target=target, difficulty=int(each["difficulty"]))


def _code(prompt: str, own: dict[str, Any]) -> tuple[str, Target]:
    """`tests` are pairs of an expression and its value, both as Python text."""
    cases = tuple(Case(call=call, expected=ast.literal_eval(value)) for call, value in own.pop("tests"))
    return prompt, CodeTarget(entry_point=own.pop("entry"), cases=cases, reference=own.pop("reference"))


def _math(prompt: str, own: dict[str, Any]) -> tuple[str, Target]:
    own.pop("proof", None)  # for the tests of the tasks
    return prompt, NumberTarget(value=own.pop("answer"), tolerance=own.pop("tolerance", "0"))


def _questions(prompt: str, own: dict[str, Any]) -> tuple[str, Target]:
    return prompt, TextTarget(accepted=tuple(own.pop("accepted")), rejected=tuple(own.pop("rejected", ())))


def _sql(prompt: str, own: dict[str, Any]) -> tuple[str, Target]:
    """`database` names a table of the file that holds the schema, which the prompt shows, and the data."""
    database = own.pop("database")
    schema = database["schema"].strip()
    rows: tuple[Row, ...] = tuple(tuple(row) for row in json.loads(own.pop("rows")))
    target = SqlTarget(
        setup=f"{schema}\n{database['data']}",
        rows=rows,
        ordered=own.pop("ordered", False),
        reference=own.pop("reference").strip(),
    )
    return f"{schema}\n\n{prompt}", target


def _translation(prompt: str, own: dict[str, Any]) -> tuple[str, Target]:
    """`into` is the language asked for, the prompt the text to be translated."""
    asked = f"Translate into {_LANGUAGES[own.pop('into')]}:\n{prompt}"
    references = tuple(own.pop("references"))
    return asked, TranslationTarget(references=references, chrf_min=float(own.pop("chrf_min", _CHRF_MIN)))


def _criteria(prompt: str, own: dict[str, Any]) -> tuple[str, Target]:
    """Every key that is a criterion; of `names` there may be several lists, each of which must be met."""
    reference = own.pop("reference").strip()
    criteria: list[Criterion] = []
    for kind in [key for key in own if key in CRITERIA]:
        value = own.pop(kind)
        many = kind == "names" and isinstance(value[0], list)
        criteria += [Criterion(kind=kind, value=each) for each in (value if many else [value])]
    if not criteria and not own:
        raise ValueError("it has no criterion")
    return prompt, CriteriaTarget(criteria=tuple(criteria), reference=reference)


_TARGETS: Final[dict[str, Callable[[str, dict[str, Any]], tuple[str, Target]]]] = {
    "code": _code,
    "math": _math,
    "questions": _questions,
    "sql": _sql,
    "translation": _translation,
}
