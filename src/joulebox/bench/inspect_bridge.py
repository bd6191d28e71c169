"""Any Inspect AI task through Joulebox: `inspect eval TASK --model joulebox/NAME`, with its joules beside its scores.

Inspect finds this module by the entry point `inspect_ai`; nothing else of Joulebox imports it, and Inspect itself is
never needed. Every call is a prompt of the queue like any other, `quiet` unless asked otherwise, and its receipt stands
in the log: in the output's metadata, and summed up a sample by the scorer `joulebox/energy`.
"""

import asyncio
from collections.abc import Sequence
from math import isfinite
from typing import Any, Final

from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessage,
    ChatMessageAssistant,
    ChatMessageTool,
    GenerateConfig,
    ModelAPI,
    ModelCall,
    ModelOutput,
    ModelUsage,
    modelapi,
)
from inspect_ai.scorer import Metric, SampleScore, Score, Scorer, Target, mean, metric, scorer, stderr
from inspect_ai.solver import TaskState
from inspect_ai.tool import ToolChoice, ToolInfo
from inspect_ai.util import store

from joulebox.client import AWAY, Client
from joulebox.errors import JouleboxError
from joulebox.model import FINAL_STATES
from joulebox.settings import load_settings

Json = dict[str, Any]

RECEIPTS: Final = "joulebox:receipts"
"""Under this name a sample's store holds what each of its calls took."""
STOPS: Final = {"stop": "stop", "length": "max_tokens"}
REFUSED: Final = (
    "top_p", "top_k", "frequency_penalty", "presence_penalty", "logit_bias", "logprobs", "num_choices", "best_of",
    "response_schema",
)  # fmt: skip
"""Settings of Inspect that would change the answer, and that no prompt of ours can carry."""


@modelapi(name="joulebox")
class JouleboxAPI(ModelAPI):
    """A Joulebox server as a provider of models. `-M node=NAME` asks one node, `-M mode=live` does not wait for quiet.
    `base_url` and `api_key` (or `JOULEBOX_SERVER` and `JOULEBOX_TOKEN`) say where and as whom."""

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig = GenerateConfig(),  # noqa: B008  # the signature that Inspect asks for
        node: str | None = None,
        mode: str = "quiet",
    ) -> None:
        super().__init__(model_name, base_url, api_key, [], config)
        settings = load_settings(server=base_url)
        self._client = Client(settings.server, api_key or settings.token_for(admin=False), ca_file=settings.ca_file)
        self._common: Json = {"model": model_name, "mode": mode, "priority": "benchmark"}
        if node is not None:
            self._common["placement"] = f"node:{node}"

    async def generate(
        self,
        input: list[ChatMessage],  # noqa: A002  # the signature that Inspect asks for
        tools: list[ToolInfo],
        tool_choice: ToolChoice,
        config: GenerateConfig,
    ) -> tuple[ModelOutput, ModelCall]:
        """Ask, wait for the receipt, and note it. Raises `JouleboxError`; `ValueError` for what cannot be asked."""
        if tools:
            raise ValueError("Joulebox asks no tools: take a task, or a solver, without them.")
        if unmet := [name for name in REFUSED if getattr(config, name, None) is not None]:
            raise ValueError(f"Joulebox cannot ask with {', '.join(unmet)}: leave it out.")
        fields = self._common | asked(input) | {
            "max_tokens": config.max_tokens,
            "temperature": config.temperature if config.temperature is not None else 0.0,
            "seed": config.seed,
            "stop": config.stop_seqs or None,
        }  # fmt: skip
        status, receipt = await asyncio.to_thread(self._answered, fields)
        store().set(RECEIPTS, [*store().get(RECEIPTS, []), taken(receipt)])
        return output_of(status, receipt), ModelCall.create(fields, {"status": status, "receipt": receipt})

    def _answered(self, fields: Json) -> tuple[Json, Json]:
        """The status and receipt of a prompt that was answered. Raises the `JouleboxError` of one that was not."""
        prompt_id = str(self._client.submit(**fields)["id"])
        for _ in self._client.events(prompt_id):
            pass
        status = self._client.status(prompt_id)
        if status["state"] not in FINAL_STATES or status["receipt_id"] is None:
            why = status["error"] or {"code": "internal", "detail": f"The prompt ended as {status['state']}."}
            raise JouleboxError(why["code"], why["detail"])
        return status, self._client.receipt(status["receipt_id"])

    def should_retry(self, ex: Exception) -> bool:
        """A server that is away or has enough to do is asked again."""
        return isinstance(ex, JouleboxError) and ex.code in {*AWAY, "quota_used", "too_many_requests"}

    def connection_key(self) -> str:
        """Prompts to one server wait in one line."""
        return self._client.server

    def max_connections(self) -> int:
        """So many of a task's prompts are queued at once; the node takes one at a time whatever this is."""
        return 4

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def asked(messages: Sequence[ChatMessage]) -> Json:
    """A conversation in the fields of `POST /api/v1/prompts`. Raises `ValueError` for what is not text."""
    turns = []
    for message in messages:
        if isinstance(message, ChatMessageTool):
            raise ValueError("Joulebox asks no tools: the conversation holds a tool's answer.")
        if not isinstance(message.content, str) and any(
            part.type not in ("text", "reasoning") for part in message.content
        ):
            raise ValueError("Joulebox asks in text alone: the conversation holds a picture, sound or file.")
        turns.append({"role": message.role, "content": message.text})
    systems = [turn["content"] for turn in turns if turn["role"] == "system"]
    return {
        "messages": [turn for turn in turns if turn["role"] != "system"],
        "system": "\n\n".join(systems) or None,
    }


def output_of(status: Json, receipt: Json) -> ModelOutput:
    """The answer as Inspect has it, with its receipt in the metadata."""
    usage = receipt["usage"]
    cached = usage["cached_tokens"] or 0
    message = ChatMessageAssistant(content=status["answer"] or "", model=receipt["model"]["name"], source="generate")
    return ModelOutput(
        model=receipt["model"]["name"],
        choices=[ChatCompletionChoice(message=message, stop_reason=STOPS.get(status["finish_reason"], "unknown"))],
        usage=ModelUsage(
            input_tokens=usage["input_tokens"] - cached,
            output_tokens=usage["output_tokens"],
            total_tokens=usage["input_tokens"] + usage["output_tokens"],
            input_tokens_cache_read=usage["cached_tokens"],
            reasoning_tokens=usage["reasoning_tokens"],
        ),
        time=receipt["times"]["duration_s"],
        metadata={"joulebox": receipt},
    )


def taken(receipt: Json) -> Json:
    """What a call took: joules of the answer with their interval and grade (`None`: not known), grams, verdict."""
    answer = receipt["energy"]["answer"] if receipt["verdict"] != "invalid" else None
    return {
        "receipt_id": receipt["id"],
        "answer_j": answer["j"] if answer else None,
        "answer_u_j": answer["u"] if answer else None,
        "grade": answer["grade"] if answer else None,
        "carbon_g": receipt["carbon"]["total"]["g"] if receipt["carbon"]["total"] else None,
        "verdict": receipt["verdict"],
        "simulated": receipt["simulated"],
    }


@metric
def total() -> Metric:
    """The sum over all samples whose energy is known."""

    def added(scores: list[SampleScore]) -> float:
        known = [float(one.score.as_float()) for one in scores]
        return sum(one for one in known if isfinite(one))

    return added


@scorer(metrics=[mean(), stderr(), total()])
def energy() -> Scorer:
    """Joules of a sample: of all its calls' answers. A sample of which one call's are not known is not scored, never
    zero; the explanation says how sure they are."""

    async def score(state: TaskState, target: Target) -> Score:  # noqa: ARG001
        calls: list[Json] = state.store.get(RECEIPTS, [])
        if not calls:
            return Score.unscored(explanation="No call of this sample went through Joulebox.")
        lacking = [call["receipt_id"] for call in calls if call["answer_j"] is None]
        if lacking:
            told = f"The energy of {', '.join(lacking)} is not known."
            return Score.unscored(explanation=told, metadata={"receipts": calls})
        joules = sum(call["answer_j"] for call in calls)
        # the same meters each time: what they are wrong by adds up
        told = f"{joules:.3g} ± {sum(call['answer_u_j'] for call in calls):.2g} J (k = 2), grade {_grades(calls)}"
        return Score(value=joules, explanation=told + _simulated(calls), metadata={"receipts": calls})

    return score


def _grades(calls: Sequence[Json]) -> str:
    return max(str(call["grade"]) for call in calls)  # the least sure of them


def _simulated(calls: Sequence[Json]) -> str:
    return ", simulated" if any(call["simulated"] for call in calls) else ""
