"""What is kept of conversations and comparisons: which prompt follows which, what was compared, what people thought."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any, Final

from sqlalchemy import CTE, ColumnElement, RowMapping, Select, case, func, insert, select, update

from joulebox.server.comparing import Comparison, Preference, Tally, preferences
from joulebox.server.store.database import Database, whole
from joulebox.server.store.tables import comparisons, jobs, turns

VOTES_MAX: Final = 10_000
"""So many of the newest votes are counted."""


class TalkBooks:
    """Turns and comparisons in the database. Every method may raise `JouleboxError("database")`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @whole
    async def follow(self, job_id: str, follows: str) -> None:
        """Note that a prompt goes on where another one ended."""
        async with self._database.write() as connection:
            known = (await connection.execute(select(turns.c.follows).where(turns.c.job_id == job_id))).first()
            if known is None:  # the same prompt, sent again with its key, is the same turn
                await connection.execute(insert(turns).values(job_id=job_id, follows=follows))

    @whole
    async def before(self, job_id: str, limit: int) -> Sequence[str]:
        """The prompts that this one follows, oldest first, at most so many."""
        found: list[str] = []
        async with self._database.read() as connection:
            while len(found) < limit:
                query = select(turns.c.follows).where(turns.c.job_id == (found[-1] if found else job_id))
                earlier = (await connection.execute(query)).scalar_one_or_none()
                if earlier is None:
                    break
                found.append(earlier)
        return found[::-1]

    @whole
    async def after(self, job_id: str) -> Sequence[str]:
        """The prompts that go on from this one, and from those."""
        found, newest = dict[str, None](), [job_id]
        async with self._database.read() as connection:
            while newest:
                rows = await connection.execute(select(turns.c.job_id).where(turns.c.follows.in_(newest)))
                newest = [one for one in rows.scalars() if one not in found]
                found |= dict.fromkeys(newest)
        return list(found)

    @whole
    async def compare(self, comparison: Comparison) -> None:
        """Keep a comparison."""
        async with self._database.write() as connection:
            kept = {name: value for name, value in asdict(comparison).items() if value is not None}
            await connection.execute(insert(comparisons).values(kept | {"jobs": list(comparison.jobs)}))

    @whole
    async def in_order(self, job_ids: Sequence[str]) -> None:
        """Have waiting prompts of one asker run in this order, whatever is loaded."""
        async with self._database.write() as connection:
            for place, job_id in enumerate(job_ids):
                later = update(jobs).where(jobs.c.id == job_id).values(turn=jobs.c.turn + place)
                await connection.execute(later)

    @whole
    async def comparison(self, comparison_id: str) -> Comparison | None:
        """One comparison."""
        async with self._database.read() as connection:
            query = select(comparisons).where(comparisons.c.id == comparison_id)
            row = (await connection.execute(query)).mappings().first()
            return _comparison(row) if row else None

    @whole
    async def choose(
        self, comparison_id: str, choice: str, figures: Sequence[Mapping[str, Any]], now: datetime
    ) -> bool:
        """Keep what was thought better, with what it was; `False` where that was said before."""
        change = update(comparisons).where(comparisons.c.id == comparison_id, comparisons.c.choice.is_(None))
        async with self._database.write() as connection:
            values = {"choice": choice, "chosen": now, "figures": list(figures)}
            return (await connection.execute(change.values(values))).rowcount == 1

    @whole
    async def judge(self, comparison_id: str, worth: str) -> bool:
        """Keep whether the larger energy was thought worth it; `False` where that was said before, or too early."""
        open_ = comparisons.c.worth.is_(None) & comparisons.c.choice.is_not(None)
        change = update(comparisons).where((comparisons.c.id == comparison_id) & open_).values(worth=worth)
        async with self._database.write() as connection:
            return (await connection.execute(change)).rowcount == 1

    @whole
    async def preferences(self) -> Sequence[Preference]:
        """What the newest votes add up to, pair by pair; the database adds."""
        middle: dict[tuple[str, str], list[float]] = {}
        async with self._database.read() as connection:
            for row in await connection.execute(_middle_ratios()):
                middle.setdefault((row.one, row.other), []).append(row.ratio)
            tallies = [
                Tally(**row, ratios=tuple(middle.get((row["one"], row["other"]), ())))
                for row in (await connection.execute(_tallies())).mappings()
            ]
        return preferences(tallies)


def _votes() -> CTE:
    """The newest votes on two models: both in an order of their own, what each took, which was better, if one was."""
    first, second, third = (comparisons.c.figures[(place, "model")].as_string() for place in range(3))
    first_j, second_j = (comparisons.c.figures[(place, "j")].as_float() for place in range(2))
    newest = (
        select(
            first.label("first"),
            second.label("second"),
            first_j.label("first_j"),
            second_j.label("second_j"),
            comparisons.c.choice,
            comparisons.c.worth,
        )
        .where(comparisons.c.choice.is_not(None), second.is_not(None), third.is_(None), first != second)
        .order_by(comparisons.c.chosen.desc())
        .limit(VOTES_MAX)
        .subquery()
        .c
    )
    turned = newest.second < newest.first
    return select(
        case((turned, newest.second), else_=newest.first).label("one"),
        case((turned, newest.first), else_=newest.second).label("other"),
        case((turned, newest.second_j), else_=newest.first_j).label("one_j"),
        case((turned, newest.first_j), else_=newest.second_j).label("other_j"),
        case((newest.choice == "0", newest.first), (newest.choice == "1", newest.second)).label("better"),
        newest.worth,
    ).cte("votes")


def _tallies() -> Select[Any]:
    """Each pair with its votes counted."""
    votes = _votes().c

    def count(which: ColumnElement[bool]) -> ColumnElement[int]:
        return func.sum(case((which, 1), else_=0))

    return select(
        votes.one,
        votes.other,
        count(votes.better == votes.one).label("one_wins"),
        count(votes.better == votes.other).label("other_wins"),
        count(votes.better.is_(None)).label("ties"),
        count(votes.worth == "yes").label("worth_yes"),
        count(votes.worth.in_(("yes", "no"))).label("worth_told"),
    ).group_by(votes.one, votes.other)


def _middle_ratios() -> Select[Any]:
    """The ratio in the middle of each pair, or the two of them: nothing in either database is a median."""
    votes = _votes().c
    ratio, pair = 1.0 * votes.one_j / votes.other_j, (votes.one, votes.other)
    place = func.row_number().over(partition_by=pair, order_by=ratio)
    known = (
        select(
            votes.one,
            votes.other,
            ratio.label("ratio"),
            place.label("place"),
            func.count().over(partition_by=pair).label("total"),
        )
        .where(votes.one_j > 0, votes.other_j > 0)
        .subquery()
        .c
    )
    middle = (known.place * 2).between(known.total, known.total + 2)
    return select(known.one, known.other, known.ratio).where(middle)


def _comparison(row: RowMapping) -> Comparison:
    return Comparison(**{**row, "jobs": tuple(row["jobs"]), "figures": tuple(row["figures"] or ())})
