"""Who is next, in memory at full size: the order of the line by itself, without server or database, beside the order of
asking. The order is the one the queue keeps: class, then turn (how many of the same asker wait before), then number."""

import heapq
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from joulebox.server.jobs import LONGEST_EVERY


@dataclass(frozen=True, slots=True)
class Asked:
    """A waiting prompt."""

    number: int
    rank: int
    turn: int
    asker: str


@dataclass(frozen=True, slots=True)
class Fairness:
    """How a line was served over its first claims: Jain's index of what each asker got (1: all the same), and how many
    claims went before the first answer of an asker, in the median and at worst."""

    jain: float
    first_claim: float
    worst_first_claim: int


def served(
    line: Sequence[Asked], claims: int, key: Callable[[Asked], tuple[int, ...]], *, longest: bool
) -> list[Asked]:
    """The first so many that are taken; with `longest`, one in `LONGEST_EVERY` is whoever has waited longest."""
    heap = [(key(one), one.number) for one in line]
    heapq.heapify(heap)
    by_number = {one.number: one for one in line}
    oldest = iter(sorted(by_number))
    taken: dict[int, Asked] = {}
    for claim in range(min(claims, len(line))):
        if longest and claim % LONGEST_EVERY == LONGEST_EVERY - 1:
            number = next(number for number in oldest if number not in taken)
        else:
            number = heapq.heappop(heap)[1]
            while number in taken:
                number = heapq.heappop(heap)[1]
        taken[number] = by_number[number]
    return list(taken.values())


def fairness(line: Sequence[Asked], order: Sequence[Asked]) -> Fairness:
    """What the askers of a line got of these claims; one who got nothing waits at least as long as all of them."""
    got: dict[str, int] = dict.fromkeys((one.asker for one in line), 0)
    first: dict[str, int] = defaultdict(lambda: len(order))
    for claim, one in enumerate(order):
        got[one.asker] += 1
        first.setdefault(one.asker, claim)
    counts = list(got.values())
    jain = sum(counts) ** 2 / (len(counts) * sum(count * count for count in counts))
    firsts = [first[asker] for asker in got]
    return Fairness(jain, median(firsts), max(firsts))


def of_the_line(one: Asked) -> tuple[int, ...]:
    """The order the queue keeps."""
    return one.rank, one.turn, one.number


def of_asking(one: Asked) -> tuple[int, ...]:
    """First come, first served."""
    return (one.number,)
