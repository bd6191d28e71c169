"""Engines that run as servers of their own: how each is asked, what may go wrong with it, and whose work it is."""

import ast
import logging
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

import llama_servers
from engine_peers import (
    CLOCK,
    CONTEXT_TOKENS,
    DIGEST,
    KEY,
    PEERS,
    LmStudioPeer,
    OllamaPeer,
    OpenAIPeer,
    Peer,
    RouterPeer,
    Served,
    SglangPeer,
    TgiPeer,
    VllmPeer,
    driven,
    engine_setting,
)
from joulebox.accounting import account
from joulebox.errors import JouleboxError
from joulebox.model import Message, Prompt, Trace
from joulebox.model_commands import models_list
from joulebox.node import driven as drivers
from joulebox.node.driven import KINDS, Driven, open_engine
from joulebox.node.engine import Event, Finished, Token
from joulebox.node.engine_check import check_engine
from joulebox.node.engine_process import engine_processes, is_here
from joulebox.node.engines.scripted import Script
from joulebox.node.measurement import Conditions, Machine, measure
from joulebox.node.meters import open_meters
from joulebox.node.neighbours import Census, Process, scan, witnessed
from joulebox.node.recorder import Recorder
from joulebox.protocol import Lease
from joulebox.settings import Settings
from joulebox.units import NS_PER_S
from test_docs_meter import files_of, module_of
from traces import PLACEMENT, factors

ROOT = Path(__file__).parents[1]
MACHINE = Machine(node="n1", zone="DE", cores=2, memory_bytes=8_000_000_000)


def prompt(question: str = "What is the capital of France?", max_tokens: int = 12, **more: Any) -> Prompt:
    return Prompt(model="m", messages=(Message(role="user", content=question),), max_tokens=max_tokens, **more)


def answered(opened: Driven, asked: Prompt | None = None) -> list[Event]:
    if opened.engine.loaded is None:
        opened.engine.load(opened.models()[-1])
    return list(opened.engine.generate(asked or prompt()))


def end(events: list[Event]) -> Finished:
    assert isinstance(events[-1], Finished)
    return events[-1]


def text(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Token))


def refused(setting: str, **settings: Any) -> JouleboxError:
    with pytest.raises(JouleboxError) as caught:
        open_engine(Settings(engine=setting, **settings), CLOCK)
    return caught.value


@contextmanager
def nobody() -> Iterator[str]:
    """An address at which nothing listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


# --- the setting ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("ollama", "write KIND:ADDRESS, with a kind of llamacpp, transformers, llama-server, ollama, openai"),
        ("gpt:http://127.0.0.1", "write KIND:ADDRESS"),
        ("ollama:127.0.0.1:11434", "write ollama:http://HOST:PORT"),
        ("ollama:http://127.0.0.1:1/api", "write ollama:http://HOST:PORT"),
        ("openai:http://me:secret@127.0.0.1:1", "write openai:http://HOST:PORT"),
        ("ollama:http://127.0.0.1:1,flavour=vllm", "ollama takes silence, process; leave out flavour"),
        ("openai:http://127.0.0.1:1,flavour=gpt", "Option flavour=gpt cannot be used: give vllm, sglang"),
        ("openai:http://127.0.0.1:1,silence=never", "Option silence=never cannot be used"),
        ("openai:http://127.0.0.1:1,silence", "not key=value"),
        ("llamacpp:http://127.0.0.1:1", "stands alone"),
    ],
)
def test_a_wrong_setting_is_told(setting: str, said: str) -> None:
    """What is no engine, no address or no option of it is refused with what to write instead, without a password."""
    error = refused(setting)
    assert error.code == "bad_setting"
    assert said in error.detail
    assert "secret" not in error.detail


def test_without_a_setting_the_engine_is_the_nodes_own(tmp_path: Path) -> None:
    """No setting and `llamacpp:` mean the same engine, with the models of this node's list."""
    for setting in (None, "llamacpp:"):
        opened = open_engine(Settings(engine=setting, data_dir=tmp_path), CLOCK)
        assert (opened.engine.info.name, opened.models(), list(opened.processes())) == ("llama.cpp", [], [])


def test_an_engine_that_is_not_there_is_told() -> None:
    """Where nothing listens the node does not begin, and says where it looked."""
    with nobody() as url:
        error = refused(f"ollama:{url}")
    assert error.code == "engine_missing"
    assert f"ollama does not answer at {url} (Connection refused): start it" in error.detail


def test_an_engine_elsewhere_is_refused() -> None:
    """An engine on another machine, or of which no process is seen here, is not driven: the meters do not see it."""
    assert "no address of this machine" in refused("ollama:http://192.0.2.1:11434").detail
    with Served(OllamaPeer()) as peer:
        error = refused(engine_setting(peer, ",process=not-running"))
    assert "nothing on this machine is called not-running, so this node's meters would not see" in error.detail


def test_a_key_is_shown_and_never_told() -> None:
    """An engine that wants a key gets that of the settings; a wrong one is refused in a sentence without it."""
    with Served(OpenAIPeer(key=KEY)) as peer:
        assert "JOULEBOX_ENGINE_KEY_FILE" in refused(engine_setting(peer), engine_key=SecretStr("wrong-one")).detail
        opened = driven(peer, engine_key=SecretStr(KEY))
        assert end(answered(opened)).finish_reason in ("stop", "length")


def test_an_engine_that_stays_loaded_takes_no_idle_unload() -> None:
    """A policy to unload an idle model is refused where the engine cannot, and taken where it can."""
    with Served(TgiPeer()) as peer, pytest.raises(JouleboxError, match="JOULEBOX_IDLE_UNLOAD_S cannot be used"):
        driven(peer, idle_unload_s=60.0)
    with Served(OllamaPeer()) as peer:
        driven(peer, idle_unload_s=60.0)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_the_page_names_every_engine_and_option(kind: str) -> None:
    """The reference page tells each kind, its usual address and what may follow."""
    from importlib import import_module

    page = (ROOT / "docs" / "reference" / "engines.md").read_text("utf-8")
    module = import_module(KINDS[kind])
    assert f"`{kind}:" in page
    assert module.WHERE in page
    for option, meaning in {**module.OPTIONS, **drivers.EVERY_OPTIONS}.items():
        assert f"| `{option}` | {meaning} |" in page


# --- what goes wrong --------------------------------------------------------------------------------------------------

FAULTS = {
    "cut": "broke off its answer",
    "end": "ended its answer without saying why",
    "garbage": "gave an answer that cannot be read",
    "half": "gave an answer that cannot be read",
    "other": "gave an answer that cannot be read",
    "error": "model runner has unexpectedly stopped",
    "silent": "said nothing for 0.3 s and was given up",
    "silent before": "said nothing for 0.3 s and was given up",
}


@pytest.mark.parametrize("api", ["ollama", "openai"])
@pytest.mark.parametrize("fault", sorted(FAULTS))
def test_a_failing_engine_is_told_and_used_again(api: str, fault: str) -> None:
    """An engine that crashes, hangs or talks nonsense in the middle ends the answer with one sentence; the next is
    whole."""
    with Served(PEERS[api]()) as peer:
        opened = driven(peer, f",silence={0.3 if 'silent' in fault else 20}")
        opened.engine.load(opened.models()[-1])
        peer.fault = fault
        with pytest.raises(JouleboxError) as caught:
            answered(opened)
        assert caught.value.code == "engine_died"
        assert FAULTS[fault] in caught.value.detail
        assert end(answered(opened, prompt(max_tokens=3))).usage.output_tokens == 3


def test_an_engine_that_goes_away_offers_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """While the engine is away the node offers no model, says so once, and goes on when it is back."""
    with Served(OllamaPeer()) as peer:
        opened = driven(peer)
        assert len(opened.models()) == 2
    with caplog.at_level(logging.WARNING):
        assert [opened.models(), opened.models()] == [[], []]
    assert [record.getMessage() for record in caplog.records if "no model is offered" in record.getMessage()] == [
        f"no model is offered: ollama does not answer at {peer.url} (Connection refused): start it."
    ]
    assert opened.engine.loaded is None


def test_a_model_that_left_is_told() -> None:
    """A model that the engine no longer has is refused before anything is asked of it."""
    with Served(OllamaPeer()) as peer:
        opened = driven(peer)
        model = opened.models()[-1]
        peer.names = ("large",)
        with pytest.raises(JouleboxError, match=r"ollama has no model small any more\. It has large\.") as caught:
            opened.engine.load(model)
        assert caught.value.code == "unknown_model"
        with pytest.raises(JouleboxError, match=r"There is no model small here\. Known: large\."):
            opened.model("small")


def test_cancel_reaches_a_silent_engine() -> None:
    """An answer that has not begun is cancelled from another thread, long before the engine would be given up."""
    with Served(VllmPeer(script=Script(load_s=0.0, prefill_s=5.0))) as peer:
        opened = driven(peer)
        opened.engine.load(opened.models()[-1])
        begun_ns = CLOCK.now_ns()
        timer = threading.Timer(0.1, opened.engine.cancel)
        timer.start()
        finished = end(answered(opened))
        timer.join()
    assert (finished.finish_reason, finished.usage.output_tokens) == ("cancelled", 0)
    assert CLOCK.now_ns() - begun_ns < 2 * NS_PER_S


# --- how each is asked ------------------------------------------------------------------------------------------------


def chats(peer: Peer) -> list[dict[str, Any]]:
    return [body for path, body in peer.asked if path == "/api/chat"]


def test_ollama_is_loaded_and_unloaded_apart() -> None:
    """A chat without messages loads the model for good, with the options of the answers; one with no time frees it."""
    with Served(OllamaPeer(held={"large"})) as peer:
        opened = driven(peer, threads=2)
        opened.engine.load(opened.models()[-1])
        answered(opened, prompt(stop=("x",)))
        opened.engine.unload()
        free, load, chat, unload = chats(peer)
    place = {"num_ctx": CONTEXT_TOKENS, "num_thread": 2}
    assert (free["model"], free["keep_alive"], free["messages"]) == ("large", 0, [])
    assert (load["model"], load["keep_alive"], load["messages"], load["options"]) == ("small", -1, [], place)
    assert chat["options"] == place | {"num_predict": 12, "temperature": 0.0, "seed": 0, "stop": ["x"]}
    assert (chat["keep_alive"], chat["truncate"], chat["shift"]) == (-1, False, False)
    assert (unload["model"], unload["keep_alive"]) == ("small", 0)
    assert peer.held == set()


def test_ollama_tells_what_a_model_is() -> None:
    """Digest, quantization, size, memory need and context come from Ollama; what it has answered elsewhere is left
    out."""
    with Served(OllamaPeer()) as peer:
        opened = driven(peer)
        large, small = (model.file for model in opened.models())
    assert (large.id, small.id, opened.engine.info.version) == ("large", "small", "0.13.1")
    assert (small.digest, small.quantization, small.size_bytes) == (f"sha256:{DIGEST}", "Q4_K_M", 1_000_000)
    assert small.context_tokens == CONTEXT_TOKENS
    assert small.memory_bytes is not None
    assert small.memory_bytes > 1_000_000


def test_what_ollama_does_not_count_is_unknown() -> None:
    """An older Ollama leaves the count of a cached prompt out: that is unknown, not zero."""
    with Served(OllamaPeer(tells_cache=False)) as peer:
        opened = driven(peer)
        first, second = end(answered(opened)).usage, end(answered(opened)).usage
    assert (first.input_tokens is None, first.cached_tokens) == (False, None)
    assert (second.input_tokens, second.cached_tokens) == (None, None)


@pytest.mark.parametrize("made", [OllamaPeer, VllmPeer, SglangPeer])
def test_thoughts_are_part_of_the_answer(made: Any) -> None:
    """Thoughts that come in a field of their own stand before the answer between their usual signs, each with its time;
    how many tokens they were is told where the engine tells it."""
    with Served(made(thinks="well then")) as peer:
        events = answered(driven(peer))
    assert text(events).startswith("<think>wellthen</think>")
    assert sum(isinstance(event, Token) for event in events) >= 10
    assert end(events).usage.reasoning_tokens == (2 if made is SglangPeer else None)


def test_vllm_sleeps_between_models() -> None:
    """A vLLM that may sleep is put to sleep to free its memory, and woken to load."""
    with Served(VllmPeer(sleeps=True, asleep=True)) as peer:
        assert isinstance(peer, VllmPeer)
        opened = driven(peer)
        assert len(answered(opened)) > 2
        assert not peer.asleep
        opened.engine.unload()
        assert peer.asleep


@pytest.mark.parametrize(
    ("peer", "advice"),
    [
        (VllmPeer(caching=True), "start it with `--no-enable-prefix-caching`"),
        (SglangPeer(caching=True), "start it with `--disable-radix-cache`"),
        (VllmPeer(), None),
        (SglangPeer(), None),
    ],
)
def test_a_cache_that_is_on_is_told(peer: Peer, advice: str | None) -> None:
    """The doctor names the switch of a prompt cache that is on, and an answer does not claim to be without it."""
    with Served(peer):
        opened = driven(peer)
        check = check_engine(Settings(engine=engine_setting(peer)), CLOCK)
        cached = end(answered(opened)).usage.cached_tokens
    assert (opened.advice is None, cached) == (advice is None, 0 if advice is None else None)
    assert check.state == ("ok" if advice is None else "warn")
    assert (advice or "") in check.mend


def test_lm_studio_loads_and_unloads_instances() -> None:
    """A model is loaded with this node's context after the other one has gone, and what it tells of it is kept."""
    with Served(LmStudioPeer(held={"large"})) as peer:
        opened = driven(peer)
        file = opened.models()[-1].file
        assert len(answered(opened)) > 2
        assert peer.held == {"small"}
        opened.engine.unload()
        assert peer.held == set()
    assert (file.quantization, file.size_bytes, file.digest) == ("Q4_0", 241_410_208, "unknown")
    assert ("/api/v1/models/load", {"model": "small", "context_length": CONTEXT_TOKENS}) in peer.asked


@pytest.mark.parametrize("peer", [OllamaPeer(told_tokens=640), LmStudioPeer(told_tokens=640)])
def test_a_context_of_the_engines_own_is_remembered(peer: OllamaPeer | LmStudioPeer) -> None:
    """A model that its engine gave another context than was asked for stays loaded; one that somebody loaded otherwise
    since is loaded again."""
    with Served(peer):
        opened = driven(peer)
        model = opened.models()[-1]
        opened.engine.load(model)
        assert opened.engine.loaded == model
        peer.told_tokens = 128
        assert opened.engine.loaded is None


def test_tgi_tells_its_revision() -> None:
    """The model's revision stands for its digest, the server's limit for its context."""
    with Served(TgiPeer()) as peer:
        opened = driven(peer)
        (model,) = opened.models()
    assert (model.file.digest, model.file.context_tokens) == ("git:0123abcd", CONTEXT_TOKENS)
    assert (opened.engine.info.name, opened.engine.info.version) == ("tgi", "3.3.4")


def test_a_router_that_cannot_load_says_so() -> None:
    """A model that a router of llama.cpp fails to load is told as broken."""
    with Served(RouterPeer(fails="small")) as peer:
        opened = driven(peer)
        with pytest.raises(JouleboxError, match="llama-server could not load small") as caught:
            opened.engine.load(opened.models()[-1])
    assert caught.value.code == "broken_model"


def test_an_unknown_server_is_warmed_by_a_token() -> None:
    """A server of which nothing is known loads with a prompt of one token, before an answer is measured."""
    with Served(OpenAIPeer()) as peer:
        opened = driven(peer)
        opened.engine.load(opened.models()[-1])
    ((path, body),) = peer.asked
    assert (path, body["model"], body["max_tokens"]) == ("/v1/chat/completions", "small", 1)


# --- under the meters -------------------------------------------------------------------------------------------------


def measured(opened: Driven, asked: Prompt, conditions: Conditions | None = None, meter: str = "none:") -> Trace:
    recorder = Recorder(open_meters([meter]), CLOCK, 10.0)
    recorder.start()
    lease = Lease(token="t", job_id="j", attempt=1, prompt=asked, queued_s=0.0, placement_reason="")
    try:
        return measure(
            lease,
            opened.models()[-1],
            MACHINE,
            opened.engine,
            recorder,
            CLOCK,
            lambda *_, **__: None,
            CLOCK.now_ns(),
            conditions or Conditions(),
        ).trace
    finally:
        recorder.stop()


@pytest.mark.parametrize(
    ("peer", "code"),
    [
        (OllamaPeer(load_ns=2_100_000_000), "hidden_load"),
        (VllmPeer(queue_ms=300.0), "engine_shared"),
        (OpenAIPeer(), "cache_unknown"),
    ],
)
def test_what_an_engine_does_beside_the_answer_is_on_the_receipt(peer: Peer, code: str) -> None:
    """Loading within the answer, waiting behind somebody else's prompt and a cache nobody tells of each have a
    reason."""
    with Served(peer):
        trace = measured(driven(peer), prompt())
    reasons = {reason.code: reason for reason in account(trace, factors(), receipt_id="r", placement=PLACEMENT).reasons}
    assert code in reasons
    assert {"prefill", "decode"} <= dict(trace.engine_s).keys() or peer.api == "openai"
    assert peer.api != "openai" or trace.engine_s == ()


def test_loading_is_a_phase_of_its_own() -> None:
    """The load of a served engine lies before the answer, and a second prompt has none."""
    with Served(OllamaPeer()) as peer:
        opened = driven(peer)
        first, second = measured(opened, prompt()), measured(opened, prompt("And of Spain?"))
        assert (first.model, first.engine) == (opened.models()[-1].file, opened.engine.info)
    load, answer = first.span("load"), first.span("answer")
    assert load is not None
    assert answer is not None
    assert load.end_ns <= answer.start_ns
    assert second.span("load") is None


def test_what_was_there_before_is_not_loaded() -> None:
    """An engine that has its model from its own start has no load phase."""
    with Served(TgiPeer()) as peer:
        assert measured(driven(peer), prompt()).span("load") is None


# --- whose work it is -------------------------------------------------------------------------------------------------

LISTENER = """
import socket
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
input()
"""
needs_linux = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux's /proc")


@needs_linux
def test_the_process_that_listens_is_found() -> None:
    """Who listens at the engine's port is found, and nobody where nothing listens."""
    command = [sys.executable, "-c", LISTENER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        assert engine_processes(port, ()) == frozenset({process.pid})
        name = next(each.name for each in scan().processes if each.pid == process.pid)
        assert process.pid in (engine_processes(None, (name,)) or ())
        process.communicate("\n")
    assert engine_processes(port, ()) == frozenset()


def test_a_system_without_processes_tells_nothing(tmp_path: Path) -> None:
    """Where no process table is shown, nobody can be told apart."""
    assert engine_processes(80, ("ollama",), tmp_path) is None


def test_this_machine_is_known() -> None:
    """Loopback addresses are this machine's; those set aside for documentation are nobody's."""
    assert [is_here(host) for host in ("127.0.0.1", "localhost", "192.0.2.1")] == [True, True, False]


def test_an_engine_is_not_foreign() -> None:
    """What the engine's processes and their children do counts as own work, what others do as foreign."""

    def look(engine_s: float) -> Census:
        rows = [(10, 1, "node", 1.0), (20, 1, "ollama", 2.0), (21, 20, "llama-runner", engine_s), (30, 1, "cron", 1.0)]
        table = tuple(
            Process(pid=pid, start_ticks=pid, name=name, parent=parent, kernel=False, cpu_s=cpu_s, children_cpu_s=0.0)
            for pid, parent, name, cpu_s in rows
        )
        return Census(
            uptime_s=engine_s,
            cores=2,
            busy_s=engine_s,
            steal_s=0.0,
            disk_sectors=0,
            network_bytes=0,
            processes=table,
        )

    seen = witnessed(look(1.0), look(5.0), own=10, server=None, engine=(20,))
    assert (seen.own_s, seen.foreign) == (4.0, ())
    assert witnessed(look(1.0), look(5.0), own=10, server=None).foreign[0].name == "llama-runner"


def test_the_doctor_tells_of_the_engine(tmp_path: Path) -> None:
    """The doctor says which engine answers, its version and models, and what is wrong where none does."""
    with Served(OllamaPeer()) as peer:
        check = check_engine(Settings(engine=engine_setting(peer)), CLOCK)
        assert (check.state, check.found) == ("ok", f"ollama 0.13.1 at {peer.url}, with large, small")
    check = check_engine(Settings(engine=engine_setting(peer)), CLOCK)
    assert check.state == "bad"
    assert "does not answer" in check.mend
    own = check_engine(Settings(data_dir=tmp_path), CLOCK)
    assert own.state == "ok"
    assert own.found.endswith("in a process of the node's own, with no model yet")


def test_the_models_of_the_engine_are_listed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`joulebox models list` shows what the engine that is set has, sizes that it does not tell as unknown."""
    with Served(TgiPeer()) as peer:
        monkeypatch.setenv("JOULEBOX_ENGINE", engine_setting(peer))
        models_list()
    out = capsys.readouterr().out
    assert f"org/small  unknown  file size unknown, memory as its engine decides with {CONTEXT_TOKENS} tokens" in out


# --- the real thing ---------------------------------------------------------------------------------------------------


def test_the_wheels_server_is_driven(smollm2: Path) -> None:
    """llama.cpp's own server, driven by its address and key, answers; file, digest and build are known."""
    with llama_servers.of_the_wheel(smollm2, CONTEXT_TOKENS) as (url, key):
        settings = Settings(engine=f"llama-server:{url}", context_tokens=CONTEXT_TOKENS, engine_key=SecretStr(key))
        opened = open_engine(settings, CLOCK)
        (model,) = opened.models()
        opened.engine.load(replace(model, default_system="You are a helpful assistant."))
        events = answered(opened)
    assert "Paris" in text(events)
    assert end(events).usage.cached_tokens == 0
    assert model.file.digest.startswith("sha256:b179c952")
    assert (model.file.quantization, model.file.context_tokens) == ("Q4_1", CONTEXT_TOKENS)
    assert opened.engine.info.name == "llama-server"


@pytest.mark.slow
@needs_linux
def test_a_real_engines_work_is_own(smollm2: Path) -> None:
    """What a real engine that is nobody's child computes is own work to who looks for its processes."""
    with llama_servers.of_the_wheel(smollm2, CONTEXT_TOKENS, orphan=True) as (url, key):
        settings = Settings(engine=f"llama-server:{url}", context_tokens=CONTEXT_TOKENS, engine_key=SecretStr(key))
        opened = open_engine(settings, CLOCK)
        asked = prompt("Tell me a long story.", max_tokens=200)
        known = measured(opened, asked, Conditions(look=scan, engine=opened.processes), "model:").neighbours
        unknown = measured(opened, asked, Conditions(look=scan), "model:").neighbours
    assert known is not None
    assert unknown is not None
    assert known.own_s > 1.0
    assert unknown.own_s < 0.5 * known.own_s


# --- the page that tells how to write one -----------------------------------------------------------------------------

PAGE = ROOT / "docs" / "how-to" / "add-an-engine.md"
DRIVER, NAMES, TEST = (
    "src/joulebox/node/engines/lines.py",
    "src/joulebox/node/driven.py",
    "tests/test_engine_lines.py",
)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """The files that the page shows, its driver registered."""
    shown = {name: tmp_path / name for name in files_of(PAGE)}
    for name, path in shown.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(files_of(PAGE)[name])
    for kind, module in ast.literal_eval("{" + files_of(PAGE)[NAMES] + "}").items():
        monkeypatch.setitem(KINDS, kind, module)
        module_of(shown[DRIVER], module, monkeypatch)
    return shown


def test_the_driver_of_the_page_passes_the_test_of_the_page(
    files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The example, registered as the page says, does what its test says."""
    assert set(files) == {DRIVER, NAMES, TEST}
    module_of(files[TEST], "test_engine_lines", monkeypatch).test_an_engine_in_lines()


def test_the_code_of_the_page_keeps_the_house_style(files: dict[str, Path]) -> None:
    """Format and lint find nothing in the files of the page."""
    for words in (["format", "--check"], ["check"]):
        line = [sys.executable, "-m", "ruff", *words, "--no-cache", "--config", str(ROOT / "pyproject.toml")]
        done = subprocess.run(
            [*line, str(files[DRIVER]), str(files[TEST])], capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 0, done.stdout + done.stderr
