"""Gateways as people put them in front, unmodified: what docs/how-to/gateways.md says is carried out against a real
server, node and small model."""

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from accuracy_peers import environment
from stage import MODEL, Service, wait

pytestmark = pytest.mark.slow
PAGE = Path(__file__).parents[1] / "docs" / "how-to" / "gateways.md"
START_S = 120
TURNS = [{"role": "user", "content": "What is the capital of France?"}]
QUIET = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_TELEMETRY": "False", "HF_HUB_OFFLINE": "1"}


def block(kind: str) -> str:
    """The page's block of a language."""
    found = re.search(rf"^```{kind}\n(.*?)^```$", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[1]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, smollm2: Any) -> Iterator[Service]:
    service = Service(tmp_path_factory.mktemp("gateways"), smollm2, {"JOULEBOX_METERS": "model:"})
    yield service
    service.stop()


@pytest.fixture(scope="module")
def proxy(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of LiteLLM's proxy, started with the page's file."""
    python = environment("litellm")
    if python is None:
        pytest.skip("LiteLLM cannot be installed here: the package registry does not answer")
    folder = tmp_path_factory.mktemp("litellm")
    told = block("yaml").replace("http://127.0.0.1:8080", service.url).replace("smollm2-135m-instruct", MODEL)
    (folder / "litellm.yaml").write_text(told)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url, words = f"http://127.0.0.1:{port}", ["--config", "litellm.yaml", "--host", "127.0.0.1", "--port", str(port)]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [python.parent / "litellm", *words], cwd=folder, stdout=log, stderr=log, env=os.environ | QUIET
        )
    try:
        until_ready(url, process)
        yield url
    finally:
        process.terminate()
        process.wait(20)


def until_ready(url: str, process: "subprocess.Popen[bytes]") -> None:
    """Wait until the proxy answers."""
    for _ in range(START_S * 2):
        assert process.poll() is None, "the proxy ended"
        try:
            if httpx2.get(f"{url}/health/liveliness", trust_env=False).is_success:
                return
        except httpx2.TransportError:
            pass
        wait(0.5)
    raise AssertionError("the proxy did not begin to answer")


def test_the_blocks_of_the_page_run_through_litellm(proxy: str) -> None:
    """The page's program, unmodified but for the address, prints the answer with its joules, whole and streamed."""
    text = block("python").replace("http://127.0.0.1:4000", proxy)
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr[-4_000:]
    whole, streamed = done.stdout.strip().splitlines()
    for line in (whole, streamed):
        assert "Paris" in line
        found = re.search(r"([\d.]+) J\b", line)
        assert found is not None
        assert float(found[1]) > 0
    assert "/api/v1/receipts/" in streamed


def test_what_litellm_hands_on_is_what_the_receipt_says(proxy: str, service: Service) -> None:
    """Headers, fields and streamed chunk have the energy of the receipt they name; a wish for quiet reaches the node;
    a refusal keeps its sentence."""
    import openai

    turns: Any = TURNS
    with openai.OpenAI(base_url=f"{proxy}/v1", api_key="sk-of-your-own", max_retries=0) as client:
        raw = client.chat.completions.with_raw_response.create(
            model="smollm2", messages=turns, max_tokens=8, extra_body={"joulebox": {"mode": "quiet"}}
        )
        told: Any = raw.parse()
        energy_j = told.joulebox["energy"]["answer"]["j"]
        assert told.energy["energy_joules"] == energy_j > 0
        assert float(raw.headers["llm_provider-x-joulebox-joules"]) == energy_j
        receipt = service.client.receipt(raw.headers["llm_provider-x-joulebox-receipt-id"])
        assert receipt["energy"]["answer"]["j"] == energy_j
        for also in ({}, {"stream_options": {"include_usage": True}}):
            options: Any = {"stream": True, **also}
            pieces = list(client.chat.completions.create(model="smollm2", messages=turns, max_tokens=8, **options))
            (last,) = (one.model_extra for one in pieces if (one.model_extra or {}).get("energy"))
            assert last is not None
            named = httpx2.get(last["joulebox"]["receipt_url"], trust_env=False).json()
            assert last["energy"]["energy_joules"] == named["energy"]["answer"]["j"] > 0
        with pytest.raises(openai.BadRequestError, match="n is not supported here"):
            client.chat.completions.create(model="smollm2", messages=turns, n=3)
