"""Real clients, unmodified but for their base URL, against a real server, node and small model: each gets an answer and
reads its energy."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from pydantic import SecretStr

from accuracy_peers import environment
from stage import MODEL, Service

if TYPE_CHECKING:  # the others load them in the tests: every process of the suite reads this file
    import openai

pytestmark = pytest.mark.slow
HOW_TO = Path(__file__).parents[1] / "docs" / "how-to"
QUESTION = "What is the capital of France?"
TURNS: list[Any] = [{"role": "user", "content": QUESTION}]
WEATHER_TURNS: list[Any] = [{"role": "user", "content": "What is the weather in Paris?"}]
WEATHER: Any = {
    "name": "weather",
    "description": "The weather of a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, smollm2: Any) -> Iterator[Service]:
    service = Service(tmp_path_factory.mktemp("clients"), smollm2, {"JOULEBOX_METERS": "model:", "JOULEBOX_ZONE": "DE"})
    yield service
    service.stop()


@pytest.fixture
def client(service: Service) -> "Iterator[openai.OpenAI]":
    import openai

    with openai.OpenAI(base_url=f"{service.url}/v1", api_key="none") as client:
        yield client


def joules(service: Service, told: Any) -> float:
    """The energy that a client read, which is that of the receipt it names."""
    energy, receipt = told["energy"], httpx2.get(told["joulebox"]["receipt_url"], trust_env=False).json()
    assert energy["energy_joules"] == receipt["energy"]["answer"]["j"] > 0
    assert energy["attribution_method"] == "exclusive, modelled"
    return float(energy["energy_joules"])


def test_the_openai_package(service: Service, client: "openai.OpenAI") -> None:
    """A chat, whole and streamed, says the same and has its energy; models are listed; failures are its own errors."""
    import openai

    whole = client.chat.completions.create(model=MODEL, messages=TURNS, max_tokens=24)
    said = whole.choices[0].message.content
    assert said is not None
    assert "Paris" in said
    assert whole.usage is not None
    assert 1 < whole.usage.completion_tokens <= 24
    assert joules(service, whole.model_extra) > 0
    stream = client.chat.completions.create(
        model=MODEL, messages=TURNS, max_tokens=24, stream=True, stream_options={"include_usage": True}
    )
    pieces = list(stream)
    assert "".join(one.choices[0].delta.content or "" for one in pieces if one.choices) == said
    assert pieces[-1].usage is not None
    assert pieces[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert joules(service, pieces[-1].model_extra) > 0
    assert [model.id for model in client.models.list()] == [MODEL]
    with pytest.raises(openai.NotFoundError, match=f"There is {MODEL}"):
        client.chat.completions.create(model="gpt-4o", messages=TURNS)


def test_the_openai_package_in_its_other_ways(service: Service, client: "openai.OpenAI") -> None:
    """Completions, responses (whole, streamed, gone on from), raw headers and the extension answer with energy too."""
    import openai

    completion = client.completions.create(model=MODEL, prompt=QUESTION, max_tokens=12)
    assert completion.choices[0].text
    assert joules(service, completion.model_extra) > 0
    response = client.responses.create(model=MODEL, input=QUESTION, max_output_tokens=24)
    assert "Paris" in response.output_text
    assert joules(service, response.model_extra) > 0
    with client.responses.stream(
        model=MODEL, input="And of Italy?", previous_response_id=response.id, max_output_tokens=24
    ) as events:
        kinds = [event.type for event in events]
        last = events.get_final_response()
    assert "response.output_text.delta" in kinds
    assert last.output_text
    assert joules(service, last.model_extra) > 0
    raw = client.chat.completions.with_raw_response.create(
        model=MODEL, messages=TURNS, max_tokens=8, extra_body={"joulebox": {"mode": "quiet", "placement": "node:stage"}}
    )
    receipt = httpx2.get(raw.headers["x-joulebox-receipt"], trust_env=False).json()
    assert float(raw.headers["x-joulebox-joules"]) == receipt["energy"]["answer"]["j"]
    assert receipt["placement"]["policy"] == "node:stage"
    with pytest.raises(openai.BadRequestError, match="logprobs is not supported"):
        client.chat.completions.create(model=MODEL, messages=TURNS, logprobs=True)
    with pytest.raises(openai.BadRequestError, match="no embeddings"):
        client.embeddings.create(model=MODEL, input="x")


def test_the_openai_package_calls_functions(service: Service, client: "openai.OpenAI") -> None:
    """Whole, streamed and as a response, a call that must be one has its arguments and its energy; with what came of
    it the model answers."""
    common: Any = {"model": MODEL, "messages": WEATHER_TURNS, "max_tokens": 60}
    common |= {"tools": [{"type": "function", "function": WEATHER}], "tool_choice": "required"}
    whole = client.chat.completions.create(**common)
    (choice,) = whole.choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.tool_calls is not None
    (call,) = choice.message.tool_calls
    assert call.type == "function"
    assert (call.function.name, list(json.loads(call.function.arguments))) == ("weather", ["city"])
    assert whole.usage is not None
    assert whole.usage.completion_tokens > 5
    assert joules(service, whole.model_extra) > 0
    pieces = list(client.chat.completions.create(**common, stream=True))
    (told,) = [one for piece in pieces for each in piece.choices for one in each.delta.tool_calls or ()]
    assert told.function is not None
    assert told.function.arguments == call.function.arguments
    turns = [*WEATHER_TURNS, choice.message, {"role": "tool", "tool_call_id": call.id, "content": "21 degrees, sunny"}]
    second = client.chat.completions.create(**(common | {"messages": turns, "tool_choice": "none"}))
    assert second.choices[0].message.content
    assert joules(service, second.model_extra) > 0
    tools: list[Any] = [{"type": "function", "strict": False, **WEATHER}]
    question = str(WEATHER_TURNS[0]["content"])
    with client.responses.stream(model=MODEL, input=question, tools=tools, tool_choice="required") as events:
        kinds = [event.type for event in events]
        last = events.get_final_response()
    assert "response.function_call_arguments.done" in kinds
    (item,) = last.output
    assert item.type == "function_call"
    assert json.loads(item.arguments) == json.loads(call.function.arguments)
    output: Any = [{"type": "function_call_output", "call_id": item.call_id, "output": "21 degrees, sunny"}]
    more = client.responses.create(model=MODEL, input=output, previous_response_id=last.id, max_output_tokens=24)
    assert more.output_text
    assert joules(service, more.model_extra) > 0


def test_the_ollama_package_calls_functions(service: Service) -> None:
    """A chat with tools is taken; a call that its history holds, and what came of it, are understood."""
    import ollama

    client = ollama.Client(host=service.url)
    tools: Any = [{"type": "function", "function": WEATHER}]
    asked = client.chat(model=MODEL, messages=WEATHER_TURNS, tools=tools, options={"num_predict": 24})
    assert asked.message.content or asked.message.tool_calls
    call = {"function": {"name": "weather", "arguments": {"city": "Paris"}}}
    turns: Any = [
        *WEATHER_TURNS,
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_name": "weather", "content": "21 degrees, sunny"},
    ]
    answer = client.chat(model=MODEL, messages=turns, options={"num_predict": 24})
    assert answer.message.content
    assert "tools" in (client.show(MODEL).capabilities or ())


def test_the_ollama_package(service: Service) -> None:
    """Chat answers; what the package leaves out of its objects stands in the headers of the answer."""
    import ollama

    seen: list[Any] = []
    client = ollama.Client(host=service.url, event_hooks={"response": [seen.append]})
    answer = client.chat(model=MODEL, messages=TURNS, options={"num_predict": 24})
    assert "Paris" in (answer.message.content or "")
    assert (answer.done_reason, answer.done) in {("stop", True), ("length", True)}
    assert (answer.eval_count or 0) > 1
    assert (answer.eval_duration or 0) > 0
    assert float(seen[-1].headers["x-joulebox-joules"]) > 0


def test_the_ollama_package_in_its_other_ways(service: Service) -> None:
    """Streams, generate, lists and failures are as the package expects them."""
    import ollama

    client = ollama.Client(host=service.url)
    pieces = list(client.chat(model=f"{MODEL}:latest", messages=TURNS, stream=True, options={"num_predict": 24}))
    assert "Paris" in "".join(one.message.content or "" for one in pieces)
    assert pieces[-1].done
    told = client.generate(model=MODEL, prompt=QUESTION, system="Be brief.", options={"num_predict": 24, "seed": 1})
    assert "Paris" in (told.response or "")
    (listed,) = client.list().models
    assert listed.model == MODEL
    assert listed.details is not None
    assert listed.details.quantization_level
    assert client.show(MODEL).modelinfo
    assert [one.model for one in client.ps().models] == [MODEL]
    with pytest.raises(ollama.ResponseError, match="embeddings") as refused:
        client.embed(MODEL, "x")
    assert refused.value.status_code == 400


def test_langchain(service: Service) -> None:
    """LangChain's chat model answers, whole and streamed, counts tokens, and keeps the energy where it is asked to."""
    from langchain_openai import ChatOpenAI

    model = ChatOpenAI(
        model=MODEL,
        base_url=f"{service.url}/v1",
        api_key=SecretStr("none"),
        max_completion_tokens=24,
        include_response_headers=True,
    )
    whole = model.invoke(QUESTION)
    assert "Paris" in str(whole.content)
    assert whole.usage_metadata is not None
    assert whole.usage_metadata["output_tokens"] > 1
    assert float(whole.response_metadata["headers"]["x-joulebox-joules"]) > 0
    pieces = list(model.stream(QUESTION, stream_usage=True))
    assert "".join(str(piece.content) for piece in pieces) == whole.content
    bound = model.bind_tools([WEATHER], tool_choice="required")
    asked: Any = bound.invoke(WEATHER_TURNS[0]["content"], max_completion_tokens=60)
    (call,) = asked.tool_calls
    assert (call["name"], list(call["args"])) == ("weather", ["city"])
    result = {"role": "tool", "tool_call_id": call["id"], "content": "21 degrees, sunny"}
    assert model.invoke([WEATHER_TURNS[0], asked, result]).content


LITELLM = """
import sys, litellm
url, model, question = sys.argv[1:]
common = {"model": f"openai/{model}", "api_base": f"{url}/v1", "api_key": "none", "max_tokens": 24}
turns = [{"role": "user", "content": question}]
answer = litellm.completion(messages=turns, **common)
headers = answer._hidden_params["additional_headers"]
print(answer.choices[0].message.content, headers["llm_provider-x-joulebox-joules"], sep="|")
pieces = list(litellm.completion(messages=turns, stream=True, **common))
print("".join(piece.choices[0].delta.content or "" for piece in pieces), answer.usage.completion_tokens, sep="|")
"""


def test_litellm(service: Service) -> None:
    """LiteLLM, in an environment of its own since its pins are its own, answers whole and streamed, and hands on the
    energy."""
    python = environment("litellm")
    if python is None:
        pytest.skip("LiteLLM cannot be installed here: the package registry does not answer")
    words = [str(python), "-c", LITELLM, service.url, MODEL, QUESTION]
    quiet = os.environ | {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_TELEMETRY": "False"}
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False, env=quiet)
    assert done.returncode == 0, done.stderr[-4_000:]
    (whole, joules), (streamed, tokens) = (line.rsplit("|", 1) for line in done.stdout.strip().splitlines())
    assert "Paris" in whole
    assert whole == streamed
    assert float(joules) > 0
    assert int(tokens) > 1


@pytest.mark.parametrize("page", ["openai-clients.md", "ollama-clients.md"])
def test_the_blocks_of_a_page_run(service: Service, page: str) -> None:
    """Every block of shell and Python on the page runs as it stands, against this server, and tells an energy."""
    text = (HOW_TO / page).read_text("utf-8").replace("http://127.0.0.1:8080", service.url)
    blocks = re.findall(r"^```(sh|python)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    assert {kind for kind, _ in blocks} == {"sh", "python"}
    for kind, block in blocks:
        shown = block.replace("smollm2-135m-instruct", MODEL)
        command = ["sh", "-c", shown] if kind == "sh" else [sys.executable, "-c", shown]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        told = done.stdout
        assert " J" in told if kind == "python" else json.loads(told)["energy"]["energy_joules"] > 0, told
