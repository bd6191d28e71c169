"""The task that wakes sleeping nodes by magic packets, when only they can take what waits.

The server sends the packets itself, so it must be in the network of its nodes, or reach it (`wake_address`). Of several
servers each sends for what it sees: a packet too many wakes nobody twice. With no node asleep nothing runs.
"""

import asyncio
import logging
import socket
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from joulebox.clock import Clock
from joulebox.errors import JouleboxError
from joulebox.logs import about
from joulebox.protocol import LeaseRequest
from joulebox.server.background import Background
from joulebox.server.desk import Desk
from joulebox.server.jobs import reach_of
from joulebox.server.sleep import TRY_AGAIN, Sleep, begun, magic_packet, to_wake, unserved
from joulebox.server.wakes import Books

_log = logging.getLogger(__name__)
SEND_EVERY_S: Final = 5.0
"""A packet may be lost, or come before the machine sleeps: it is sent again until the node speaks."""
GATHER_S: Final = 0.05
TROUBLED_S: Final = 30.0
WAKE_PORT: Final = 9
PORT_MAX: Final = 65_535
PRESENT: Final = ("idle", "unloaded", "busy")
"""States of a node that takes what waits, now or when it has done what it has."""


class Waker(Background):
    """The task, and what it does in a turn. Raises `JouleboxError("bad_setting")` for an address that is none."""

    def __init__(self, desk: Desk, books: Books, clock: Clock, addresses: Sequence[str]) -> None:
        super().__init__()
        self._desk = desk
        self._books = books
        self._wakes = desk.wakes
        self._clock = clock
        self._addresses = [address_of(one) for one in addresses]
        self._sent: dict[str, datetime] = {}

    async def turn(self) -> float | None:
        """Wake whom something waits for, send again, give up whom nothing wakes; seconds until there is more to do.

        Raises `JouleboxError("database")`.
        """
        nodes = [(node.offer, state.state) for node, state in await self._desk.nodes() if node.drain is None]
        offers = {offer.node: offer for offer, _ in nodes}
        present = [offer.node for offer, state in nodes if state in PRESENT]
        reach = {name: reach_of(offer) for name, offer in offers.items()}
        now = self._clock.utc()
        for name, sleep in self._wakes.asleep.items():
            if name not in offers:  # drained: nothing is sent to it, so that nothing can be said of it
                continue
            if sleep.waking and not sleep.failed and now >= sleep.waking + _bound(offers[name]):
                _log.warning("node %s did not wake", name, extra=about(node=name))
                await self._change(name, sleep, replace(sleep, failed=now))
        waiting = await self._books.waiting(unserved(reach, present, self._wakes.asleep))
        asleep = self._wakes.asleep
        for name in to_wake(waiting, reach, asleep, now):
            self._sent.pop(name, None)
            await self._change(name, asleep[name], begun(asleep[name], now))
        return self._send_and_wait(offers, now, waits=bool(waiting))

    async def _change(self, name: str, before: Sleep, after: Sleep) -> None:
        if await self._wakes.change(name, before, after):
            self._desk.replan()
            self._desk.line_bell.ring()

    def _send_and_wait(self, offers: Mapping[str, LeaseRequest], now: datetime, *, waits: bool) -> float | None:
        due: list[datetime] = []
        for name, sleep in self._wakes.asleep.items():
            if sleep.failed:
                due += [sleep.failed + TRY_AGAIN] if waits else []
            elif sleep.waking and name in offers:
                sent = self._sent.get(name)
                if sent is None or now >= sent + timedelta(seconds=SEND_EVERY_S):
                    self._send(name, offers[name])
                    self._sent[name] = sent = now
                due += [sent + timedelta(seconds=SEND_EVERY_S), sleep.waking + _bound(offers[name])]
        return max((min(due) - now).total_seconds(), GATHER_S) if due else None

    def _send(self, name: str, offer: LeaseRequest) -> None:
        mac = offer.policy.mac if offer.policy else None
        try:
            packet = magic_packet(mac or "")
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
                sender.setblocking(False)
                for address in self._addresses:
                    sender.sendto(packet, address)
        except (OSError, JouleboxError) as error:
            _log.warning("node %s: no magic packet could be sent: %s", name, error, extra=about(node=name))

    async def _run(self) -> None:
        while True:
            await self._wakes.some.wait()
            change = self._desk.line_bell.next()
            try:
                wait_s = await self.turn()
            except Exception as error:  # noqa: BLE001 - whatever it is, sleeping nodes must not sleep for ever
                _log.warning("waking: this turn failed: %s", error, exc_info=not isinstance(error, JouleboxError))
                wait_s = TROUBLED_S
            await asyncio.wait({change}, timeout=wait_s)
            await asyncio.sleep(GATHER_S)


def _bound(offer: LeaseRequest) -> timedelta:
    return timedelta(seconds=offer.policy.wake_max_s if offer.policy is not None else 0.0)


def address_of(text: str) -> tuple[str, int]:
    """`HOST` or `HOST:PORT`. Raises `JouleboxError("bad_setting")`."""
    host, _, number = text.partition(":")
    port = WAKE_PORT if not number else int(number) if number.isdecimal() else 0
    if not host or not 0 < port <= PORT_MAX:
        raise JouleboxError("bad_setting", f"Setting wake_address = {text!r} cannot be used: write HOST or HOST:PORT.")
    return host, port
