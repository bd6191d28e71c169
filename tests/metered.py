"""Channels that count, made by hand for tests: a curve of few points and what an estimator might have found on it."""

from collections.abc import Sequence
from typing import Any

from joulebox.accounting.energy import Estimate, Window, Works
from joulebox.accounting.figures import Metered, Scale
from joulebox.accounting.uncertainty import Noise
from joulebox.metering import Curve
from joulebox.model import Channel
from traces import S, channel

PLAIN = Scale(offset_w=0.0, offset_u_w=0.0, slope=1.0, slope_u=0.0, offset_source="offset", slope_source="gain")


def curve(*points: tuple[float, float]) -> Curve:
    """Totals at seconds."""
    return Curve(tuple(round(t_s * S) for t_s, _ in points), tuple(total for _, total in points))


def found(**figures: Any) -> Estimate:
    """What an estimator found; what is not told is zero, and a second where it must last."""
    fields: dict[str, Any] = dict.fromkeys(Estimate.__dataclass_fields__, 0.0)
    return Estimate(**(fields | {"quiet_s": 1.0, "tail_s": 1.0} | figures))


def metered(
    line: Curve,
    scale: Scale = PLAIN,
    one: Channel | None = None,
    *,
    answer_s: Sequence[float] = (30.0, 32.0),
    **figures: Any,
) -> Metered:
    """A channel with that curve whose answer lasted from one second to another."""
    start_s, end_s = answer_s
    return Metered(
        channel=one or channel(),
        curve=line,
        window=Window(
            start_ns=round(start_s * S),
            end_ns=round(end_s * S),
            guard_s=1.0,
            tick_s=0.001,
            lag_s=0.0,
            quiet_from_ns=0,
        ),
        scale=scale,
        found=found(**figures),
        noise=Noise(before=0.0, after=0.0, active=0.0, tail=0.0),
        works=Works(lasted_s=(0.0, end_s - start_s), unseen_s=(0.0, 0.0), uneven_rate=None, freedom=0),
    )
