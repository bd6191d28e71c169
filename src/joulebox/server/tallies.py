"""What is counted for ever: additions to running totals that the database keeps, so that whoever reads them sees them
only grow, whichever server is asked and however often it began anew. Pure.

Names, units and labels of the totals stand in `metrics.FAMILIES`. A receipt counts as it was first made: a further
revision changes nothing that was counted.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from joulebox.accounting.figures import MODELLED
from joulebox.accounting.fleet import idle_energy
from joulebox.model import AttemptState, JobState, Receipt, Usage
from joulebox.server.idle import NodeIdle

NONE: Final = "none"
"""The value of a label where nobody knows, or there is nothing."""
LOADED: Final = {True: "yes", False: "no", None: "unknown"}


@dataclass(frozen=True, slots=True)
class Tally:
    """One addition: the total's name, its labels in the order of their names, and how much, never below zero."""

    name: str
    labels: tuple[tuple[str, str], ...]
    amount: float


def tally(name: str, amount: float, **labels: str) -> Tally:
    """An addition. What noise made less than nothing counts as nothing: a total does not shrink."""
    return Tally(name, tuple(sorted(labels.items())), max(amount, 0.0))


def summed(tallies: Iterable[Tally]) -> list[Tally]:
    """The additions, one for each total, in the order in which every transaction takes them."""
    found: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
    for one in tallies:
        found[one.name, one.labels] = found.get((one.name, one.labels), 0.0) + one.amount
    return [Tally(*key, amount) for key, amount in sorted(found.items())]


def of_receipt(receipt: Receipt) -> list[Tally]:
    """What an answer adds: itself by verdict and grade, joules by figure, grams, tokens and seconds."""
    energy, carbon = receipt.energy, receipt.carbon
    run = {"node": receipt.node, "model": receipt.model.name if receipt.model else NONE, "purpose": receipt.purpose}
    seen = run | {"scope": energy.scope or NONE, "method": _method(receipt), "verdict": receipt.verdict}
    found = [tally("joulebox_receipts_total", 1.0, **seen, grade=energy.answer.grade if energy.answer else NONE)]
    figures = {"answer": energy.answer, "active": energy.active, "tail": energy.tail, "full": energy.full}
    found += [tally("joulebox_energy_joules_total", one.j, **seen, figure=name) for name, one in figures.items() if one]
    grams = {"operational": carbon.operational, "embodied": carbon.embodied}
    zone = carbon.intensity.zone
    found += [
        tally("joulebox_co2e_grams_total", one.g, **run, zone=zone, part=part) for part, one in grams.items() if one
    ]
    return found + _tokens(receipt.usage, run) + _phases(receipt, run)


def _method(receipt: Receipt) -> str:
    if receipt.simulated:
        return "simulated"
    return {None: NONE, MODELLED: "modelled"}.get(receipt.energy.scope, "measured")


def _tokens(usage: Usage, run: dict[str, str]) -> list[Tally]:
    counts = {"input": usage.input_tokens, "output": usage.output_tokens}
    return [tally("joulebox_tokens_total", n, **run, direction=way) for way, n in counts.items() if n is not None]


def _phases(receipt: Receipt, run: dict[str, str]) -> list[Tally]:
    times = receipt.times
    lasted_s = {"queued": times.queued_s, "settle": times.settle_s, "load": times.load_s, "answer": times.duration_s}
    return [tally("joulebox_phase_seconds_total", one_s, **run, phase=phase) for phase, one_s in lasted_s.items()]


def of_attempt(node: str, state: AttemptState, *, again: bool) -> list[Tally]:
    """What an attempt's end adds; `again`: its prompt was rescued, and another attempt follows."""
    found = [tally("joulebox_attempts_total", 1.0, node=node, outcome=state)]
    return [*found, tally("joulebox_rescues_total", 1.0, node=node)] if again else found


def of_prompt(node: str | None, model: str, purpose: str, state: JobState) -> Tally:
    """What a prompt's end adds."""
    return tally("joulebox_prompts_total", 1.0, node=node or NONE, model=model, purpose=purpose, state=state)


def of_idle(before: NodeIdle | None, rows: Iterable[NodeIdle]) -> list[Tally]:
    """What newly told idle stretches add: `rows` are what is now kept, the first perhaps in place of `before`."""
    found: list[Tally] = []
    for row in rows:
        whole_s, drawn_j, labels = _drawn(row)
        if before is not None and before.start == row.start:
            known_s, known_j, _ = _drawn(before)
            whole_s, drawn_j = whole_s - known_s, drawn_j - known_j
        found.append(tally("joulebox_idle_joules_total", drawn_j, **labels))
        found.append(tally("joulebox_idle_seconds_total", whole_s, **labels))
    return found


def _drawn(row: NodeIdle) -> tuple[float, float, dict[str, str]]:
    """Seconds and joules of a row, and what they count for."""
    lasted_s = (row.until - row.start).total_seconds()
    drawn = idle_energy(row.counted, lasted_s, row.cores, row.memory_bytes)
    simulated = any(one.channel.simulated for one in row.counted)
    method = "simulated" if simulated else drawn.method
    return lasted_s, drawn.j, {"node": row.node, "scope": drawn.scope, "method": method, "loaded": LOADED[row.loaded]}
