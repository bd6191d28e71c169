"""What moving an answer would have saved, in sentences and as a small drawing. No figure is made here."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from joulebox.accounting.whatif import Move, WhatIf
from joulebox.server.grid.table import WORLD, zone_of
from joulebox.wording import plain, quantity

Json = Mapping[str, Any]
WIDE: Final = 320.0
TOP: Final = 18.0
DEEP: Final = 46.0
HEIGHT: Final = 64


def sentences(found: WhatIf) -> Iterable[str]:
    """First what the greenest place would have saved, then the hours where they are known, then what that rests on."""
    if found.place is not None:
        yield _place(found.place, found)
    if found.hour is not None:
        yield _hour(found.hour)
    if found.best is not None:
        yield f"Greenest of all known places and hours: {_name(found.best.to.zone)}, {_span(found.best)}."
    yield _rests_on(found)


def _place(move: Move, found: WhatIf) -> str:
    if not move.saved_g:
        return f"No known grid is greener than {_name(move.instead.zone)}: moving would save nothing."
    saved, of = quantity(move.saved_g, None, "g"), quantity(move.instead.O_g + found.M_g, None, "g")
    return (
        f"In {_name(move.to.zone)} it would have emitted {saved} CO2e less, {plain(100 * move.saved_ratio, '%', 2)} of "
        f"{of}: making the machine does not move."
    )


def _hour(move: Move) -> str:
    if not move.saved_g:
        return f"At no known hour in {_name(move.to.zone)} would it have been greener."
    saved = quantity(move.saved_g, None, "g")
    return f"In {_name(move.to.zone)}, {_span(move)}: {saved} less, {plain(100 * move.saved_ratio, '%', 2)}."


def _rests_on(found: WhatIf) -> str:
    if found.by == "yearly":
        means = "Places are compared by means of the year"
        if found.here.quality == "static":
            means = "Places are compared by means of the year, this one by the operator's figure"
        return f"{means}{'' if found.hour else '; hours are not known, so no hour can be named'}."
    return f"Places are compared for the present hour, as far as it is known ({len(found.places)} grids)."


def _span(move: Move) -> str:
    if move.to.start is None or move.to.until is None:
        return "any hour"
    start, until = (datetime.fromisoformat(text) for text in (move.to.start, move.to.until))
    return f"{start.day} {start:%B, %H:%M} to {until:%H:%M} UTC ({move.to.quality})"


def _name(zone: str) -> str:
    if zone == WORLD:
        return "the mean of the world"
    place = zone_of(zone)
    return f"{place.name} ({place.key})"


def chart(found: Json) -> dict[str, Any] | None:
    """A drawing: each grid a line at its grams, or, where they are known, the hours of this grid as steps."""
    if len(found["hours"]) > 1:
        return _day(found)
    return _places(found) if len(found["places"]) > 1 else None


def _places(found: Json) -> dict[str, Any]:
    place, places = found["place"], found["places"]
    most = max(one["O_g"] for one in places) or 1.0

    def at(g: float) -> float:
        return round(WIDE * min(g / most, 1.0), 1)

    here, green = at(place["instead"]["O_g"]), at(place["to"]["O_g"])
    marks = [_mark("green", green, place["to"]["zone"], 0.0), _mark("here", here, found["here"]["zone"], DEEP)]
    low, high = (quantity(one["O_g"], None, "g") for one in (places[0], places[-1]))
    return {
        "height": HEIGHT,
        "label": f"Electricity for this answer in {len(places)} grids: from {low} in {_name(places[0]['zone'])} to "
        f"{high} in {_name(places[-1]['zone'])}; here {quantity(place['instead']['O_g'], None, 'g')}.",
        "caption": f"Its electricity in {len(places)} grids, each a line: {low} to {high} CO2e, left is greener.",
        "rest": "".join(f"M{at(one['O_g'])} {TOP + 4}V{DEEP - 4}" for one in places),
        "marks": marks,
    }


def _day(found: Json) -> dict[str, Any]:
    hours: Sequence[Json] = found["hours"]
    times = [(datetime.fromisoformat(one["start"]), datetime.fromisoformat(one["until"])) for one in hours]
    first, last = times[0][0], times[-1][1]
    most, green = max(one["O_g"] for one in hours) or 1.0, found["hour"]["to"]

    def across(at: datetime) -> float:
        return round(WIDE * ((at - first) / (last - first)), 1)

    def up(g: float) -> float:
        return round(DEEP - (DEEP - TOP) * g / most, 1)

    steps = "".join(
        f"{'M' if not index or times[index - 1][1] != start else 'L'}{across(start)} {up(hour['O_g'])}H{across(until)}"
        for index, ((start, until), hour) in enumerate(zip(times, hours, strict=True))
    )
    low, high = (quantity(pick(one["O_g"] for one in hours), None, "g") for pick in (min, max))
    name = _name(found["here"]["zone"])
    return {
        "height": round(DEEP + 4),
        "label": f"Electricity for this answer in {name} by the hour: {low} to {high}, least at {green['start']}.",
        "caption": f"Its electricity in {name}, {first:%d %b %H:%M} to {last:%d %b %H:%M} UTC: {low} to {high} CO2e.",
        "rest": steps,
        "marks": [_mark("green", across(datetime.fromisoformat(green["start"])), "greenest", 0.0)],
    }


def _mark(kind: str, x: float, text: str, below: float) -> dict[str, Any]:
    """A line with its word above it, or below."""
    right = x > WIDE / 2
    return {
        "kind": kind,
        "x": x,
        "top": TOP - 4 if not below else TOP + 4,
        "bottom": DEEP - 4 if not below else DEEP + 2,
        "text": text,
        "text_x": x,
        "text_y": 10 if not below else HEIGHT - 4,
        "anchor": "end" if right else "start",
    }
