"""Plots of a campaign as SVG, written by hand: each shows its intervals, and says what it shows without colour."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10
from typing import Final

from joulebox.bench.table import ALL, Cell, Table
from joulebox.bench.views import figure
from joulebox.statistics import Interval

WIDTH, HEIGHT = 700, 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 210, 40, 50
_COLOURS: Final = ("#0b6e4f", "#b5451b", "#31588a", "#7a5195", "#8a6d00", "#00747a", "#a23b72", "#444444")
_MARKS: Final = ("circle", "square", "diamond", "triangle")
_STYLE: Final = "font-family:system-ui,sans-serif;font-size:12px;fill:#222"


@dataclass(frozen=True, slots=True)
class Point:
    """A model: what an answer takes and how often it is right."""

    model: str
    x: Interval
    y: Interval
    front: bool


def front_of(cells: Sequence[Cell]) -> list[Point]:
    """Each model's place; on the front is whom no other beats in both energy and right answers."""
    told = [(cell.model, cell.answer_j, cell.accuracy) for cell in cells]
    both = [(model, x, y) for model, x, y in told if x is not None and y is not None]
    return [
        Point(model, x, y, not any(_beats((x1, y1), (x, y)) for other, x1, y1 in both if other != model))
        for model, x, y in both
    ]


def _beats(one: tuple[Interval, Interval], other: tuple[Interval, Interval]) -> bool:
    (x1, y1), (x, y) = one, other
    return x1.value <= x.value and y1.value >= y.value and (x1.value, y1.value) != (x.value, y.value)


def pareto(table: Table, node: str, category: str = ALL) -> str | None:
    """Right answers over energy; `None` where no model has both."""
    points = front_of([cell for cell in table.cells if (cell.node, cell.category) == (node, category)])
    if not points:
        return None
    low, high = _decades([end for point in points for end in (point.x.low, point.x.high)])
    of = "all categories" if category == ALL else category
    body = [*_axes(low, high), *_line(points, low, high)]
    for point in points:
        body += _mark(point, table.models.index(point.model), low, high)
    title = f"Right answers over energy of an answer ({table.known_by}), {of}, node {node}"
    names = ", ".join(point.model for point in sorted(points, key=lambda each: each.x.value) if point.front)
    return _svg(title, f"{title}. On the front: {names}.", body)


def _axes(low: float, high: float) -> Iterator[str]:
    for share in range(0, 101, 20):
        y = _y(share / 100)
        yield f'<line x1="{_LEFT}" y1="{y}" x2="{WIDTH - _RIGHT}" y2="{y}" stroke="#ddd"/>'
        yield f'<text x="{_LEFT - 6}" y="{y + 4}" text-anchor="end">{share} %</text>'
    step = low
    while step <= high * 1.0001:
        x = _x(step, low, high)
        yield f'<line x1="{x}" y1="{_TOP}" x2="{x}" y2="{HEIGHT - _BOTTOM}" stroke="#ddd"/>'
        yield f'<text x="{x}" y="{HEIGHT - _BOTTOM + 16}" text-anchor="middle">{figure(step)}</text>'
        step *= 10
    middle = (_LEFT + WIDTH - _RIGHT) / 2
    yield f'<text x="{middle}" y="{HEIGHT - 12}" text-anchor="middle">J an answer (logarithmic)</text>'


def _line(points: Sequence[Point], low: float, high: float) -> Iterator[str]:
    front = sorted((point for point in points if point.front), key=lambda each: each.x.value)
    if len(front) > 1:
        path = " ".join(f"{_x(point.x.value, low, high)},{_y(point.y.value)}" for point in front)
        yield f'<polyline points="{path}" fill="none" stroke="#999" stroke-dasharray="4 3"/>'


def _mark(point: Point, at: int, low: float, high: float) -> Iterator[str]:
    x, y, colour = _x(point.x.value, low, high), _y(point.y.value), _COLOURS[at % len(_COLOURS)]
    ends = [_x(min(max(end, low), high), low, high) for end in (point.x.low, point.x.high)]
    yield f'<line x1="{ends[0]}" y1="{y}" x2="{ends[1]}" y2="{y}" stroke="{colour}"/>'
    yield f'<line x1="{x}" y1="{_y(point.y.low)}" x2="{x}" y2="{_y(point.y.high)}" stroke="{colour}"/>'
    yield _shape(_MARKS[at % len(_MARKS)], x, y, colour)
    beside = _TOP + 18 * at + 8
    yield _shape(_MARKS[at % len(_MARKS)], WIDTH - _RIGHT + 16, beside - 4, colour)
    yield f'<text x="{WIDTH - _RIGHT + 26}" y="{beside}">{escape(_short(point.model))}</text>'


def _shape(kind: str, x: float, y: float, colour: str) -> str:
    match kind:
        case "circle":
            return f'<circle cx="{x}" cy="{y}" r="4.5" fill="{colour}"/>'
        case "square":
            return f'<rect x="{x - 4}" y="{y - 4}" width="8" height="8" fill="{colour}"/>'
        case "diamond":
            return f'<path d="M{x} {y - 6}L{x + 5} {y}L{x} {y + 6}L{x - 5} {y}Z" fill="{colour}"/>'
    return f'<path d="M{x} {y - 6}L{x + 5} {y + 4}L{x - 5} {y + 4}Z" fill="{colour}"/>'


def bars(table: Table, node: str) -> str | None:
    """Energy of an answer by category and model, with intervals, on a logarithmic scale; `None` without any."""
    cells = [cell for cell in table.cells if cell.node == node and cell.category != ALL and cell.answer_j is not None]
    figures = [cell.answer_j for cell in cells if cell.answer_j is not None]
    if not figures:
        return None
    low, high = _decades([end for one in figures for end in (one.low, one.high)])
    body: list[str] = []
    for exponent in range(round(log10(low)), round(log10(high)) + 1):
        y = _height(10.0**exponent, low, high)
        body.append(f'<line x1="{_LEFT}" y1="{y}" x2="{WIDTH - _RIGHT}" y2="{y}" stroke="#ddd"/>')
        body.append(f'<text x="{_LEFT - 6}" y="{y + 4}" text-anchor="end">{figure(10.0**exponent)} J</text>')
    wide = (WIDTH - _LEFT - _RIGHT) / len(table.categories)
    for column, category in enumerate(table.categories):
        middle = _LEFT + wide * (column + 0.5)
        body.append(f'<text x="{middle}" y="{HEIGHT - _BOTTOM + 16}" text-anchor="middle">{escape(category)}</text>')
        for at, model in enumerate(table.models):
            cell = table.cell(node, model, category)
            if cell is not None and cell.answer_j is not None:
                x = middle + (at - (len(table.models) - 1) / 2) * min(16.0, wide / (len(table.models) + 1))
                body += _whisker(cell.answer_j, x, at, low, high)
    for at, model in enumerate(table.models):
        y = _TOP + 18 * at + 8
        body.append(_shape(_MARKS[at % len(_MARKS)], WIDTH - _RIGHT + 16, y - 4, _COLOURS[at % len(_COLOURS)]))
        body.append(f'<text x="{WIDTH - _RIGHT + 26}" y="{y}">{escape(_short(model))}</text>')
    title = f"Energy of an answer ({table.known_by}) with 95 % intervals, node {node}"
    return _svg(title, title, body)


def _whisker(one: Interval, x: float, at: int, low: float, high: float) -> Iterator[str]:
    colour = _COLOURS[at % len(_COLOURS)]
    ends = [_height(min(max(end, low), high), low, high) for end in (one.low, one.high)]
    yield f'<line x1="{x}" y1="{ends[0]}" x2="{x}" y2="{ends[1]}" stroke="{colour}"/>'
    yield _shape(_MARKS[at % len(_MARKS)], x, _height(one.value, low, high), colour)


def _decades(values: Sequence[float]) -> tuple[float, float]:
    """The powers of ten around them."""
    told = [value for value in values if 0 < value < float("inf")]
    low, high = floor(log10(min(told))), ceil(log10(max(told)))
    return 10.0**low, 10.0 ** max(high, low + 1)


def _x(value: float, low: float, high: float) -> float:
    share = log10(value / low) / log10(high / low)
    return round(_LEFT + share * (WIDTH - _LEFT - _RIGHT), 1)


def _y(share: float) -> float:
    return round(HEIGHT - _BOTTOM - share * (HEIGHT - _TOP - _BOTTOM), 1)


def _height(value: float, low: float, high: float) -> float:
    return _y(log10(value / low) / log10(high / low))


def _short(name: str) -> str:
    return name if len(name) <= 29 else f"{name[:28]}…"


def _svg(title: str, told: str, body: Sequence[str]) -> str:
    inside = "\n".join(body)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        f'role="img" aria-label="{escape(told)}" style="{_STYLE}">\n<rect width="100%" height="100%" fill="#fff"/>\n'
        f'<text x="{_LEFT}" y="20" font-weight="600">{escape(title)}</text>\n{inside}\n</svg>\n'
    )
