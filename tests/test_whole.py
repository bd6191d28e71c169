"""The entire flow with nothing replaced: server, queue, node, llama.cpp and SmolLM2, over real HTTP, in a real
browser."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from gguf_files import write_gguf
from joulebox.client import Client
from joulebox.errors import JouleboxError
from joulebox.node.models import Registry
from screenshots import chromium
from stage import MODEL, Service, wait


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, smollm2: Path) -> Iterator[Service]:
    service = Service(tmp_path_factory.mktemp("service"), smollm2, {"JOULEBOX_METERS": "model:", "JOULEBOX_ZONE": "DE"})
    yield service
    service.stop()


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    if shutil.which("chromium") is None:
        pytest.skip("Chromium is not installed: apt-get install chromium")
    with chromium() as browser:
        yield browser.new_page()


def joulebox(service: Service, *words: str) -> subprocess.CompletedProcess[str]:
    """The command line as a person uses it."""
    command = [sys.executable, "-m", "joulebox", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)


def ask_json(service: Service, question: str) -> dict[str, Any]:
    done = joulebox(service, "ask", question, "--json", "--max-tokens", "24", "--server", service.url)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def asked(service: Service, question: str) -> dict[str, Any]:
    """The same without another program: answer and receipt."""
    prompt_id = service.client.submit(model=MODEL, prompt=question, max_tokens=24)["id"]
    end = list(service.client.events(prompt_id))[-1]
    assert end.name == "receipt", end.data
    return {"answer": service.client.status(prompt_id)["answer"], "receipt": dict(end.data)}


def test_two_questions_two_answers(service: Service) -> None:
    """Two questions get two different answers that the model really made, each with its own receipt."""
    one, two = ask_json(service, "What is the capital of France?"), ask_json(service, "Name three fruits.")
    assert "Paris" in one["answer"]
    assert one["answer"] != two["answer"]
    assert one["receipt"]["id"] != two["receipt"]["id"]
    assert ask_json(service, "What is the capital of France?")["answer"] == one["answer"]


def test_the_receipt_of_a_machine_without_meters(service: Service) -> None:
    """Without a meter every figure has an interval, grade D and scope modelled; CO2e and SCI with O and M follow."""
    receipt = asked(service, "Count to five.")["receipt"]
    energy, sci = receipt["energy"], receipt["sci"]["answer"]
    assert energy["scope"] == "modelled"
    for name in ("answer", "active", "tail", "full"):
        assert energy[name]["grade"] == "D"
        assert energy[name]["u"] > 0
    assert 0 < energy["answer"]["j"] < energy["full"]["j"]
    assert energy["scopes"] == {}
    assert not receipt["simulated"]
    assert receipt["carbon"]["intensity"]["g_per_kwh"] == 342
    assert sci["O_g"] + sci["M_g"] == sci["per_answer_g"]
    assert receipt["usage"]["cached_tokens"] == 0
    assert receipt["usage"]["output_tokens"] > 1
    assert receipt["times"]["time_to_first_token_s"] < receipt["times"]["duration_s"]
    assert "modelled" in {reason["code"] for reason in receipt["reasons"]}


def test_account_of_the_stored_trace_is_the_stored_receipt(service: Service) -> None:
    """A receipt made again from the stored trace and factors is, byte for byte, the one that was stored."""
    from pydantic import TypeAdapter

    from joulebox.accounting import account, receipt_bytes
    from joulebox.evidence import decode_trace
    from joulebox.model import CarbonFactors, Placement

    asked(service, "What is water?")
    rows = service.query(
        "SELECT receipts.id, receipts.body, receipts.factors, traces.blob FROM receipts"
        " JOIN traces ON token = trace_token"
    )
    assert rows
    for receipt_id, body, factors, blob in rows:
        assert isinstance(body, bytes)
        assert isinstance(blob, bytes)
        placement = Placement(**json.loads(body)["placement"])
        known = TypeAdapter(CarbonFactors).validate_json(str(factors))
        again = account(decode_trace(blob), known, receipt_id=str(receipt_id), placement=placement)
        assert receipt_bytes(again) == body


def test_the_report_of_the_service(service: Service, tmp_path: Path) -> None:
    """The report holds each receipt's energy once, what the node drew before and between, and the server within the
    node; its shown parts add up to the last digit."""
    asked(service, "What is a leaf?")
    bodies = [json.loads(body) for (body,) in service.query("SELECT body FROM receipts") if isinstance(body, bytes)]
    deadline = 40
    while not (told := service.query("SELECT host FROM node_idle")) and deadline:
        wait(1.0)
        deadline -= 1
    assert told
    done = joulebox(service, "report", "sci", "--json", "--server", service.url)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    parts = {one["part"]: one["kwh"] for one in report["components"]}
    runs_kwh = sum(parts.get(name, 0.0) for name in ("answer", "load", "around"))
    assert runs_kwh * 3.6e6 == pytest.approx(sum(body["energy"]["full"]["j"] for body in bodies))
    assert report["counts"]["answers"] == len(bodies)
    assert parts["idle"] > 0
    assert "server" not in parts
    assert report["server"]["inside"] == ["stage"]
    node = report["nodes"][0]
    assert node["asked_s"] + node["idle_s"] + node["unknown_s"] == pytest.approx(node["service_s"], abs=0.5)
    assert node["unknown_s"] < 30
    for name in ("g", "low", "high", "energy"):
        shown = [Decimal(one[name]) for one in report["shown"]["components"] if one[name] is not None]
        assert sum(shown) == Decimal(report["shown"]["total"][name])
    page = tmp_path / "sci.html"
    assert joulebox(service, "report", "sci", "--html", "--output", str(page), "--server", service.url).returncode == 0
    assert "Waiting between prompts" in page.read_text(encoding="utf-8")
    printed = joulebox(service, "receipts", "show", bodies[0]["id"], "--server", service.url).stdout
    assert "making the machine does not move" in " ".join(printed.split())


def test_prompts_wait_in_line(service: Service) -> None:
    """Three prompts at once are answered one at a time, in the order of asking, each with its receipt."""
    ids = [service.ask(f"Say {word}.", 1, max_tokens=8) for word in ("one", "two", "three")]
    assert [service.client.status(one)["state"] for one in ids][1:] == ["available", "available"]
    with ThreadPoolExecutor() as pool:
        ends = list(pool.map(lambda one: list(Client(service.url).events(one))[-1], ids))
    assert [end.name for end in ends] == ["receipt"] * 3
    created = [end.data["created"] for end in ends]
    assert created == sorted(created)
    assert all(end.data["concurrency"] == 1 for end in ends)


def test_cancel_stops_the_engine(service: Service) -> None:
    """A prompt cancelled while it answers ends as cancelled, and the next one is answered."""
    prompt_id = service.ask("Write a very long story about the sea.", 2, max_tokens=1500)
    names = []
    for event in service.client.events(prompt_id):
        names.append(event.name)
        if event.name == "token" and names.count("token") == 2:
            service.client.cancel(prompt_id)
    assert names[-1] == "cancelled"
    assert service.client.status(prompt_id)["state"] == "cancelled"
    assert "Paris" in asked(service, "What is the capital of France?")["answer"]


def test_a_model_that_cannot_be_loaded(service: Service) -> None:
    """A model whose file turns out to be damaged fails with a sentence that names it, and the node goes on; one whose
    file has gone is not offered any more."""
    registry = Registry(service.folder)
    damaged, gone = (registry.add(write_gguf(service.folder / f"{name}.gguf")) for name in ("torn", "vanished"))
    asked(service, "Say yes.")  # with its next lease the node offers them
    until_offered(service, {"torn", "vanished", MODEL})
    gone.path.unlink()
    prompt_id = service.client.submit(model="torn", prompt="Hi")["id"]
    end = list(service.client.events(prompt_id))[-1]
    assert (end.name, end.data["code"]) == ("error", "broken_model")
    assert str(damaged.path) in end.data["detail"]
    until_offered(service, {"torn", MODEL})
    with pytest.raises(JouleboxError, match="vanished"):
        service.client.submit(model="vanished", prompt="Hi")
    registry.remove("torn")
    assert "Paris" in asked(service, "What is the capital of France?")["answer"]


def until_offered(service: Service, models: set[str]) -> None:
    for _ in range(100):
        if {model["id"] for model in service.client.models()} == models:
            return
        wait(0.05)
    raise AssertionError(f"the node offers {service.client.models()}")


def test_an_over_long_prompt_says_both_numbers(service: Service) -> None:
    """A prompt that does not fit the context is refused with the tokens it has and the tokens there are."""
    prompt_id = service.ask("word " * 6000, 3)
    end = list(service.client.events(prompt_id))[-1]
    assert end.name == "error"
    assert end.data["code"] == "prompt_too_long"
    assert "4096" in end.data["detail"]


def test_ask_without_a_server_says_how_to_start_one(service: Service) -> None:
    """Without a server `ask` exits 1 with one sentence that names `joulebox up`."""
    done = joulebox(service, "ask", "Hello?", "--server", "http://127.0.0.1:9")
    assert (done.returncode, done.stdout) == (1, "")
    assert "joulebox up" in done.stderr
    assert done.stderr.count("\n") == 1


def test_empty_prompt_and_unknown_model(service: Service) -> None:
    """An empty prompt and an unknown model exit 2, the latter naming what there is."""
    empty = joulebox(service, "ask", "  ", "--server", service.url)
    assert (empty.returncode, empty.stdout) == (2, "")
    unknown = joulebox(service, "ask", "Hi", "--model", "nope", "--server", service.url)
    assert unknown.returncode == 2
    assert MODEL in unknown.stderr


def test_the_receipt_in_the_terminal(service: Service) -> None:
    """`ask` prints the answer, then a receipt with interval, grade, CO2e and SCI; `receipts show` does so again."""
    done = joulebox(service, "ask", "Say hello.", "--max-tokens", "16", "--server", service.url)
    assert done.returncode == 0
    for wanted in ("±", "modelled", "Grade D", "CO2e", "electricity", "making the machine", "O + M"):
        assert wanted in done.stdout
    receipt_id = done.stdout.split("Receipt ")[1].split()[0]
    again = joulebox(service, "receipts", "show", receipt_id, "--server", service.url)
    told = [line for line in done.stdout.splitlines() if line.startswith("│")]
    assert len(told) > 5
    assert set(told) <= set(again.stdout.splitlines())  # later it also knows what the same had cost elsewhere


def test_a_second_node_of_the_same_name_is_refused(service: Service) -> None:
    """A second node under a name in use exits 1 with one sentence, and the first goes on."""
    done = joulebox_node(service, JOULEBOX_NODE="stage")
    assert done.returncode == 1
    assert "stage" in done.stderr.splitlines()[-1]
    assert "Paris" in asked(service, "What is the capital of France?")["answer"]


def joulebox_node(service: Service, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {"JOULEBOX_DATA_DIR": str(service.folder / "second"), "JOULEBOX_SERVER": service.url, **settings}
    import os

    return subprocess.run(
        [sys.executable, "-m", "joulebox", "node"],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_taken_port(service: Service) -> None:
    """A server on a taken port exits 1 with one sentence that names the port."""
    port = service.url.rpartition(":")[2]
    done = joulebox(service, "serve", "--port", port, "--data-dir", str(service.folder / "third"))
    assert done.returncode == 1
    assert port in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_the_page_in_a_browser(service: Service, page: Page) -> None:
    """A person types a prompt, sees the answer come, then the receipt; nothing is loaded from elsewhere."""
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.goto(service.url)
    page.get_by_label("Your prompt").fill("What is the capital of France?")
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(page.get_by_role("log")).to_contain_text("Paris", timeout=20_000)
    expect(page.locator("#slip")).to_contain_text("modelled", timeout=20_000)
    expect(page.locator("#slip")).to_contain_text("SCI")
    assert all(url.startswith((service.url, "data:")) for url in asked)
    assert complaints == []
    page.reload()
    expect(page.get_by_role("log")).to_contain_text("Paris")
    expect(page.locator("#slip")).to_contain_text("modelled")


def test_unknown_things_are_problems(service: Service) -> None:
    """What does not exist is a problem document with a code, not a broken page."""
    with pytest.raises(JouleboxError) as caught:
        service.client.receipt("nope")
    assert caught.value.code == "not_found"
