"""Log lines of server and node, as text or JSON, each with the job, attempt and node that it is about.

What a line is about is bound to the work (`bound`), or given with the line (`extra=about(...)`). Only Joulebox's own
lines are told from the level on that is set, what libraries say only from warnings on: at lower levels some print what
they send, and keys and prompts are never logged.
"""

import logging
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Final, TextIO

from joulebox.terminal import escaped, shown_json

_BOUND: Final[ContextVar[Mapping[str, object]]] = ContextVar("about", default=MappingProxyType({}))
OURS: Final = "joulebox"


@contextmanager
def bound(**facts: object) -> Iterator[None]:
    """Have every line be about this, as long as the block lasts."""
    token = _BOUND.set({**_BOUND.get(), **facts})
    try:
        yield
    finally:
        _BOUND.reset(token)


def about(**facts: object) -> dict[str, Any]:
    """What one line is about: the `extra` of a logging call."""
    return {"about": facts}


def facts_of(record: logging.LogRecord) -> dict[str, object]:
    """What a line is about, bound or given; what is not known is left out."""
    facts = {**_BOUND.get(), **getattr(record, "about", {})}
    return {name: value for name, value in facts.items() if value is not None}


class JsonLines(logging.Formatter):
    """One JSON object a line: `at` (ISO 8601, UTC), `level`, `program`, `logger`, `message`, what it is about, and
    `exception` with its traceback."""

    def __init__(self, program: str) -> None:
        super().__init__()
        self._program = program

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "program": self._program,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= facts_of(record)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return shown_json(line, None)


class TextLines(logging.Formatter):
    """`server: message (job ..., attempt ..., node ...)`: of what the line is about, what it does not say itself. A
    node does not name itself: it is the only one in its terminal. What is said stays one line, whatever is in it."""

    def __init__(self, program: str) -> None:
        super().__init__()
        self._program = program

    def format(self, record: logging.LogRecord) -> str:
        message = escaped(record.getMessage())
        said = set(re.findall(r"[\w.:-]*\w", message))
        facts = {name: value for name, value in facts_of(record).items() if name != self._program}
        unsaid = [escaped(f"{name} {value}") for name, value in facts.items() if str(value) not in said]
        text = f"{self._program}: {message}" + (f" ({', '.join(unsaid)})" if unsaid else "")
        return f"{text}\n{_inset(self.formatException(record.exc_info))}" if record.exc_info else text


def _inset(text: str) -> str:
    """A traceback that cannot pass for further lines of the log, whatever its failure says."""
    return "\n".join(f"    {escaped(line)}" for line in text.split("\n"))


def configure(program: str, level: str, form: str, stream: TextIO | None = None) -> None:
    """Tell what `program` (`server` or `node`) does on `stream`, stderr where none is named; `form` is `text` or
    `json`."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines(program) if form == "json" else TextLines(program))
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger(OURS).setLevel(level.upper())
