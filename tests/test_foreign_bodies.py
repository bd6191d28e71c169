"""Whatever JSON comes in the words of OpenAI or Ollama: it is a prompt, or a failure with a name; nothing else."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from joulebox.errors import JouleboxError
from joulebox.server.bodies import PromptBody
from joulebox.server.foreign.asking import Form, TermsBody
from joulebox.server.foreign.ollama import GenerateBody, OllamaChatBody, OptionsBody
from joulebox.server.foreign.openai_forms import ChatBody, ChatMessage, CompletionBody
from joulebox.server.foreign.problems import ollama_error, openai_error
from joulebox.server.foreign.responses import ResponseBody
from joulebox.server.problems import bad_request

FORMS = (ChatBody, CompletionBody, ResponseBody, OllamaChatBody, GenerateBody)
NESTED = (TermsBody, OptionsBody, ChatMessage)
LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=4), st.sampled_from(["user", "m", "text"])
)
NAMES = st.sampled_from(
    sorted(
        {name for form in (*FORMS, *NESTED) for name in form.model_fields}
        | {"type", "text", "format", "function", "zzz"}
    )
)
ANY = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4), max_leaves=12
)
TURN: dict[str, Any] = {"role": "user", "content": "hi"}
GOOD: dict[str, Any] = {"model": "m", "prompt": "hi", "input": "hi", "messages": [TURN]}


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
@settings(max_examples=50)
@given(changes=st.dictionaries(NAMES, ANY, max_size=5), turn=st.dictionaries(NAMES, ANY, max_size=2))
def test_any_body(form: type[Form], changes: dict[str, Any], turn: dict[str, Any]) -> None:
    """A right request with fields exchanged ends in a prompt of ours or in one sentence in both forms."""
    body = {**GOOD, "messages": [TURN | turn], "input": [TURN | turn], **changes}
    try:
        read: Any = form.model_validate(json.loads(json.dumps(body)))
        fields = {name: value for name, value in read.to_fields().items() if value is not None}
        prompt = PromptBody.model_validate({"model": read.model, **fields, "seed": 0}).to_prompt()
        assert prompt.model == read.model
    except ValidationError as invalid:
        failed(bad_request(invalid))
    except JouleboxError as error:
        failed(error)


def failed(error: JouleboxError) -> None:
    """It is the fault of who asked, and one sentence says what is wrong."""
    assert error.failure.status < 500
    told = openai_error(error)
    assert told["message"] == ollama_error(error)["error"]
    assert told["message"].endswith(".")


def test_what_asks_for_nothing_is_taken() -> None:
    """Fields that real clients send by default change nothing."""
    chat = ChatBody.model_validate(
        {
            "model": "m",
            "messages": [TURN | {"name": "me"}],
            "n": 1,
            "top_p": 1.0,
            "presence_penalty": 0,
            "frequency_penalty": 0.0,
            "logit_bias": None,
            "logprobs": False,
            "tools": [],
            "tool_choice": "auto",
            "response_format": {"type": "text"},
            "temperature": 0.7,
            "user": "me",
            "metadata": {"a": "b"},
            "store": False,
            "service_tier": "auto",
            "parallel_tool_calls": True,
            "reasoning_effort": "low",
            "stream_options": None,
        }
    )
    assert chat.to_fields()["temperature"] == 0.7
    ollama = OllamaChatBody.model_validate(
        {
            "model": "m",
            "messages": [TURN | {"images": None}],
            "options": {"temperature": 0.8, "top_k": 40, "top_p": 0.9, "num_predict": -1, "seed": -1, "num_ctx": 2048},
            "format": "",
            "keep_alive": "5m",
            "think": False,
            "tools": [],
        }
    )
    assert ollama.to_fields() == {
        "messages": [TURN],
        "max_tokens": None,
        "temperature": 0.8,
        "top_p": 0.9,
        "seed": None,
        "stop": None,
        "json_schema": None,
        "tools": None,
    }
