"""A receipt as Python users hold it: the noun with its headline at hand, and how a notebook shows it."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from functools import cache
from html import escape
from typing import Any, Final

from joulebox import model
from joulebox.plain import plain
from joulebox.wording import (
    NOT_MEASURED,
    NOTE,
    SIMULATED,
    VERDICTS,
    WORK_NOTE,
    between,
    budget_words,
    grade_words,
    marks,
    quantity,
    ranged,
)
from joulebox.wording import plain as number

FRAME: Final = (
    "max-width:42rem;margin:.5rem 0;padding:.75rem 1rem;border:1px solid rgba(128,128,128,.6);border-radius:6px;"
    "background:transparent;color:inherit;font-family:inherit;line-height:1.45"
)
"""It takes the notebook's own colours, so that it can be read in a dark one too."""
UNSET: Final = "tex2jax_ignore mathjax_ignore"
"""Notebooks set formulas in what stands between dollars: not in what a model wrote."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Receipt(model.Receipt):
    """What an answer, or a piece of work, cost: every figure under its name (`receipt.energy.active.j`), the headline
    at hand. A notebook shows it as a card."""

    @property
    def joules(self) -> float | None:
        """The energy of the answer, idle included, in J; `None`: not known, never zero."""
        return self.energy.answer.j if self.energy.answer else None

    @property
    def u(self) -> float | None:
        """The expanded uncertainty (k = 2) of `joules`, in J."""
        return self.energy.answer.u if self.energy.answer else None

    @property
    def grade(self) -> model.Grade | None:
        """How good that figure is: A (a wall meter, within 2 %) to D (modelled)."""
        return self.energy.answer.grade if self.energy.answer else None

    @property
    def grams(self) -> float | None:
        """CO2e of the answer, electricity and making of the machine, in g."""
        return self.carbon.total.g if self.carbon.total else None

    def to_dict(self) -> dict[str, Any]:
        """The receipt as the JSON of the API."""
        told: dict[str, Any] = json.loads(json.dumps(plain(self)))
        return told

    def __str__(self) -> str:
        """`86.4 ± 3.1 J, 12.3 mg CO2e, grade C, valid`."""
        told, total = plain(self), self.carbon.total
        figure = " ".join([quantity(self.joules, self.u, "J"), *marks(told)])
        grams = f"{ranged(total.g, total.low, total.high, 'g')[0]} CO2e" if total else ""
        return ", ".join(filter(None, [figure, grams, f"grade {self.grade}" if self.grade else "", self.verdict]))

    def __repr__(self) -> str:
        return f"<Receipt {self.id}: {self}>"

    def _repr_html_(self) -> str:
        return card(self.to_dict())


_NAMES: Final = tuple(one.name for one in fields(model.Receipt))


def held(made: model.Receipt) -> Receipt:
    """A receipt that was made here, as users hold it."""
    return Receipt(**{name: getattr(made, name) for name in _NAMES})


def read(told: Mapping[str, Any]) -> Receipt:
    """A receipt of the API. Raises `ValueError` where it is none."""
    found: Receipt = _reader().validate_python(dict(told))
    return found


@cache
def _reader() -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(Receipt)


def card(told: Mapping[str, Any]) -> str:
    """A receipt as a piece of HTML that needs nothing from elsewhere."""
    body = "".join(row(*one) for one in _rows(told))
    sentences = [VERDICTS[told["verdict"]], *(str(reason["sentence"]) for reason in told["reasons"])]
    beneath = "".join(f'<div style="opacity:.75;font-size:.9em">{escape(one)}</div>' for one in sentences)
    return (
        f'<div class="joulebox {UNSET}" style="{FRAME}">'
        f"{_headline(told)}"
        f'<table style="border-collapse:collapse;margin:.5rem 0;background:transparent;color:inherit">{body}</table>'
        f"{beneath}"
        f'<div style="opacity:.6;font-size:.85em;margin-top:.5rem">{escape(_made(told))}</div>'
        "</div>"
    )


def _headline(told: Mapping[str, Any]) -> str:
    answer = told["energy"]["answer"]
    if answer is None:
        return "<strong>Energy not measured</strong><div>Not zero: unknown.</div>"
    figure = " ".join([quantity(answer["j"], answer["u"], "J"), *marks(told)])
    sure = [between(answer["j"], answer["u"], "J"), grade_words(told), SIMULATED if told["simulated"] else None]
    lines = "".join(f"<div>{escape(one)}</div>" for one in sure if one)
    return f'<strong style="font-size:1.35em">{escape(figure)}</strong>{lines}'


def _rows(told: Mapping[str, Any]) -> Iterable[tuple[str, str, str]]:
    energy, carbon, times, usage = (told[name] for name in ("energy", "carbon", "times", "usage"))
    asked = told["model"] is not None
    for label, name, note in (
        ("Above idle", "active", f"what the {'answer' if asked else 'work'} added"),
        ("Everything", "full", f"{'loading and ' if asked else ''}settling included"),
    ):
        if figure := energy[name]:
            yield label, " ".join([quantity(figure["j"], figure["u"], "J"), *marks(told)]), note
    if budget := told.get("budget"):
        yield "Budget", number(budget["max_energy_j"], "J"), budget_words(told) or "above idle"
    if total := carbon["total"]:
        shown, span = ranged(total["g"], total["low"], total["high"], "g")
        yield "CO2e", shown, span or ""
    else:
        yield "CO2e", NOT_MEASURED, ""
    grid = carbon["intensity"]
    yield f"Grid {grid['zone']}", number(grid["g_per_kwh"], "g/kWh"), f"{grid['quality']}, {grid['source']}"
    yield "Time", quantity(times["duration_s"], None, "s"), ""
    if asked:
        counts = [("in", usage["input_tokens"]), ("out", usage["output_tokens"])]
        yield "Tokens", ", ".join(f"{'unknown' if n is None else n} {way}" for way, n in counts), ""


def row(label: str, figure: str, note: str) -> str:
    """A line of a card."""
    style = "text-align:left;padding:.1rem 1rem .1rem 0;font-weight:normal;border:0;vertical-align:top"
    return (
        f'<tr><th scope="row" style="{style}">{escape(label)}</th>'
        f'<td style="{style};white-space:nowrap">{escape(figure)}</td>'
        f'<td style="{style};opacity:.7">{escape(note)}</td></tr>'
    )


def _made(told: Mapping[str, Any]) -> str:
    made, engine = told["model"], told["engine"]
    where = f"Measured on {told['node']}."
    if made and engine:
        where = f"{made['name']} {made['quantization']}, {engine['name']} {engine['version']}, on {told['node']}."
    return f"Receipt {told['id']}. {where} {NOTE if made else WORK_NOTE}"
