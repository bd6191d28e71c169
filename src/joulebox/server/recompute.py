"""A receipt made again of its evidence: the same bytes under the same method and factors, else a further revision.

Only the grid's intensity is looked up anew; embodied emissions, PUE and water stay those the receipt was made with.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, Literal, Protocol

from pydantic import TypeAdapter

from joulebox.accounting import METHOD_VERSION, account, receipt_bytes
from joulebox.errors import JouleboxError
from joulebox.evidence import decode_trace
from joulebox.model import CarbonFactors, DatedIntensity, Intensity, Placement
from joulebox.server.delivery import attempts_before, run_of
from joulebox.server.jobs import KeptReceipt, StoredReceipt

_FACTORS: Final = TypeAdapter(CarbonFactors)
_PLACEMENT: Final = TypeAdapter(Placement)

Choose = Callable[[str | None, datetime, datetime], Awaitable[Sequence[DatedIntensity]]]
"""The intensities of a zone from one moment to another, as they are known now."""
Wanted = Callable[[Sequence[Intensity], Sequence[Intensity]], bool]
"""Whether the second are to replace the first."""
Cause = Literal["method", "intensity", "evidence"]


class Books(Protocol):
    """What this needs of the store."""

    async def kept(self, receipt_id: str) -> KeptReceipt | None:
        """The newest revision of a receipt, with its evidence."""

    async def earlier(self, job_id: str, number: int) -> Sequence[tuple[int, bytes | None]]:
        """The attempts at a job before `number`, each with the evidence it left."""

    async def add_revision(self, receipt: StoredReceipt, now: datetime) -> bool:
        """Keep a further revision; `False` where somebody else has just made it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recomputed:
    """What came of it. `identical`: with the factors it was made with, its evidence gave the same bytes to the last.

    `changed` says why there is a further revision: another `method`, another `intensity`, or `evidence` where method
    and factors are the same and the figures still are not; empty where there is none. `carbon` and `carbon_before` are
    those of the receipt.
    """

    id: str
    revision: int
    identical: bool
    changed: tuple[Cause, ...]
    method_version: str
    carbon: dict[str, Any]
    carbon_before: dict[str, Any]


def anything_new(before: Sequence[Intensity], now: Sequence[Intensity]) -> bool:
    """Whatever differs replaces what was."""
    return list(before) != list(now)


async def recompute(
    books: Books, choose: Choose, receipt_id: str, now: datetime, wanted: Wanted = anything_new
) -> Recomputed:
    """Make a receipt again; earlier revisions are kept.

    Raises `JouleboxError("not_found")`, and `bad_evidence` where what is kept gives no receipt any more.
    """
    kept = await books.kept(receipt_id)
    if kept is None:
        raise JouleboxError("not_found", f"There is no receipt {receipt_id}.")
    earlier = await books.earlier(kept.job_id, kept.attempt)
    run = await asyncio.to_thread(_Run, kept, earlier)
    found = await choose(run.trace.zone, *run_of(run.trace))
    made, outcome = await asyncio.to_thread(run.again, found, wanted)
    if made is not None:
        await books.add_revision(made, now)
    return outcome


class _Run:
    """What a receipt was made of."""

    def __init__(self, kept: KeptReceipt, earlier: Sequence[tuple[int, bytes | None]]) -> None:
        self.kept = kept
        try:
            self.trace = decode_trace(kept.trace)
            self.earlier = attempts_before(earlier)
            self.factors = _FACTORS.validate_python(kept.receipt.factors)
            self.before = json.loads(kept.receipt.body)
            self.placement = _PLACEMENT.validate_python(self.before["placement"])
        except ValueError as error:
            sentence = f"Receipt {kept.receipt.id} cannot be made again: what is kept of it cannot be read: {error}."
            raise JouleboxError("bad_evidence", sentence) from error

    def again(self, found: Sequence[DatedIntensity], wanted: Wanted) -> tuple[StoredReceipt | None, Recomputed]:
        """The further revision, `None` where nothing differs, and what came of it."""
        old = self.kept.receipt
        identical = self._bytes(self.factors, old.revision) == old.body
        before = [self.factors.intensity, *(one.intensity for one in self.factors.later)]
        better = wanted(before, [one.intensity for one in found])
        changed: list[Cause] = ["intensity"] if better else []
        if not identical:
            changed.insert(0, "method" if self.before["method_version"] != METHOD_VERSION else "evidence")
        if not changed:
            return None, self._outcome(old, identical, ())
        factors = (
            replace(self.factors, intensity=found[0].intensity, later=tuple(found[1:])) if better else self.factors
        )
        revision = old.revision + 1
        body = self._bytes(factors, revision)
        made = StoredReceipt(
            id=old.id, factors=_FACTORS.dump_python(factors, mode="json"), body=body, revision=revision
        )
        return made, self._outcome(made, identical, tuple(changed))

    def _bytes(self, factors: CarbonFactors, revision: int) -> bytes:
        receipt = account(
            self.trace,
            factors,
            receipt_id=self.kept.receipt.id,
            placement=self.placement,
            revision=revision,
            earlier=self.earlier,
        )
        return receipt_bytes(receipt)

    def _outcome(self, made: StoredReceipt, identical: bool, changed: tuple[Cause, ...]) -> Recomputed:
        now = json.loads(made.body)
        return Recomputed(
            id=made.id,
            revision=made.revision,
            identical=identical,
            changed=changed,
            method_version=now["method_version"],
            carbon=now["carbon"],
            carbon_before=self.before["carbon"],
        )
