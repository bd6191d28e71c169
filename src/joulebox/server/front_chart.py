"""Right answers over the energy of an answer as a drawing (SVG), with intervals and the front of models that no other
beats in both. Pure; a picture of its own, so that it can be shown elsewhere.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10
from typing import Final

from markupsafe import Markup

from joulebox.statistics import Interval
from joulebox.wording import Tongue

WIDE: Final = 400
HIGH: Final = 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 12, 14, 46
STYLE: Final = Markup(
    "text{font:13px system-ui,sans-serif;fill:#625b50}.n{font-weight:600;fill:#211e19}line{stroke:#d9d2c4}"
    ".e{stroke:#857c6d}circle{fill:#fffdf8;stroke:#1c6548;stroke-width:2}.f{fill:#1c6548}"
    "polyline{fill:none;stroke:#1c6548;stroke-dasharray:4 3}@media(prefers-color-scheme:dark){text{fill:#aaa294}"
    ".n{fill:#ece7dc}line{stroke:#3b3731}.e{stroke:#857d70}circle{fill:#201e1b;stroke:#8fd1b0}.f{fill:#8fd1b0}"
    "polyline{stroke:#8fd1b0}}"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A model: `x` joules of an answer, `y` share of right answers. `front`: no other is cheaper and as often right."""

    number: int
    model: str
    x: Interval
    y: Interval
    front: bool


def points_of(figures: Sequence[tuple[str, Interval, Interval]]) -> list[Point]:
    """The models by energy, the least first, numbered; from name, joules and share of right answers."""
    ordered = sorted(figures, key=lambda one: (one[1].value, one[0]))
    return [
        Point(number=at, model=model, x=x, y=y, front=not any(_beats(other[1:], (x, y)) for other in ordered))
        for at, (model, x, y) in enumerate(ordered, start=1)
    ]


def _beats(one: tuple[Interval, Interval], other: tuple[Interval, Interval]) -> bool:
    (x1, y1), (x, y) = one, other
    return x1.value <= x.value and y1.value >= y.value and (x1.value, y1.value) != (x.value, y.value)


def front_chart(points: Sequence[Point], _: Tongue) -> Markup:
    """The drawing; each mark carries its model's number."""
    low, high = _ends([end for one in points for end in (one.x.low, one.x.high)])
    body = [*_axes(low, high, _), *_line(points, low, high)]
    for one in points:
        body += _mark(one, low, high)
    return Markup(
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}" width="{wide}" height="{high}" role="img">'
        "<title>{title}</title><style>{style}</style>{body}</svg>"
    ).format(wide=WIDE, high=HIGH, title=told(points, _), style=STYLE, body=Markup().join(body))


def told(points: Sequence[Point], _: Tongue) -> str:
    """The drawing for those who do not see it."""
    names = ", ".join(one.model for one in points if one.front)
    return _(
        "Right answers over the energy of an answer, {n} models. On the front: {names}.", n=len(points), names=names
    )


def _axes(low: float, high: float, _: Tongue) -> Iterator[Markup]:
    line = Markup('<line x1="{}" y1="{}" x2="{}" y2="{}"/>')
    text = Markup('<text x="{}" y="{}" text-anchor="{}">{}</text>')
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        yield line.format(_LEFT, _y(share), WIDE - _RIGHT, _y(share))
        yield text.format(_LEFT - 6, _y(share) + 4, "end", f"{100 * share:.0f} %")
    for step in _steps(low, high):
        yield line.format(_x(step, low, high), _TOP, _x(step, low, high), HIGH - _BOTTOM)
        shown = _.number(f"{step:.6f}".rstrip("0").rstrip("."))
        yield text.format(_x(step, low, high), HIGH - _BOTTOM + 17, "middle", shown)
    yield text.format((_LEFT + WIDE - _RIGHT) / 2, HIGH - 8, "middle", _("joules of an answer"))


def _steps(low: float, high: float) -> list[float]:
    """Round values between the ends, no more than fit."""
    whole = range(floor(log10(low)), ceil(log10(high)) + 1)
    fine = [digit * 10.0**power for power in whole for digit in (1, 2, 5)]
    inside = [step for step in fine if low <= step <= high]
    return inside if len(inside) <= 7 else [10.0**power for power in whole if low <= 10.0**power <= high]


def _ends(values: Sequence[float]) -> tuple[float, float]:
    """A little beyond the least and the most."""
    known = [value for value in values if 0 < value < float("inf")] or [1.0]
    return min(known) / 1.3, max(known) * 1.3


def _line(points: Sequence[Point], low: float, high: float) -> Iterator[Markup]:
    front = [one for one in points if one.front]
    if len(front) > 1:
        path = " ".join(f"{_x(one.x.value, low, high)},{_y(one.y.value)}" for one in front)
        yield Markup('<polyline points="{}"/>').format(path)


def _mark(one: Point, low: float, high: float) -> Iterator[Markup]:
    x, y = _x(one.x.value, low, high), _y(one.y.value)
    line = Markup('<line class="e" x1="{}" y1="{}" x2="{}" y2="{}"/>')
    yield line.format(_x(one.x.low, low, high), y, _x(one.x.high, low, high), y)
    yield line.format(x, _y(one.y.low), x, _y(one.y.high))
    yield Markup('<circle cx="{}" cy="{}" r="5"{}/>').format(x, y, Markup(' class="f"') if one.front else "")
    yield Markup('<text class="n" x="{}" y="{}">{}</text>').format(x + 8, y - 7, one.number)


def _x(value: float, low: float, high: float) -> float:
    share = log10(min(max(value, low), high) / low) / log10(high / low)
    return round(_LEFT + share * (WIDE - _LEFT - _RIGHT), 1)


def _y(share: float) -> float:
    return round(HIGH - _BOTTOM - min(max(share, 0.0), 1.0) * (HIGH - _TOP - _BOTTOM), 1)
