"""In which order a campaign asks: seeded, so that going on later asks what is left in the very same order. Pure.

All models are asked the same prompts. Each has its turn of a few prompts, then the next, so that whatever changes
slowly (warmth, the grid, other work) touches all alike, and a model is not loaded anew for each prompt. Prompts,
categories and models come in an order that the seed alone decides.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from joulebox.bench.record import Header, Key, Record
from joulebox.statistics.comparing import Looks, paired


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """A block of prompts of one category for one model. `block` counts from 0."""

    model: str
    category: str
    block: int
    keys: tuple[Key, ...]


def shuffled(names: Sequence[str], *seed: object) -> list[str]:
    """The names in an order that only they and the seed decide."""
    return sorted(names, key=lambda name: hashlib.sha256("\0".join([*map(str, seed), name]).encode()).digest())


def turns(header: Header, samples: Mapping[str, Sequence[str]], models: Sequence[str]) -> Iterator[Turn]:
    """Every turn of a campaign; `samples` are the prompts' ids by category. The model that was last begins the next
    round: it is loaded."""
    last: str | None = None
    orders = {category: ordered(header, category, ids) for category, ids in samples.items()}
    for repeat in range(header.repeats):
        for block in range(looks(header, max(map(len, orders.values()), default=0))):
            for category in shuffled(list(orders), header.seed, repeat, block):
                chosen = orders[category][block * header.block : (block + 1) * header.block]
                order = shuffled(models, header.seed, repeat, block, category)
                for model in sorted(order, key=lambda each: each != last) if chosen else ():
                    last = model
                    keys = tuple(Key(model, category, sample, repeat) for sample in chosen)
                    yield Turn(model=model, category=category, block=block, keys=keys)


def ordered(header: Header, category: str, ids: Sequence[str]) -> list[str]:
    """The prompts of a category that a campaign asks, in its order."""
    return shuffled(ids, header.seed, category)[: header.limit]


def looks(header: Header, prompts: int) -> int:
    """How many blocks so many prompts make, and so how often their comparison is looked at."""
    return -(-prompts // header.block)


def energy_j(record: Record, key: Key) -> float | None:
    """What an answer that counts took; `None` where there is none or it was not measured."""
    answer = record.answers.get(key)
    figure = answer.receipt["energy"]["answer"] if answer is not None else None
    return float(figure["j"]) if figure is not None and figure["j"] > 0 else None


def rests(record: Record, samples: Mapping[str, Sequence[str]], models: Sequence[str], turn: Turn) -> bool:
    """Whether a model has been told apart from all others in this category by the blocks before this one."""
    header = record.header
    order = ordered(header, turn.category, samples[turn.category])
    rule = Looks(models=len(models), looks=looks(header, len(order)), precision=header.precision)
    figures = {model: _by_sample(record, model, turn.category, order) for model in models}
    others = [model for model in models if model != turn.model]
    return bool(others) and all(
        _decided(rule, header.block, order[: turn.block * header.block], figures[turn.model], figures[other])
        for other in others
    )


def _decided(
    rule: Looks, block: int, order: Sequence[str], one: Mapping[str, float], other: Mapping[str, float]
) -> bool:
    """Whether any look so far decided; what was decided once stays so."""
    for end in range(block, len(order) + 1, block):
        seen = set(order[:end])
        found = rule.at(paired({sample: j for sample, j in one.items() if sample in seen}, other))
        if found is not None and found.side != "open":
            return True
    return False


def _by_sample(record: Record, model: str, category: str, order: Sequence[str]) -> dict[str, float]:
    found = {sample: energy_j(record, Key(model, category, sample, 0)) for sample in order}
    return {sample: j for sample, j in found.items() if j is not None}
