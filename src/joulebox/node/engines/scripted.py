"""An engine that plays a known answer at known times on the clock it is handed: the same prompt, the same answer.

On a `SimulatedClock` a five-second answer takes microseconds. What the engine is doing is told to `activity`, so that
the rig's physics can follow it. It ships beside the real engine and keeps the same contract, failures included.
"""

import hashlib
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

from joulebox.clock import Clock
from joulebox.errors import JouleboxError
from joulebox.model import EngineInfo, Prompt, Usage
from joulebox.node.engine import Event, Finished, LocalModel, Started, Token
from joulebox.node.models import check_memory
from joulebox.units import nanoseconds, seconds

Activity = Callable[[int, float], None]
"""Told at each change: the monotonic time in ns and how busy the machine is from then on, 0 to 1."""

CANCEL_LOOK_S: Final = 0.05
_WORDS: Final = re.findall(
    r"\w+",
    "the a of one it is and water light stone river morning small machine quiet warm seven counts answer because every "
    "there between power copper slowly open north leaf thinks over number begins",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """How an answer goes. Times in seconds, levels from 0 (idle) to 1 (all the machine has).

    `tokens` of `None`: 8 to 48, as prompt and seed decide. `die_after_tokens`: the engine dies when so many tokens are
    out (0: in the prefill). `broken`: loading fails.
    """

    load_s: float = 0.5
    prefill_s: float = 0.3
    token_s: float = 0.02
    tokens: int | None = None
    load_level: float = 0.4
    prefill_level: float = 1.0
    decode_level: float = 0.7
    die_after_tokens: int | None = None
    broken: bool = False


class Scripted:
    """The engine of the rig and of tests. `script` may be exchanged between two answers.

    A token of the prompt is a word or a sign. `context_tokens` limits prompt and answer together, as in a real engine.
    """

    takes_tools = False

    def __init__(
        self, clock: Clock, script: Script | None = None, activity: Activity | None = None, context_tokens: int = 4096
    ) -> None:
        self.info = EngineInfo(name="scripted", version="1")
        self.script = script or Script()
        self._clock = clock
        self._activity = activity
        self._context_tokens = context_tokens
        self._loaded: LocalModel | None = None
        self._cancelled = False
        self._level = 0.0

    @property
    def loaded(self) -> LocalModel | None:
        return self._loaded

    def load(self, model: LocalModel) -> None:
        self.unload()
        check_memory(model.file)
        if self.script.broken or not model.path.is_file():
            raise JouleboxError(
                "broken_model", f"The script says that {model.path} cannot be loaded: take another file."
            )
        self._tell(self.script.load_level)
        self._clock.sleep_until(self._clock.now_ns() + nanoseconds(self.script.load_s))
        self._tell(0.0)
        self._loaded = model

    def unload(self) -> None:
        self._loaded = None

    def cancel(self) -> None:
        self._cancelled = True

    def generate(self, prompt: Prompt) -> Iterator[Event]:
        model = self._loaded
        if model is None:
            raise JouleboxError("engine_died", "No model is loaded: load one before asking.")
        input_tokens = self._input_tokens(prompt, model)
        pieces, reason = _answer(prompt, self.script.tokens, self._context_tokens - input_tokens)
        self._cancelled = False
        yield Started(t_ns=self._clock.now_ns())
        try:
            yield from self._play(pieces, reason, input_tokens)
        finally:
            self._tell(0.0)

    def _play(self, pieces: list[str], reason: str, input_tokens: int) -> Iterator[Event]:
        script, start_ns = self.script, self._clock.now_ns()
        self._tell(script.prefill_level)
        self._wait(start_ns + nanoseconds(script.prefill_s))
        first_ns, told = self._clock.now_ns(), 0
        if not self._cancelled:
            self._tell(script.decode_level)
        for index, piece in enumerate(pieces):
            if script.die_after_tokens == index:
                self._loaded = None
                raise JouleboxError(
                    "engine_died", f"The engine died after {index} tokens, as its script says. Ask again."
                )
            self._wait(first_ns + nanoseconds(index * script.token_s))
            if self._cancelled:
                reason = "cancelled"
                break
            told += 1
            yield Token(t_ns=self._clock.now_ns(), text=piece)
        end_ns = self._clock.now_ns()
        self._tell(0.0)
        yield Finished(
            t_ns=end_ns,
            usage=Usage(input_tokens=input_tokens, cached_tokens=0, output_tokens=told),
            finish_reason=reason,
            prefill_s=seconds(first_ns - start_ns),
            decode_s=seconds(end_ns - first_ns),
        )

    def _input_tokens(self, prompt: Prompt, model: LocalModel) -> int:
        count = sum(len(re.findall(r"\w+|[^\w\s]", message.content)) for message in prompt.messages)
        if count >= self._context_tokens:
            most = self._context_tokens
            sentence = f"The prompt has {count} tokens, but {model.file.id} takes at most {most} here: shorten it."
            raise JouleboxError("prompt_too_long", sentence, input_tokens=count, context_tokens=most)
        return count

    def _wait(self, deadline_ns: int) -> None:
        """Until `deadline_ns`, or until cancelled."""
        while not self._cancelled and (now_ns := self._clock.now_ns()) < deadline_ns:
            self._clock.sleep_until(min(deadline_ns, now_ns + nanoseconds(CANCEL_LOOK_S)))

    def _tell(self, level: float) -> None:
        if self._activity is not None and level != self._level:
            self._level = level
            self._activity(self._clock.now_ns(), level)


def _answer(prompt: Prompt, tokens: int | None, room: int) -> tuple[list[str], Literal["stop", "length"]]:
    """The pieces of the answer and why it ends there: words drawn by model, messages and seed, then `max_tokens`, the
    room in the context, and `stop`."""
    said = "\0".join([prompt.model, str(prompt.seed), *(f"{m.role}\0{m.content}" for m in prompt.messages)])
    draw = random.Random(hashlib.sha256(said.encode()).digest())
    wanted = draw.randint(8, 48) if tokens is None else tokens
    asked = re.findall(r"\w+", prompt.messages[-1].content)
    words = [*_WORDS, *asked]
    pieces = [(" " if index else "") + draw.choice(words) for index in range(wanted)]
    most = min(prompt.max_tokens, room)
    reason: Literal["stop", "length"] = "stop" if wanted <= most else "length"
    kept, text = [], ""
    for piece in pieces[:most]:
        ends = [at for stop in prompt.stop if (at := (text + piece).find(stop)) >= 0]
        if ends:
            if rest := (text + piece)[len(text) : min(ends)]:
                kept.append(rest)
            return kept, "stop"
        kept.append(piece)
        text += piece
    return kept, reason
