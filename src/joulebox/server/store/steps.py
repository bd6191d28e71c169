"""The busy path's transactions: statements put into a database's words once, and carried out by the driver itself.

Building a statement anew, keying it and carrying it out costs SQLAlchemy several times what the driver needs. So the
few statements that every prompt costs are built once, with names for their values. A transaction of them is a
generator: it yields a statement with its values, is sent the rows, and returns what came of it; each database carries
it out its own way (`Database.carry_out`).
"""

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from sqlalchemy import Dialect, Float, RowMapping
from sqlalchemy.sql import Insert, Select, Update, visitors
from sqlalchemy.types import TypeEngine

Row = Mapping[str, Any] | RowMapping
Values = Mapping[str, Any]
_T = TypeVar("_T")
Steps = Generator[tuple["Prepared", Values], Sequence[Row], _T]
"""Statements with their values; the rows of each are sent back."""
How = Literal["look", "change", "single"]
"""To look only, each statement by itself; to change all of it or nothing; or one statement, kept as soon as it is
carried out."""
Statement = Select[Any] | Insert | Update
_Turned = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Words:
    """A statement as one database says it: its text, the values it wants in their order (`fixed` are those that never
    change), and the columns it gives; each with what turns it into what the driver takes, or what the driver gives into
    what we take."""

    text: str
    wanted: tuple[tuple[str, _Turned | None], ...]
    columns: tuple[str, ...]
    given: tuple[tuple[int, _Turned], ...]
    fixed: Values

    def arguments(self, values: Values) -> list[Any]:
        """What the driver takes."""
        if self.fixed:
            values = {**values, **self.fixed}
        return [values[name] if turned is None else turned(values[name]) for name, turned in self.wanted]

    def rows(self, found: Iterable[Iterable[Any]]) -> list[Row]:
        """What the driver found, by the names of its columns."""
        rows: list[Row] = []
        for one in found:
            row = list(one)
            for place, turned in self.given:
                row[place] = turned(row[place])
            rows.append(dict(zip(self.columns, row, strict=True)))
        return rows


class Prepared:
    """A statement whose changing values have names (`bindparam`); all others are part of its text, so that a partial
    index is known to serve it. `build` is told the name of the dialect."""

    def __init__(self, build: Statement | Callable[[str], Statement]) -> None:
        self._build = build
        self._words: dict[str, Words] = {}

    def words(self, dialect: Dialect) -> Words:
        """How this database says it."""
        known = self._words.get(dialect.name)
        if known is None:
            built = self._build(dialect.name) if callable(self._build) else self._build
            known = self._words[dialect.name] = _put(built, dialect)
        return known


def _put(statement: Statement, dialect: Dialect) -> Words:
    named: set[str] = set()

    def fix(value: Any) -> None:
        if value.required:
            named.add(value.key)
        value.required, value.literal_execute = False, not value.required

    fixed = visitors.cloned_traverse(statement, {}, {"bindparam": fix})
    compiled: Any = fixed.compile(dialect=dialect, compile_kwargs={"render_postcompile": True})
    columns = tuple(statement.exported_columns)
    kinds = [(name, compiled.binds[name].type.dialect_impl(dialect)) for name in compiled.positiontup]
    turned = [_turned(column.type, dialect) for column in columns]
    return Words(
        text=compiled.string,
        wanted=tuple((name, kind.bind_processor(dialect)) for name, kind in kinds),
        columns=tuple(str(column.key) for column in columns),
        given=tuple((place, one) for place, one in enumerate(turned) if one is not None),
        fixed={name: compiled.binds[name].effective_value for name, _ in kinds if name not in named},
    )


def _turned(kind: TypeEngine[Any], dialect: Dialect) -> _Turned | None:
    """What turns a column as the driver gives it into ours; every driver gives floats."""
    return None if isinstance(kind, Float) else kind.dialect_impl(dialect).result_processor(dialect, None)


def first(statement: Prepared, **values: Any) -> Steps[Row | None]:
    """The first row of a statement, where it gives one."""
    rows = yield statement, values
    return rows[0] if rows else None


def done(statement: Prepared, **values: Any) -> Steps[None]:
    """Carry a statement out."""
    yield statement, values
