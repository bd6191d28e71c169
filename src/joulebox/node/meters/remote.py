"""`remote:http://HOST:PORT`: a meter that another machine reads, served there by `joulebox meters serve`.

The recorder stamps a reading halfway between question and answer. As NTP does, each exchange gives the difference of
the two clocks with its uncertainty; the best of the last ones tells when the other side really read. What is stamped
further off than the channels' `lag_s` promises is a fault, not a reading.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Final

from joulebox.clock import Clock, SystemClock
from joulebox.errors import JouleboxError
from joulebox.model import Channel, ReadingKind, Sampling
from joulebox.node.json_http import JsonHttp, field
from joulebox.node.meter import MeterFault
from joulebox.node.options import TIMEOUT_MAX_S, TIMEOUT_OPTION, number, timeout_s, whole
from joulebox.units import seconds

WHERE: Final = "http://HOST:PORT"
LOOKS_FOR: Final = "a meter served by another machine"
OPTIONS: Final[Mapping[str, str]] = {
    "meter": "which of the served meters, counted from 0; needed where there are several",
    "timeout": TIMEOUT_OPTION,
    "lag": "seconds by which a reading's time may be uncertain; without it what a few exchanges at the start show",
}

_VERSION: Final = 1
_EXCHANGES: Final = 5
_LAG_MIN_S: Final = 0.005
_LAG_OF_TICK: Final = 0.1
_KEPT: Final = 16
_METERS_MAX: Final = 64
_CHANNELS_MAX: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """A question and its answer: asked and answered by this machine's clock, the reading by the other's."""

    asked_ns: int
    before_ns: int
    after_ns: int
    answered_ns: int

    @property
    def offset_ns(self) -> int:
        """By how much the other clock is ahead, as far as this exchange tells."""
        return (self.before_ns - self.asked_ns + self.after_ns - self.answered_ns) // 2

    @property
    def offset_u_ns(self) -> int:
        """How far that may be off: half the time spent on the way."""
        return (self.answered_ns - self.asked_ns - (self.after_ns - self.before_ns)) // 2


class Offset:
    """The two clocks' difference: the surest of the last exchanges."""

    def __init__(self) -> None:
        self._last: deque[Exchange] = deque(maxlen=_KEPT)

    def stamp_u_s(self, exchange: Exchange) -> float:
        """How far a stamp halfway between question and answer may be from the reading itself, in seconds."""
        self._last.append(exchange)
        best = min(self._last, key=lambda one: one.offset_u_ns)
        read_ns = (exchange.before_ns + exchange.after_ns) // 2 - best.offset_ns
        stamp_ns = (exchange.asked_ns + exchange.answered_ns) // 2
        blur_ns = best.offset_u_ns + (exchange.after_ns - exchange.before_ns) // 2
        # never worse than half this exchange alone, also where the other clock began anew
        return seconds(min(abs(stamp_ns - read_ns) + blur_ns, (exchange.answered_ns - exchange.asked_ns) // 2))


class RemoteMeter:
    """One of the meters that a host serves."""

    def __init__(self, url: str, index: int | None, wait_s: float, lag_s: float | None, clock: Clock) -> None:
        """Ask what is served, and a few times for a reading, which shows the lag where none is given.

        Raises `JouleboxError`: `bad_setting` for no address or an unclear choice, `meter_unreadable`.
        """
        self._clock = clock
        self._http = JsonHttp("remote", url, wait_s, clock)
        self._offset = Offset()
        try:
            number, served = _chosen(self._http.get("/meters", "what it serves"), index, self._http.url)
            self._path = f"/meters/{number}/reading"
            self.address = f"remote:{self._http.url},meter={number}"
            self._mark = served.get("mark")
            channels = [_channel(one) for one in served["channels"][:_CHANNELS_MAX]]
            self.missing: Sequence[str] = tuple(str(part) for part in served.get("missing", ()))
            self._channels: tuple[Channel, ...] = tuple(channels)
            shown_s = max(self._exchange()[1] for _ in range(_EXCHANGES))
            of_tick_s = _LAG_OF_TICK * min((channel.tick_s for channel in channels), default=0.0)
            self._lag_s = lag_s or max(_LAG_MIN_S, of_tick_s, 2 * shown_s)
        except (MeterFault, KeyError, TypeError, ValueError) as error:
            self.close()
            reason = error if isinstance(error, MeterFault) else f"{url} does not speak like `joulebox meters serve`"
            raise JouleboxError(
                "meter_unreadable",
                f"The meter behind {url} cannot be read: {reason}. Start `joulebox meters serve` there.",
            ) from error
        except JouleboxError:
            self.close()
            raise
        self._channels = tuple(
            replace(channel, meter=self.address, lag_s=channel.lag_s + self._lag_s) for channel in channels
        )

    def channels(self) -> Sequence[Channel]:
        """Those of the meter there, with what the way adds to their lag."""
        return self._channels

    def read(self) -> Sequence[int | None]:
        """What the meter there reads now. Raises `MeterFault`: its own, the way's, or a stamp too far off."""
        raw, stamp_u_s = self._exchange()
        if stamp_u_s > self._lag_s:
            raise MeterFault(
                f"the reading's time is uncertain by {stamp_u_s * 1e3:.1f} ms, more than {self._lag_s * 1e3:.1f} ms: "
                "left out"
            )
        return raw

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def _exchange(self) -> tuple[Sequence[int | None], float]:
        """Raw values, and how far the recorder's stamp may be from the reading, in seconds. Raises `MeterFault`."""
        asked_ns = self._clock.now_ns()
        answer = self._http.get(self._path, "a reading")
        answered_ns = self._clock.now_ns()
        if field(answer, "mark") != self._mark:
            raise MeterFault("the meters there are others than at the start: restart the node")
        if (fault := field(answer, "fault")) is not None:
            raise MeterFault(f"{fault}"[:300] or "a fault without a word")
        raw, before_ns, after_ns = (field(answer, name) for name in ("raw", "before_ns", "after_ns"))
        right = isinstance(raw, list) and len(raw) == len(self._channels) and all(map(_raw_or_none, raw))
        if not right or not _whole(before_ns) or not _whole(after_ns):
            raise MeterFault("the answer is no reading of this meter")
        exchange = Exchange(asked_ns=asked_ns, before_ns=before_ns, after_ns=after_ns, answered_ns=answered_ns)
        if not 0 <= exchange.after_ns - exchange.before_ns <= answered_ns - asked_ns:
            raise MeterFault("the clock there does not go as this one does: reading left out")
        return tuple(raw), self._offset.stamp_u_s(exchange)


def open(address: str, options: Mapping[str, str]) -> RemoteMeter:  # noqa: A001 - the name every driver offers
    """The meter served at `address`. Raises `JouleboxError`: `bad_setting`, `meter_unreadable`."""
    index = whole(options, "meter", 0, most=_METERS_MAX - 1) if "meter" in options else None
    lag_s = number(options, "lag", 0.0, most=TIMEOUT_MAX_S) or None
    return RemoteMeter(address, index, timeout_s(options), lag_s, SystemClock())


def _chosen(answer: Any, index: int | None, url: str) -> tuple[int, dict[str, Any]]:
    """The meter that is meant. Raises `MeterFault`, or `JouleboxError("bad_setting")` where that is not clear."""
    served = field(answer, "meters")
    if field(answer, "version") != _VERSION or not isinstance(served, list) or len(served) > _METERS_MAX:
        raise MeterFault(f"{url} does not speak like `joulebox meters serve`")
    if index is None and len(served) == 1:
        index = 0
    if index is None or index >= len(served):
        choices = ", ".join(f"meter={number} ({field(one, 'address')})" for number, one in enumerate(served))
        raise JouleboxError(
            "bad_setting", f"Meter remote:{url} cannot be used: say which. It serves {choices or 'none'}."
        )
    return index, dict(served[index])


def _channel(data: Mapping[str, Any]) -> Channel:
    """A channel from its JSON. Raises `KeyError`, `TypeError` or `ValueError` for what is none."""
    known = {one.name: data[one.name] for one in fields(Channel) if one.name in data}
    for name, value in known.items():
        if name in ("step", "tick_s", "lag_s", "gain_u_ratio", "offset_u"):
            right = isinstance(value, int | float) and 0.0 <= value < 1e9
        elif name in ("simulated", "at_wall"):
            right = isinstance(value, bool)
        elif name == "wrap_raw":
            right = _raw_or_none(value)
        else:
            right = (value is None and name == "part_of") or (isinstance(value, str) and len(value) < 300)
        if not right:
            raise ValueError(name)
    channel = Channel(**{**known, "kind": ReadingKind(data["kind"]), "sampling": Sampling(data["sampling"])})
    if channel.step <= 0 or channel.tick_s <= 0:
        raise ValueError("step")
    return channel


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _raw_or_none(value: Any) -> bool:
    return value is None or (_whole(value) and abs(value) < 2**64)
