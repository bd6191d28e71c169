"""Those who ask while `make chaos` breaks things: a few prompts wait at any time, each is watched to its end, and what
the server then hands out is kept to be compared with what it hands out at the very end."""

import hashlib
import json
import random
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from chaos_stage import Stage
from joulebox.accounting import receipt_bytes
from joulebox.bench.evidence import made_again
from joulebox.client import AWAY
from joulebox.errors import JouleboxError
from stage import wait

QUESTIONS = ("Name three fruits.", "What is water?", "Count to ten.", "Say hello in French.", "Why is the sky blue?")
LINE = 3
TOKENS = 12
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class End:
    """How a prompt ended: its status, what somebody saw who watched it, and what its evidence and receipt were then."""

    question: str
    prompt_id: str
    status: Json
    shown: str
    checksum: str | None


class Watch:
    """Keeps a few prompts in line, from a thread of its own, as long as the block lasts."""

    def __init__(self, stage: Stage, seed: int) -> None:
        self.stage = stage
        self._chance = random.Random(seed)
        self._asked: list[Future[End]] = []
        self._ids: list[str] = []
        self._pool = ThreadPoolExecutor(4 * LINE)
        self._enough = threading.Event()
        self._asking = threading.Thread(target=self._ask_on, daemon=True)
        self.broken: BaseException | None = None
        self.undisturbed: dict[str, str] = {}

    def begin(self) -> None:
        """Learn the undisturbed answers, then ask on and on."""
        for number, question in enumerate(QUESTIONS):
            end = self._ended(question, self.stage.ask(question, number + 1_000_000, max_tokens=TOKENS))
            self.undisturbed[question] = str(end.status["answer"])
        self._asking.start()

    def _ask_on(self) -> None:
        try:
            while not self._enough.is_set():
                if sum(not one.done() for one in self._asked) >= LINE:
                    self._enough.wait(0.05)
                    continue
                question = self._chance.choice(QUESTIONS)
                self._enough.wait(0.2)  # where a model is broken each prompt ends at once
                prompt_id = self.stage.ask(question, len(self._asked) + 1, max_tokens=TOKENS)
                self._ids.append(prompt_id)
                self._asked.append(self._pool.submit(self._ended, question, prompt_id))
        except BaseException as error:
            self.broken = error
            raise

    def done(self) -> int:
        """So many have ended."""
        return sum(one.done() for one in self._asked)

    def cancel(self) -> None:
        """A person cancels a prompt that runs, if one does."""
        for prompt_id, one in zip(self._ids, self._asked, strict=False):
            if not one.done() and self.stage.status(prompt_id)["state"] == "running":
                with suppress(JouleboxError):
                    self.stage.client.cancel(prompt_id)
                    return

    def _ended(self, question: str, prompt_id: str) -> End:
        stage = self.stage
        while not stage.watched.over:
            try:
                shown: list[str] = []
                for event in stage.client.events(prompt_id):
                    if event.name == "restarted":
                        shown.clear()
                    elif event.name == "token":
                        shown.append(event.data["text"])
                status = stage.status(prompt_id)
                checksum = _checksum(stage, status)
                return End(question, prompt_id, status, "".join(shown), checksum)
            except JouleboxError as error:
                if error.code not in AWAY:
                    raise
                wait(0.5)
        raise AssertionError(f"{prompt_id} never ended")

    def ends(self, limit_s: float) -> list[End]:
        """Ask no more; how each ended."""
        self._enough.set()
        self._asking.join(limit_s)
        if self.broken is not None:
            raise self.broken
        return [one.result(timeout=limit_s) for one in self._asked]


def _checksum(stage: Stage, status: Mapping[str, Any]) -> str | None:
    """Of all that a receipt was made of, of the receipt and of the answer."""
    receipt_id = status["receipt_id"]
    if receipt_id is None:
        return None
    evidence = stage.patiently(lambda: stage.client.evidence(receipt_id))
    receipt = stage.patiently(lambda: stage.client.receipt_bytes(receipt_id))
    kept = json.dumps([evidence, status["answer"]], sort_keys=True).encode()
    return hashlib.sha256(kept + receipt).hexdigest()


def wrongs(stage: Stage, ends: Sequence[End], undisturbed: Mapping[str, str], may_end: set[str]) -> list[str]:
    """What does not hold of how they ended, in words."""
    found = []
    for end in ends:
        now = stage.status(end.prompt_id)
        if now["state"] != end.status["state"]:
            found.append(f"{end.prompt_id}: {end.status['state']} became {now['state']}")
        elif now["state"] == "completed":
            found += _wrong_answer(stage, end, now, undisturbed[end.question])
        elif (code := _code(now)) not in may_end:
            found.append(f"{end.prompt_id}: ended as {now['state']}, {code}: {(now['error'] or {}).get('detail')}")
    twice = "SELECT job_id, count(*) FROM {} GROUP BY job_id HAVING count(*) != 1"
    for what in ("receipts", "attempts WHERE state = 'done'"):
        found += [f"{row[0]}: {row[1]} of {what}" for row in stage.query(twice.format(what))]
    open_ = "SELECT count(*) FROM {} WHERE state NOT IN ('{}')"
    for what, over in (("attempts", "done','lost','failed','cancelled"), ("jobs", "completed','discarded','cancelled")):
        left = stage.query(open_.format(what, over))[0][0]
        found += [f"{left} {what} never ended"] if left else []
    return found


def _wrong_answer(stage: Stage, end: End, now: Json, undisturbed: str) -> list[str]:
    found = []
    if now["answer"] != undisturbed:
        found.append(f"{end.prompt_id}: {now['answer']!r} instead of {undisturbed!r}, as undisturbed")
    if end.shown != now["answer"]:
        found.append(f"{end.prompt_id}: who watched saw {end.shown!r} instead of {now['answer']!r}")
    if now["receipt_id"] is None:
        return [*found, f"{end.prompt_id}: answered without a receipt: {now['error']}"]
    if _checksum(stage, now) != end.checksum:
        found.append(f"{end.prompt_id}: its evidence or receipt is not what it was")
    if not follows(stage.patiently(lambda: stage.client.evidence(now["receipt_id"])), stage, now["receipt_id"]):
        found.append(f"{end.prompt_id}: its receipt does not follow from its evidence")
    return found


def follows(evidence: Json, stage: Stage, receipt_id: str) -> bool:
    """Whether the receipt comes out of its evidence again, to the last bit."""
    kept: bytes = stage.patiently(lambda: stage.client.receipt_bytes(receipt_id))
    return receipt_bytes(made_again(evidence)) == kept


def _code(status: Mapping[str, Any]) -> str:
    return "cancelled" if status["state"] == "cancelled" else str((status["error"] or {}).get("code"))
