"""Conversations: a prompt that goes on where another one ended, and what all of its turns took together. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Final

from joulebox.errors import JouleboxError
from joulebox.model import Job, JobState, Message, Prompt
from joulebox.server.jobs import PastRun, Record, check_says

TURNS_MAX: Final = 50
"""A conversation has so many turns at most."""
FEW: Final = 20
"""What the next answer is expected to take is told by so many of the newest."""


def continued(earlier: Record, prompt: Prompt) -> Prompt:
    """The prompt with everything that was said before it. Raises `JouleboxError("bad_request")` where there is nothing
    to go on from, `empty_prompt` where it says nothing itself."""
    check_says(prompt)
    gone = earlier.erased or any(turn.role == "user" and not turn.content for turn in earlier.job.prompt.messages)
    if earlier.job.state is not JobState.COMPLETED or earlier.job.answer is None or gone:
        sentence = f"The prompt {earlier.job.id} has no answer to go on from: ask without it."
        raise JouleboxError("bad_request", sentence)
    said = (*earlier.job.prompt.messages, _said(earlier.job))
    own = [turn for turn in prompt.messages if turn.role == "system"]
    if own:
        said = tuple(turn for turn in said if turn.role != "system")
    asked = tuple(turn for turn in prompt.messages if turn.role != "system")
    return replace(prompt, messages=(*own, *said, *asked))


def _said(job: Job) -> Message:
    return Message(role="assistant", content=job.answer or "", tool_calls=job.tool_calls)


def without_earlier(prompt: Prompt) -> Prompt:
    """The prompt with nothing left of what was said before its last question, but that it was said."""
    asked = max((at for at, turn in enumerate(prompt.messages) if turn.role == "user"), default=0)
    gone = tuple(replace(turn, content="", tool_calls=()) for turn in prompt.messages[:asked])
    return replace(prompt, messages=gone + prompt.messages[asked:])


@dataclass(frozen=True, slots=True, kw_only=True)
class Talk:
    """What a conversation took: joules of its answers (`u` as if all erred the same way), and how many of them went
    into reading again what had been said before. `None`: not known; `unknown` answers are in neither."""

    answers: int
    unknown: int
    j: float | None
    u: float | None
    again_j: float | None
    modelled: bool
    simulated: bool


def talk(receipts: Sequence[Mapping[str, Any] | None]) -> Talk:
    """The turns of a conversation together, in their order."""
    known = [one for one in receipts if one is not None and one["energy"]["answer"] is not None]
    again = [_again_j(one, before) for before, one in pairwise(receipts)]
    counted = [one for one in again if one is not None]
    return Talk(
        answers=len(receipts),
        unknown=len(receipts) - len(known),
        j=sum(one["energy"]["answer"]["j"] for one in known) if known else None,
        u=sum(one["energy"]["answer"]["u"] for one in known) if known else None,
        again_j=sum(counted) if counted and len(counted) == len(again) else None,
        modelled=any(one["energy"]["scope"] == "modelled" for one in known),
        simulated=any(one["simulated"] for one in known),
    )


def _again_j(receipt: Mapping[str, Any] | None, before: Mapping[str, Any] | None) -> float | None:
    """The share of reading that went into what was said before: by tokens, those from the engine's cache left out."""
    if receipt is None or before is None:
        return None
    read_j = (receipt["energy"]["phases"].get("prefill") or {}).get("j")
    tokens, earlier = receipt["usage"], before["usage"]
    said = [earlier["input_tokens"], earlier["output_tokens"], tokens["input_tokens"]]
    if read_j is None or None in said or not tokens["input_tokens"]:
        return None
    cached = tokens["cached_tokens"] or 0
    fresh = tokens["input_tokens"] - cached
    history = min(said[0] + said[1], tokens["input_tokens"]) - cached
    return float(read_j * min(max(history, 0) / fresh, 1.0)) if fresh > 0 else 0.0


def expected(runs: Sequence[PastRun]) -> dict[str, Any] | None:
    """The energy of a model's newest answers on one node, oldest first; `None` where none is known. Of an only
    answer there is no range, but its own uncertainty `u_j`."""
    known = [run for run in runs if run.answer_j is not None and run.scope == runs[-1].scope][-FEW:]
    if not known:
        return None
    joules = sorted(run.answer_j for run in known if run.answer_j is not None)
    return {
        "answers": len(joules),
        "low_j": joules[0],
        "median_j": joules[len(joules) // 2],
        "high_j": joules[-1],
        "u_j": known[0].answer_u if len(known) == 1 else None,
        "grade": max((run.grade for run in known if run.grade), default=None),
        "modelled": known[-1].scope == "modelled",
        "simulated": any(run.simulated for run in known),
    }
