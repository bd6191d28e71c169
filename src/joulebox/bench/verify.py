"""Is a campaign what it says? Every receipt made again of its evidence, every answer scored again, by another
installation perhaps, with another method or other factors."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from joulebox.accounting import METHOD_VERSION, receipt_bytes
from joulebox.bench.evidence import made_again
from joulebox.bench.record import Answered, Record
from joulebox.bench.runner import scored
from joulebox.bench.suite import by_id
from joulebox.bench.task import Task
from joulebox.model import Receipt

TOLD: Final = 5
"""So many of the differences are told one by one."""
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """What came of it. `identical` receipts were made again to the last digit, `other_method` ones differ because the
    method is another, `wrong` ones although it is the same; `unreadable` ones could not be made. `differences` says
    which and how."""

    answers: int
    identical: int
    other_method: int
    wrong: int
    unreadable: int
    scores: int
    scores_differ: int
    unscored: int
    ratio: float | None
    differences: tuple[str, ...]

    @property
    def sound(self) -> bool:
        """Whether nothing speaks against the campaign."""
        return not (self.wrong or self.unreadable or self.scores_differ)


def verify(record: Record, tasks: Sequence[Task], say: Say) -> tuple[Verified, Record]:
    """Check a campaign; with it, the same campaign as this installation accounts and scores it."""
    samples, again = by_id(tasks), Record(record.header)
    again.sittings, again.warm_ups, again.failures = record.sittings, record.warm_ups, record.failures
    told: dict[str, list[str]] = {"identical": [], "other_method": [], "wrong": [], "unreadable": [], "scores": []}
    scores = 0
    for number, answer in enumerate((*record.answers.values(), *record.discarded), 1):
        say(f"checking {number} of {len(record.answers) + len(record.discarded)}")
        kind, sentence, made = _checked(answer)
        told[kind].append(f"{answer.model} {answer.sample}: {sentence}")
        again.take(made)
        if not answer.counts:
            continue
        now, before = scored(answer, samples), record.scores.get(answer.key)
        again.take(now)
        if before is not None and now.mark != "unscored":
            scores += 1
            if now != before:
                told["scores"].append(f"{answer.model} {answer.sample}: scored {now.mark}, was {before.mark}")
    kinds = ("wrong", "unreadable", "other_method", "scores")
    verified = Verified(
        answers=len(record.answers) + len(record.discarded),
        identical=len(told["identical"]),
        other_method=len(told["other_method"]),
        wrong=len(told["wrong"]),
        unreadable=len(told["unreadable"]),
        scores=scores,
        scores_differ=len(told["scores"]),
        unscored=len(record.answers) - len(record.scores),
        ratio=_ratio(record, again),
        differences=tuple(one for kind in kinds for one in told[kind][:TOLD]),
    )
    return verified, again


def _checked(answer: Answered) -> tuple[str, str, Answered]:
    """What came of making its receipt again, in a word and a sentence, and the answer with the receipt of now."""
    before = answer.receipt
    try:
        made = _plain(made_again(answer.evidence))
    except (ValueError, KeyError, TypeError) as error:
        return "unreadable", f"its evidence cannot be read ({type(error).__name__})", answer
    now = replace(answer, evidence=answer.evidence | {"receipt": made})
    if made == before:
        return "identical", "", answer
    if before["method_version"] != METHOD_VERSION:
        return "other_method", f"method {METHOD_VERSION} now, {before['method_version']} then", now
    names = [name for name in made if made[name] != before.get(name)]
    return "wrong", f"{', '.join(names)} do not follow from the evidence", now


def _plain(receipt: Receipt) -> dict[str, Any]:
    """As JSON reads it back."""
    made: dict[str, Any] = json.loads(receipt_bytes(receipt))
    return made


def _ratio(record: Record, again: Record) -> float | None:
    """All joules of the answers that count as accounted now, to those then."""
    sums = [
        sum(figure["j"] for one in each.answers.values() if (figure := one.receipt["energy"]["answer"]))
        for each in (record, again)
    ]
    return sums[1] / sums[0] if sums[0] else None


def as_data(verified: Verified) -> Mapping[str, Any]:
    """For programs."""
    return asdict(verified) | {"sound": verified.sound, "method_version": METHOD_VERSION}


def as_lines(verified: Verified) -> list[str]:
    """For people."""
    lines = [f"{verified.identical} of {verified.answers} receipts follow from their evidence to the last digit."]
    if verified.other_method:
        by = f", in all {verified.ratio:.4f} times the joules" if verified.ratio is not None else ""
        lines.append(f"{verified.other_method} were made by another method than {METHOD_VERSION} here{by}.")
    if verified.wrong:
        lines.append(f"{verified.wrong} do not follow from their evidence: they were changed, or made otherwise.")
    if verified.unreadable:
        lines.append(f"{verified.unreadable} cannot be made again: their evidence cannot be read.")
    lines.append(f"{verified.scores - verified.scores_differ} of {verified.scores} scores are the same again.")
    if verified.unscored:
        lines.append(f"{verified.unscored} answers have no score yet.")
    return [*lines, *(f"  {one}" for one in verified.differences)]
