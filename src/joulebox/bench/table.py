"""What a campaign came to: a cell for each node, model and category, each figure with its interval. Pure.

A prompt's answers are one thing: their mean counts once, whatever was repeated. What is missing is counted with its
reason and never averaged; a cell of fewer than `prompts_min` prompts has no figures.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import fsum
from statistics import fmean, median
from typing import Any, Final

from joulebox.accounting.attempts import spent_before
from joulebox.bench.evidence import earlier_of
from joulebox.bench.record import Answered, Header, Key, Record
from joulebox.bench.task import Score
from joulebox.statistics import Interval
from joulebox.statistics.clustered import PROMPTS_MIN, Part, ratio_of_sums, variation
from joulebox.statistics.comparing import RISK, Compared, cheapest, compare, holm, paired
from joulebox.statistics.distributions import wilson

ALL: Final = "all"
"""The column of all categories together."""
Prompts = Mapping[str, Sequence[Answered]]
"""Answers that count, by prompt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A model in a category on a node. `asked` prompts were to be asked, `n` have a measured answer; `missing` says why
    the others have none. A figure is `None` where it stands on too few. `right` counts prompts (parts of one where
    repeats differ) of `judged`; `best`: takes least, told so with 5 % risk for the whole table."""

    node: str
    model: str
    category: str
    asked: int
    n: int
    answers: int
    missing: tuple[tuple[str, int], ...]
    answer_j: Interval | None = None
    token_j: Interval | None = None
    right_j: Interval | None = None
    sci_g: Interval | None = None
    accuracy: Interval | None = None
    right: float = 0.0
    judged: int = 0
    output_tokens: float | None = None
    truncated: int = 0
    refused: int = 0
    suspect: int = 0
    repeat_cv: float | None = None
    best: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """How many times as much `one` takes as `other` for the same prompts, of the same node: an answer, its tokens, and
    a token. The first is the product of the other two."""

    node: str
    category: str
    one: str
    other: str
    answer: Compared
    tokens: Compared | None
    token: Compared | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Apart:
    """What the campaign drew beside the answers of the table, as far as it is known: attempts that were aborted,
    answers whose receipt was invalid, warm-ups. `unknown`: aborted attempts that left no evidence."""

    aborted: int
    aborted_j: float
    unknown: int
    discarded: int
    discarded_j: float
    warm_ups: int
    warm_ups_j: float
    failures: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A whole campaign."""

    header: Header
    nodes: tuple[str, ...]
    models: tuple[str, ...]
    categories: tuple[str, ...]
    cells: tuple[Cell, ...]
    pairs: tuple[Pair, ...]
    apart: Apart
    meter_u_ratio: float | None
    repeat_cv: Mapping[str, tuple[float, int]]
    known_by: str
    """How the joules are known: modelled, simulated, and by which grades."""

    def cell(self, node: str, model: str, category: str) -> Cell | None:
        """The cell of that place."""
        at = (node, model, category)
        return next((one for one in self.cells if (one.node, one.model, one.category) == at), None)


def table_of(record: Record, prompts_min: int = PROMPTS_MIN, *, strict: bool = False) -> Table:
    """The table of a campaign. `strict`: answers with a suspect receipt are missing too."""
    used = [one for one in record.answers.values() if _figure_j(one) is not None and not (strict and _suspect(one))]
    nodes = tuple(dict.fromkeys(one.receipt["node"] for one in record.answers.values()))
    models = tuple(model.id for model in record.models)
    categories = tuple(ref.category for ref in record.header.tasks)
    groups = {
        (node, model, category): _by_prompt(
            one for one in used if (one.receipt["node"], one.model, one.category) == (node, model, category)
        )
        for node in nodes
        for model in models
        for category in categories
    }
    marks = _marks(groups, nodes, models, categories, prompts_min)
    cells = []
    for node in nodes:
        for model in models:
            own = [groups[node, model, category] for category in categories]
            for category, prompts in zip(categories, own, strict=True):
                asked, missing = _missing(record, node, model, category, prompts, strict=strict)
                best = marks.get((node, category)) == model
                at = (node, model, category)
                cells.append(_cell(record, at, prompts, asked, missing, prompts_min, best=best))
            if len(categories) > 1 and all(len(prompts) >= prompts_min for prompts in own):
                every = {sample: answers for prompts in own for sample, answers in prompts.items()}
                asked = sum(cell.asked for cell in cells[-len(categories) :])
                missing = _added(cell.missing for cell in cells[-len(categories) :])
                cells.append(_cell(record, (node, model, ALL), every, asked, missing, prompts_min, best=False))
    return Table(
        header=record.header,
        nodes=nodes,
        models=models,
        categories=categories,
        cells=tuple(cells),
        pairs=tuple(_pairs(groups, nodes, models, categories)),
        apart=_apart(record),
        meter_u_ratio=_meter_u_ratio(used),
        repeat_cv={node: cv for node in nodes if (cv := _repeat_cv(groups, node)) is not None},
        known_by=_known_by([one.receipt for one in used]),
    )


def _known_by(receipts: Sequence[Mapping[str, Any]]) -> str:
    grades = sorted({one["energy"]["answer"]["grade"] for one in receipts})
    words = ["simulated"] if any(one["simulated"] for one in receipts) else []
    words += ["modelled"] if any(one["energy"]["scope"] == "modelled" for one in receipts) else []
    return ", ".join([*words, f"grade {' and '.join(grades)}"]) if receipts else "nothing measured"


# --- one cell ---------------------------------------------------------------------------------------------------------


def _cell(
    record: Record,
    at: tuple[str, str, str],
    prompts: Prompts,
    asked: int,
    missing: tuple[tuple[str, int], ...],
    prompts_min: int,
    *,
    best: bool,
) -> Cell:
    node, model, category = at
    answers = [one for each in prompts.values() for one in each]
    bare = Cell(
        node=node, model=model, category=category, asked=asked, n=len(prompts), answers=len(answers), missing=missing
    )
    if len(prompts) < max(prompts_min, 1):
        return bare
    scores = {sample: _scores(record, each) for sample, each in prompts.items()}
    judged = {sample: each for sample, each in scores.items() if each}
    right = {sample: fmean(score.correct for score in each) for sample, each in judged.items()}
    marks = Counter(score.mark for each in judged.values() for score in each)
    tokens = [count for one in answers if (count := _tokens(one)) is not None]
    cv = variation([[_j(one) for one in each] for each in prompts.values()])
    return Cell(
        node=node,
        model=model,
        category=category,
        asked=asked,
        n=len(prompts),
        answers=len(answers),
        missing=missing,
        answer_j=_ratio(prompts, _j, lambda _: 1.0),
        token_j=_ratio(prompts, _j, lambda one: float(_tokens(one) or 0)) if len(tokens) == len(answers) else None,
        right_j=ratio_of_sums([Part(fmean(map(_j, prompts[sample])), share) for sample, share in right.items()]),
        sci_g=_ratio(prompts, lambda one: _sci_g(one) or 0.0, lambda _: 1.0)
        if None not in map(_sci_g, answers)
        else None,
        accuracy=wilson(fsum(right.values()), len(right)) if len(right) >= prompts_min else None,
        right=fsum(right.values()),
        judged=len(right),
        output_tokens=fmean(tokens) if tokens else None,
        truncated=marks["truncated"],
        refused=marks["refused"],
        suspect=sum(map(_suspect, answers)),
        repeat_cv=cv[0] if cv is not None else None,
        best=best,
    )


def _ratio(prompts: Prompts, above: Callable[[Answered], float], below: Callable[[Answered], float]) -> Interval | None:
    """Each prompt counts once: as the mean of its repeats."""
    return ratio_of_sums([Part(fmean(map(above, each)), fmean(map(below, each))) for each in prompts.values()])


def _missing(
    record: Record, node: str, model: str, category: str, prompts: Prompts, *, strict: bool
) -> tuple[int, tuple[tuple[str, int], ...]]:
    """How many prompts were to be asked, and why some have no figure here."""
    header = record.header
    ref = next(one for one in header.tasks if one.category == category)
    asked = min(ref.samples, header.limit or ref.samples)
    why: Counter[str] = Counter()
    seen = {key.sample for key in (*record.answers, *record.failures) if (key.model, key.category) == (model, category)}
    seen |= {one.sample for one in record.discarded if (one.model, one.category) == (model, category)}
    for sample in seen - set(prompts):
        why[_why(record, Key(model, category, sample, 0), node, strict=strict)] += 1
    if len(seen) < asked:
        why["rested" if header.until_separated else "not asked"] += asked - len(seen)
    return asked, tuple(sorted(why.items()))


def _why(record: Record, key: Key, node: str, *, strict: bool) -> str:
    answer = record.answers.get(key)
    if answer is not None:
        if answer.receipt["node"] != node:
            return "on another node"
        return "suspect" if strict and _suspect(answer) else "not measured"
    return "invalid" if any(one.key == key for one in record.discarded) else "failed"


def _added(counts: Iterable[tuple[tuple[str, int], ...]]) -> tuple[tuple[str, int], ...]:
    total: Counter[str] = Counter()
    for each in counts:
        total.update(dict(each))
    return tuple(sorted(total.items()))


# --- models side by side ----------------------------------------------------------------------------------------------

Groups = Mapping[tuple[str, str, str], Prompts]


def _means(prompts: Prompts) -> dict[str, float]:
    return {sample: fmean(map(_j, each)) for sample, each in prompts.items()}


def _marks(
    groups: Groups, nodes: Sequence[str], models: Sequence[str], categories: Sequence[str], prompts_min: int
) -> dict[tuple[str, str], str]:
    """Which model takes least in each category of each node, where that is sure for the whole table together."""
    found = {}
    for node in nodes:
        for category in categories:
            figures = {model: _means(groups[node, model, category]) for model in models}
            figures = {model: each for model, each in figures.items() if len(each) >= prompts_min}
            if (first := cheapest(figures)) is not None:
                found[node, category] = first
    sure = holm({at: chance for at, (_, chance) in found.items()})
    return {at: model for at, (model, _) in found.items() if sure[at] < RISK}


def _pairs(groups: Groups, nodes: Sequence[str], models: Sequence[str], categories: Sequence[str]) -> Iterable[Pair]:
    for node in nodes:
        for category in categories:
            for at, one in enumerate(models):
                for other in models[at + 1 :]:
                    pair = _pair(groups[node, one, category], groups[node, other, category])
                    if pair is not None:
                        yield Pair(node=node, category=category, one=one, other=other, **pair)


def _pair(one: Prompts, other: Prompts) -> dict[str, Any] | None:
    both = paired(_means(one), _means(other))
    if len(both) < PROMPTS_MIN:
        return None
    lengths = paired(_lengths(one), _lengths(other))
    each = paired(_token_means(one), _token_means(other))
    told = len(lengths) == len(each) == len(both)
    return {
        "answer": compare(both),
        "tokens": compare(lengths) if told else None,
        "token": compare(each) if told else None,
    }


def _lengths(prompts: Prompts) -> dict[str, float]:
    found = {sample: [_tokens(one) for one in each] for sample, each in prompts.items()}
    known = {sample: [one for one in each if one is not None] for sample, each in found.items()}
    means = {sample: fmean(each) for sample, each in known.items() if len(each) == len(found[sample])}
    return {sample: length for sample, length in means.items() if length > 0}


def _token_means(prompts: Prompts) -> dict[str, float]:
    lengths, means = _lengths(prompts), _means(prompts)
    return {sample: means[sample] / length for sample, length in lengths.items()}


def _repeat_cv(groups: Groups, node: str) -> tuple[float, int] | None:
    prompts = [each for (where, _, _), group in groups.items() if where == node for each in group.values()]
    return variation([[_j(one) for one in each] for each in prompts])


# --- what was drawn beside it -----------------------------------------------------------------------------------------


def _apart(record: Record) -> Apart:
    answers = [*record.answers.values(), *record.discarded]
    spent = [spent_before(earlier_of(one.evidence), one.receipt["energy"]["scope"]) for one in answers]
    warm = [one.evidence["receipt"] for one in record.warm_ups if one.evidence is not None]
    return Apart(
        aborted=sum(len(one.known) + len(one.unknown) for one in spent),
        aborted_j=fsum(one.j for one in spent),
        unknown=sum(len(one.unknown) for one in spent),
        discarded=len(record.discarded),
        discarded_j=fsum(_full_j(one.receipt) for one in record.discarded),
        warm_ups=len(record.warm_ups),
        warm_ups_j=fsum(map(_full_j, warm)),
        failures=sum(map(len, record.failures.values())),
    )


def _full_j(receipt: Mapping[str, Any]) -> float:
    figure = receipt["energy"]["full"]
    return float(figure["j"]) if figure is not None else 0.0


# --- one answer -------------------------------------------------------------------------------------------------------


def _by_prompt(answers: Iterable[Answered]) -> dict[str, list[Answered]]:
    found: dict[str, list[Answered]] = {}
    for one in answers:
        found.setdefault(one.sample, []).append(one)
    return {sample: sorted(found[sample], key=lambda one: one.repeat) for sample in sorted(found)}


def _scores(record: Record, answers: Sequence[Answered]) -> list[Score]:
    scores = [record.scores[one.key].score for one in answers if one.key in record.scores]
    return [score for score in scores if score.mark != "unscored"]


def _figure_j(answer: Answered) -> float | None:
    figure = answer.receipt["energy"]["answer"]
    return float(figure["j"]) if figure is not None and figure["j"] > 0 else None


def _j(answer: Answered) -> float:
    return _figure_j(answer) or 0.0


def _sci_g(answer: Answered) -> float | None:
    found: float | None = answer.receipt["sci"]["answer"]["per_answer_g"]
    return found


def _tokens(answer: Answered) -> int | None:
    count: int | None = answer.receipt["usage"]["output_tokens"]
    return count


def _suspect(answer: Answered) -> bool:
    return bool(answer.receipt["verdict"] == "suspect")


def _meter_u_ratio(answers: Sequence[Answered]) -> float | None:
    """What a receipt's own interval is of its figure, in the middle: it comes on top of the cells' intervals."""
    shares = [one.receipt["energy"]["answer"]["u"] / _j(one) for one in answers]
    return median(shares) if shares else None
