"""Plans: where and when prompts run that somebody wants run green, or by a deadline; and the task that keeps them.

The task sleeps until the next plan is due, or somebody rings: a job was deferred, a forecast changed, nodes came or
went. With nothing planned it waits for rings alone. Of several servers one plans at a time; each knows when the next
plan is due, so that one which dies leaves nothing behind.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final, Protocol

from joulebox.clock import Clock
from joulebox.errors import JouleboxError
from joulebox.model import JobState, Prompt
from joulebox.server.desk import Desk
from joulebox.server.grid import embodied_of
from joulebox.server.grid.live import PLAN_EVERY, Grid
from joulebox.server.jobs import PastRun, Place, Priority, Record
from joulebox.server.outlook import Free
from joulebox.server.placement import Booked, Option, Slot, Wish, expected_of, place, urgent
from joulebox.settings import Settings
from joulebox.units import G_PER_KG, S_PER_YEAR

_log = logging.getLogger(__name__)

AHEAD: Final = timedelta(days=7)
PAGE: Final = 200
FORECAST_WAIT: Final = timedelta(seconds=60)
"""So long new work with a deadline waits for a forecast that has just been asked for."""
REST_S: Final = 10.0
"""Changes of nodes and forecasts are gathered for so long before everything is planned again."""
TROUBLED_S: Final = 30.0
STOP_S: Final = 1.0
AGAIN_S: Final = 1.0
"""After so long it looks again whether the other server has done it."""


class Books(Protocol):
    """What this needs of the store, each as there."""

    def planning(self) -> AbstractAsyncContextManager[bool]: ...
    async def next_due(self) -> datetime | None: ...
    async def planned(self, after: int, limit: int) -> Sequence[Record]: ...
    async def due(self, now: datetime, limit: int) -> Sequence[Record]: ...
    async def booked(self, until: datetime) -> Booked: ...
    async def replan(self, record: Record, place: Place, now: datetime) -> Record | None: ...
    async def past_runs(self, model: str) -> Mapping[str, Sequence[PastRun]]: ...


@dataclass(slots=True)
class Looks:
    """What was looked up: of many plans that are looked at together, most ask for the same."""

    free: dict[tuple[str, str], list[Free]] = field(default_factory=dict)
    runs: dict[str, Mapping[str, Sequence[PastRun]]] = field(default_factory=dict)


class Planner:
    """Decides, and keeps what was decided up to date."""

    def __init__(self, desk: Desk, books: Books, grid: Grid, settings: Settings, clock: Clock) -> None:
        self._desk = desk
        self._books = books
        self._grid = grid
        self._settings = settings
        self._clock = clock
        self._wait_max = timedelta(seconds=settings.greener_wait_s)
        self._task: asyncio.Task[None] | None = None
        self._bell = desk.plan_bell
        self._stopped = asyncio.Event()
        grid.heard = desk.replan

    def start(self) -> None:
        """Begin; what an earlier server planned is taken up."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """End at once, whatever it waits for; a turn under way is finished, so that nothing is left in the database."""
        self._stopped.set()
        self._bell.set()
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=STOP_S)
            self._task.cancel()
            await asyncio.wait({self._task})

    async def ask(
        self,
        prompt: Prompt,
        wish: Wish,
        key: str | None,
        priority: Priority,
        *,
        asker: str | None = None,
        owner: str | None = None,
    ) -> Record:
        """Put a prompt in the line, where and when it is best. Raises what `Desk.ask` raises."""
        if not wish.planned:
            return await self._desk.ask(prompt, wish.line, key, priority, asker=asker, owner=owner)
        now = self._clock.utc()
        options = await self._options(prompt.model, wish, now, Looks())
        booked = await self._books.booked(wish.deadline) if wish.deadline else {}
        decided = place(wish, options, now, now, self._wait_max, booked)
        if wish.deadline is not None and decided.start <= now and not decided.urgent and self._may_learn(options, now):
            decided = _held(decided, now)
        record = await self._desk.ask(prompt, wish.line, key, priority, decided, asker=asker, owner=owner)
        self._bell.set()
        return record

    # --- the task -----------------------------------------------------------------------------------------------------

    async def turn(self, *, everything: bool) -> float | None:
        """Look at the plans that are due, or at all of them; seconds until the next is due, `None` where there is none.

        Raises `JouleboxError("database")`.
        """
        now = self._clock.utc()
        following = await self._books.next_due()
        if following is not None and (everything or following <= now):
            async with self._books.planning() as alone:
                if not alone:
                    self._desk.fleet_changed |= everything
                    return AGAIN_S
                await self._again(now, everything=everything)
            following = await self._books.next_due()
        self._desk.planned = following is not None
        if following is None:
            return None
        wait_s = max((following - self._clock.utc()).total_seconds(), 0.05)
        return min(wait_s, PLAN_EVERY.total_seconds()) if self._grid.live else wait_s

    async def _again(self, now: datetime, *, everything: bool) -> None:
        looks = Looks()
        for record in await self._books.due(now, PAGE):
            await self._move(record, now, {}, looks)
        if not everything:
            return
        booked: Counter[tuple[str, datetime]] = Counter()
        after = 0
        while records := await self._books.planned(after, PAGE):
            looks = Looks()
            for record in records:
                after = record.number
                await self._move(record, now, booked, looks)
                await asyncio.sleep(0)  # who asks meanwhile does not wait for all of them

    async def _move(
        self, record: Record, now: datetime, booked: Counter[tuple[str, datetime]] | Booked, looks: "Looks"
    ) -> None:
        """Decide again of one job; one that is in the line stays unless its time is up or nobody there may take it."""
        plan, due = record.plan, record.due
        if plan is None or due is None:
            return
        wish = Wish(policy=plan.policy, line=plan.line, deadline=plan.deadline)
        waits = record.job.state is JobState.AVAILABLE
        stays = waits and due > now
        if stays and self._desk.served(record):
            return
        options = await self._options(record.job.prompt.model, wish, now, looks)
        if stays and not options:
            return
        if waits and plan.deadline is not None and due <= now:
            new = urgent(plan, "its deadline is near, and it still waited: the first free node takes it", now)
        else:
            new = place(wish, options, plan.asked, now, self._wait_max, booked)
        if isinstance(booked, Counter) and new.start > now:
            booked[new.line, new.start] += 1
        if (new.line, new.start, new.due) == (record.placement, record.job.available, due):
            return
        moved = await self._books.replan(record, new, now)
        if moved is not None:
            self._desk.placed(moved)

    async def _run(self) -> None:
        everything = True
        while not self._stopped.is_set():
            self._bell.clear()
            self._desk.fleet_changed = False
            try:
                wait_s = await self.turn(everything=everything)
            except Exception as error:  # noqa: BLE001 - whatever it is, deferred prompts must not wait for ever
                _log.warning("planning: this turn failed: %s", error, exc_info=not isinstance(error, JouleboxError))
                await self._rest(TROUBLED_S)
                continue
            with suppress(TimeoutError):
                await asyncio.wait_for(self._bell.wait(), wait_s)
            everything = self._desk.fleet_changed
            if everything:
                await self._rest(REST_S)

    async def _rest(self, rest_s: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopped.wait(), rest_s)

    # --- what is known ------------------------------------------------------------------------------------------------

    async def _options(self, model: str, wish: Wish, now: datetime, looks: "Looks") -> list[Option]:
        """The connected nodes that may take it, with what is known of each."""
        if (free := looks.free.get((model, wish.line))) is None:
            free = looks.free[model, wish.line] = await self._desk.free(model, wish.line)
        if (runs := looks.runs.get(model)) is None:
            runs = looks.runs[model] = await self._books.past_runs(model)
        return [self._option(one, runs.get(one.offer.node, ()), wish, now) for one in free]

    def _option(self, free: Free, runs: Sequence[PastRun], wish: Wish, now: datetime) -> Option:
        offer = free.offer
        self._grid.expect(offer.zone, ahead=wish.deadline is not None)
        until = min(wish.deadline or now + self._wait_max, now + AHEAD)
        te = embodied_of(self._settings, offer.parts)
        return Option(
            node=offer.node,
            zone=offer.zone.strip().upper() if offer.zone is not None else None,
            wait_s=free.wait_s,
            expected=expected_of(runs),
            embodied_g_per_s=te.central_kg * G_PER_KG / (te.life_years * S_PER_YEAR),
            slots=self._slots(offer.zone, now, max(until, now + timedelta(seconds=1))),
        )

    def _slots(self, zone: str | None, now: datetime, until: datetime) -> list[Slot]:
        found = self._grid.series(zone, now, until)
        return [
            Slot(
                start=datetime.fromisoformat(one.start),
                until=datetime.fromisoformat(one.until),
                g_per_kwh=one.intensity.g_per_kwh,
                factor=one.intensity.factor,
                quality=one.intensity.quality,
            )
            for one in found
        ]

    def _may_learn(self, options: Sequence[Option], now: datetime) -> bool:
        """Whether a forecast is on its way: none is known, and a live source was asked for it."""
        return any(self._grid.serves(one.zone) and not any(slot.start > now for slot in one.slots) for one in options)


def _held(decided: Place, now: datetime) -> Place:
    """A moment's patience for the forecast."""
    until = now + FORECAST_WAIT
    reason = "waiting a minute for the grid's forecast"
    return replace(decided, start=until, due=until, plan=replace(decided.plan, reason=reason))
