"""llama.cpp's HTTP, as its own server and the one in the wheel speak it: what is asked, and what comes back."""

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from joulebox.errors import JouleboxError
from joulebox.model import Prompt
from joulebox.node import tool_calls
from joulebox.node.engine import LocalModel
from joulebox.node.engine_http import Tally, sampling

CHAT: Final = "/v1/chat/completions"
_BAD_REQUEST: Final = 400
_QUANTIZATION: Final = re.compile(r"(?<![A-Z0-9])(?:IQ\d\w*|T?Q\d\w*|BF16|F16|F32|MXFP4)(?![A-Z0-9])", re.I)


def tells_tools(props: Mapping[str, Any]) -> bool:
    """Whether the model's own template tells it functions, by the page of the loaded model: where it does not,
    llama.cpp leaves them out without a word."""
    return bool((props.get("chat_template_caps") or {}).get("supports_tools"))


def request(prompt: Prompt, model: LocalModel, *, tells_tools: bool) -> dict[str, Any]:
    """The prompt as llama.cpp takes it. The prompt cache is off on every request, whatever the server's default."""
    schema = tool_calls.schema(prompt)
    if not tells_tools:
        prompt = tool_calls.in_words(prompt)
    messages = [tool_calls.turn(message) for message in prompt.messages]
    if model.default_system is not None and not any(message["role"] == "system" for message in messages):
        messages.insert(0, {"role": "system", "content": model.default_system})
    return (
        {
            "messages": messages,
            "max_tokens": prompt.max_tokens,
            "temperature": prompt.temperature,
            "seed": prompt.seed,
            "stop": list(prompt.stop),
            "cache_prompt": False,
            "stream": True,
            "stream_options": {"include_usage": True},
            # Each piece tells how many tokens there are so far; thoughts stay in the text, so every token has its time.
            "timings_per_token": True,
            "reasoning_format": "none",
        }
        | sampling(prompt, schema)
        | ({"tools": tool_calls.functions(prompt.tools)} if prompt.tools else {})
        | (
            # llama.cpp takes `required` and does not keep to it: the schema does.
            {"tool_choice": "none"} if prompt.tools and schema else {}
        )
    )


def read(piece: Mapping[str, Any], tally: Tally) -> str:
    """The text of a piece; what it tells of tokens and times goes into `tally`."""
    if timings := piece.get("timings"):
        cached = timings.get("cache_n", 0)
        tally.input_tokens, tally.cached_tokens = timings["prompt_n"] + cached, cached
        tally.output_tokens = timings["predicted_n"]
        tally.prefill_s, tally.decode_s = timings["prompt_ms"] / 1e3, timings["predicted_ms"] / 1e3
    if usage := piece.get("usage"):
        details = usage.get("prompt_tokens_details") or {}
        tally.input_tokens, tally.output_tokens = usage["prompt_tokens"], usage["completion_tokens"]
        tally.cached_tokens = details.get("cached_tokens", tally.cached_tokens)
    text = ""
    for choice in piece.get("choices", ()):
        text += choice["delta"].get("content") or ""
        tally.calls.take(choice["delta"].get("tool_calls"))
        tally.finish_reason = str(choice["finish_reason"] or tally.finish_reason)
    return text


def refusal(body: bytes, model: LocalModel, engine: str, longer: str) -> JouleboxError:
    """What llama.cpp answered instead of tokens; `engine` is what sentences call it, `longer` how its context becomes
    longer."""
    try:
        error = json.loads(body)["error"]
        kind, message = error.get("type"), str(error.get("message"))
    except (ValueError, KeyError, TypeError, AttributeError):
        return JouleboxError("engine_died", f"{engine} gave an answer that cannot be read: {body[:200]!r}.")
    if kind == "exceed_context_size_error":
        tokens, context = error["n_prompt_tokens"], error["n_ctx"]
        takes = f"but {model.file.id} takes at most {context} here"
        sentence = f"The prompt has {tokens} tokens, {takes}: shorten it, or {longer}."
        return JouleboxError("prompt_too_long", sentence, input_tokens=tokens, context_tokens=context)
    code = "bad_request" if error.get("code") == _BAD_REQUEST else "engine_died"
    return JouleboxError(code, f"{engine} refused the prompt for {model.file.id}: {message}")


def busy(slots: object) -> bool:
    """Whether the list of slots shows an answer under way."""
    return isinstance(slots, list) and any(isinstance(slot, dict) and slot.get("is_processing") for slot in slots)


def quantization_in(name: str) -> str | None:
    """What a file's name tells of how its weights are stored: `Q4_K_M` of `gemma-2-2b-it-Q4_K_M.gguf`."""
    found = _QUANTIZATION.findall(name)
    return found[-1].upper() if found else None
