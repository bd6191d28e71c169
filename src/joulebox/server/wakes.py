"""Who sleeps, as the books keep it, for one server."""

import asyncio
from collections.abc import Collection, Mapping
from typing import Protocol

from joulebox.clock import Clock
from joulebox.protocol import LeaseRequest
from joulebox.server.sleep import Line, Sleep, magic_packet


class Books(Protocol):
    """What this needs of the store."""

    async def sleeps(self) -> Mapping[str, Sleep]:
        """Every node that ever slept."""

    async def keep_sleep(self, node: str, sleep: Sleep) -> None:
        """Note how a node sleeps."""

    async def waiting(self, lines: Collection[Line]) -> Collection[Line]:
        """Those of these lines in which something waits."""


class Wakes:
    """Which nodes sleep, for one server."""

    def __init__(self, books: Books, clock: Clock) -> None:
        self._books = books
        self._clock = clock
        self._known: dict[str, Sleep] = {}
        self._one = asyncio.Lock()
        self.some = asyncio.Event()
        """Set while a node sleeps."""

    async def look(self) -> None:
        """What the books say now."""
        async with self._one:
            self._known = dict(await self._books.sleeps())
        self._tell()

    @property
    def asleep(self) -> dict[str, Sleep]:
        """The nodes that sleep, are woken, or did not wake."""
        return {name: sleep for name, sleep in self._known.items() if sleep.at is not None}

    def of(self, node: str) -> Sleep | None:
        """How a node sleeps; `None` where it does not."""
        sleep = self._known.get(node)
        return sleep if sleep is not None and sleep.at is not None else None

    def wake_s(self, node: str) -> float | None:
        """How long a node takes to wake, by its past wake-ups; `None` where there were none."""
        sleep = self._known.get(node)
        return sleep.wake_s if sleep is not None else None

    def may_come(self, node: str) -> bool:
        """Whether a node sleeps that can be woken."""
        sleep = self.of(node)
        return sleep is not None and sleep.failed is None

    def delayed_s(self, node: str, wait_s: float | None) -> float | None:
        """The same wait where the node must wake first."""
        sleep, now = self.of(node), self._clock.utc()
        if sleep is None or wait_s is None:
            return wait_s
        ready = sleep.ready(now)
        return None if ready is None else wait_s + (ready - now).total_seconds()

    async def slept(self, request: LeaseRequest) -> None:
        """A node has leave to suspend. Raises `JouleboxError("bad_request")` where nobody could wake it."""
        magic_packet((request.policy.mac if request.policy else None) or "")
        known = self._known.get(request.node, Sleep())
        await self.change(request.node, known, Sleep(at=self._clock.utc(), wakes_s=known.wakes_s))

    async def spoke(self, node: str) -> bool:
        """A node asks for work, so it is awake; whether it slept."""
        while (sleep := self.of(node)) is not None:
            if await self.change(node, sleep, sleep.woken(self._clock.utc())):
                return True
        return False

    async def change(self, node: str, before: Sleep, after: Sleep) -> bool:
        """Note how a node sleeps; `False`, and nothing is noted, where that has changed meanwhile."""
        async with self._one:
            if self._known.get(node, Sleep()) != before:
                return False
            await self._books.keep_sleep(node, after)
            self._known[node] = after
        self._tell()
        return True

    def _tell(self) -> None:
        if self.asleep:
            self.some.set()
        else:
            self.some.clear()
