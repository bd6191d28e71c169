"""A receipt's evidence as a campaign keeps it, and the receipt made of it again."""

from collections.abc import Mapping
from typing import Any, Final

from pydantic import TypeAdapter

from joulebox.accounting import account
from joulebox.evidence import decode_trace
from joulebox.model import CarbonFactors, EarlierAttempt, Placement, Receipt
from joulebox.protocol import unpack_trace

_FACTORS: Final = TypeAdapter(CarbonFactors)
_PLACEMENT: Final = TypeAdapter(Placement)


def earlier_of(evidence: Mapping[str, Any]) -> tuple[EarlierAttempt, ...]:
    """The attempts before the one that answered. Raises `ValueError`."""
    return tuple(
        EarlierAttempt(
            number=one["number"],
            trace=decode_trace(unpack_trace(one["trace"])) if one["trace"] is not None else None,
        )
        for one in evidence["earlier"]
    )


def made_again(evidence: Mapping[str, Any], factors: CarbonFactors | None = None) -> Receipt:
    """The receipt by the method of this installation, with its own factors or others. Raises `ValueError`."""
    before = evidence["receipt"]
    return account(
        decode_trace(unpack_trace(evidence["trace"])),
        factors or _FACTORS.validate_python(evidence["factors"]),
        receipt_id=before["id"],
        placement=_PLACEMENT.validate_python(before["placement"]),
        revision=before["revision"],
        earlier=earlier_of(evidence),
    )
