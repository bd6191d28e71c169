"""One conformance suite for every engine, then what is particular to each: processes, deaths, scripts."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Literal

import pytest
from pydantic import SecretStr

import llama_servers
import torch_peer
from engine_peers import CLOCK, PEERS, Served, driven
from gguf_files import gguf_bytes, write_gguf
from joulebox.clock import Clock, SimulatedClock, SystemClock
from joulebox.errors import JouleboxError
from joulebox.model import Message, Prompt
from joulebox.node.driven import open_engine
from joulebox.node.engine import Engine, Event, Finished, LocalModel, Started, Token
from joulebox.node.engines.llamacpp import LlamaCpp
from joulebox.node.engines.scripted import Script, Scripted
from joulebox.node.models import Registry
from joulebox.settings import Settings
from joulebox.units import NS_PER_S, nanoseconds

CONTEXT_TOKENS = 512
FRANCE = "What is the capital of France?"


def prompt(question: str = FRANCE, max_tokens: int = 12, stop: tuple[str, ...] = (), seed: int = 0) -> Prompt:
    message = Message(role="user", content=question)
    return Prompt(model="m", messages=(message,), max_tokens=max_tokens, stop=stop, seed=seed)


CITY = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 12}}, "required": ["city"],
        "additionalProperties": False}  # fmt: skip


def text(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Token))


def end(events: list[Event]) -> Finished:
    last = events[-1]
    assert isinstance(last, Finished)
    return last


def wait_s(clock: Clock, duration_s: float) -> None:
    clock.sleep_until(clock.now_ns() + nanoseconds(duration_s))


@dataclass(frozen=True, kw_only=True)
class Case:
    """An engine with a model it can load, whether it tells its own times, and whether it has a prompt cache: one that
    is off, one that tells what came from it, or one that does not."""

    engine: Engine
    model: LocalModel
    clock: Clock
    tells_times: bool = True
    cache: Literal["off", "told", "untold"] = "off"


TELL_TIMES = {"ollama", "vllm", "router"}
CACHES: dict[str, Literal["off", "told", "untold"]] = {
    "ollama": "told",
    "openai": "untold",
    "tgi": "untold",
    "lmstudio": "untold",
}


@pytest.fixture(scope="session")
def small(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> LocalModel:
    """SmolLM2 with a short context."""
    registry = Registry(tmp_path_factory.mktemp("data"), CONTEXT_TOKENS)
    return registry.add(smollm2, "smollm2", default_system="You are a helpful assistant.")


@pytest.fixture(scope="module")
def llamacpp(small: LocalModel) -> Iterator[Case]:
    clock = SystemClock()
    # One thread: two that wait for each other are several times slower where other tests want the cores.
    engine = LlamaCpp(clock, threads=1, context_tokens=CONTEXT_TOKENS)
    yield Case(engine=engine, model=small, clock=clock)
    engine.unload()


@pytest.fixture
def scripted(tmp_path: Path) -> Case:
    clock = SimulatedClock()
    model = Registry(tmp_path).add(write_gguf(tmp_path / "m.gguf"))
    return Case(engine=Scripted(clock, context_tokens=CONTEXT_TOKENS), model=model, clock=clock)


@pytest.fixture(scope="module")
def wheel_server(smollm2: Path) -> Iterator[Case]:
    """llama.cpp's own server out of the wheel, driven by its address."""
    with llama_servers.of_the_wheel(smollm2, CONTEXT_TOKENS) as (url, key):
        yield of_server(url, key)


@pytest.fixture(scope="module")
def real_server(smollm2: Path) -> Iterator[Case]:
    """A real `llama-server`, driven by its address."""
    with llama_servers.of_its_own(smollm2, CONTEXT_TOKENS) as url:
        yield of_server(url, None)


def of_server(url: str, key: str | None) -> Case:
    secret = SecretStr(key) if key else None
    settings = Settings(engine=f"llama-server:{url}", context_tokens=CONTEXT_TOKENS, engine_key=secret)
    clock = SystemClock()
    opened = open_engine(settings, clock)
    (model,) = opened.models()
    return Case(engine=opened.engine, model=replace(model, default_system="You are a helpful assistant."), clock=clock)


@pytest.fixture(scope="module")
def transformers(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Case]:
    """The real transformers with SmolLM2 as a folder of safetensors; skipped where it was not installed."""
    data_dir = tmp_path_factory.mktemp("torch")
    torch_peer.registry(data_dir, CONTEXT_TOKENS).add(
        torch_peer.folder(smollm2), "smollm2", default_system="You are a helpful assistant."
    )
    opened, clock = torch_peer.opened(data_dir, CONTEXT_TOKENS), SystemClock()
    yield Case(engine=opened.engine, model=opened.model("smollm2"), clock=clock, tells_times=False)
    opened.engine.unload()


@pytest.fixture(scope="module")
def served() -> Iterator[Callable[[str], Case]]:
    """Engines that run as servers, each opened when it is first wanted."""
    with ExitStack() as stack:

        @cache
        def opened(api: str) -> Case:
            found = driven(stack.enter_context(Served(PEERS[api]())))
            model, caches = found.models()[-1], CACHES.get(api, "off")
            return Case(engine=found.engine, model=model, clock=CLOCK, tells_times=api in TELL_TIMES, cache=caches)

        yield opened


@pytest.fixture(
    params=[
        "llamacpp",
        "scripted",
        *PEERS,
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("wheel_server", "real_server")),
        pytest.param("transformers", marks=[pytest.mark.slow, pytest.mark.timeout(900)]),
    ]
)
def case(request: pytest.FixtureRequest, served: Callable[[str], Case]) -> Case:
    """Each engine in turn, its model loaded."""
    case: Case = served(request.param) if request.param in PEERS else request.getfixturevalue(request.param)
    if case.engine.loaded != case.model:
        case.engine.load(case.model)
    return case


# --- what every engine keeps ------------------------------------------------------------------------------------------


def test_events_come_in_order_with_their_times(case: Case) -> None:
    """`Started`, tokens and `Finished` follow each other in time, and the engine's own count covers the tokens seen."""
    before_ns = case.clock.now_ns()
    events = list(case.engine.generate(prompt()))
    assert isinstance(events[0], Started)
    tokens = events[1:-1]
    assert tokens
    assert all(isinstance(event, Token) and event.text and event.n >= 1 for event in tokens)
    times = [before_ns, *(event.t_ns for event in events), case.clock.now_ns()]
    assert times == sorted(times)
    finished = end(events)
    seen = sum(event.n for event in tokens if isinstance(event, Token))
    assert finished.usage.output_tokens is not None
    # The sign that ends an answer is a token without text.
    assert seen <= finished.usage.output_tokens <= seen + 1
    assert finished.usage.input_tokens is not None
    assert finished.usage.input_tokens > 5


def test_engine_times_fit_the_clock(case: Case) -> None:
    """Prefill and decode by the engine's own account, where it gives one, take no longer than the answer did on our
    clock."""
    events = list(case.engine.generate(prompt()))
    finished = end(events)
    assert (finished.prefill_s is not None) == case.tells_times
    if finished.prefill_s is None or finished.decode_s is None:
        return
    assert 0 < finished.prefill_s + finished.decode_s <= (finished.t_ns - events[0].t_ns) / NS_PER_S + 0.05


def test_the_same_prompt_has_the_same_answer(case: Case) -> None:
    """A prompt repeats word for word, and what came from a cache is told or unknown; another question differs."""
    first, second = (list(case.engine.generate(prompt())) for _ in range(2))
    other = list(case.engine.generate(prompt("Name three colours of the rainbow.")))
    assert text(first) == text(second) != text(other)
    told, again = end(first).usage, end(second).usage
    assert replace(told, cached_tokens=None) == replace(again, cached_tokens=None)
    assert again.cached_tokens == {"off": 0, "told": again.input_tokens, "untold": None}[case.cache]


def test_max_tokens_ends_the_answer(case: Case) -> None:
    """An answer that reaches `max_tokens` ends there and says so."""
    finished = end(list(case.engine.generate(prompt(max_tokens=3))))
    assert (finished.finish_reason, finished.usage.output_tokens) == ("length", 3)


def test_a_stop_word_ends_the_answer(case: Case) -> None:
    """The answer ends before a stop word, which is not shown."""
    whole = text(list(case.engine.generate(prompt())))
    word = whole.split()[2]
    events = list(case.engine.generate(prompt(stop=(word,))))
    assert text(events) == whole[: whole.index(word)]
    assert end(events).finish_reason == "stop"


def test_too_long_a_prompt_is_refused_with_both_numbers(case: Case) -> None:
    """A prompt beyond the context is refused with its length and the limit, and the engine goes on."""
    with pytest.raises(JouleboxError, match=rf"takes at most {CONTEXT_TOKENS}") as caught:
        list(case.engine.generate(prompt("word " * 700)))
    assert caught.value.code == "prompt_too_long"
    tokens = caught.value.extra["input_tokens"]
    assert isinstance(tokens, int)
    assert 700 <= tokens < 800
    assert case.engine.loaded == case.model
    assert end(list(case.engine.generate(prompt(max_tokens=2)))).usage.output_tokens == 2


def test_cancel_ends_the_answer(case: Case) -> None:
    """A cancelled answer ends at once as `cancelled`, with what was counted until then, and nothing of it lingers."""
    events: list[Event] = []
    for event in case.engine.generate(prompt("Tell me a long story.", max_tokens=400)):
        events.append(event)
        if len(events) == 4:
            case.engine.cancel()
    finished = end(events)
    assert (finished.finish_reason, len(events)) == ("cancelled", 5)
    assert finished.usage.output_tokens is not None
    assert 3 <= finished.usage.output_tokens < 400
    case.engine.cancel()
    answer_again(case)


def test_closing_the_iterator_cancels(case: Case) -> None:
    """Who stops listening ends the answer; the next one is whole."""
    answer = case.engine.generate(prompt("Tell me a long story.", max_tokens=400))
    assert isinstance(answer, Iterator)
    for _ in range(3):
        next(answer)
    answer.close()  # type: ignore[attr-defined]
    answer_again(case)


def answer_again(case: Case) -> None:
    if case.engine.loaded is None:
        case.engine.load(case.model)
    assert end(list(case.engine.generate(prompt(max_tokens=2)))).finish_reason == "length"


def test_unload_may_be_repeated(case: Case) -> None:
    """After `unload`, once or twice, nothing is loaded and a prompt is refused; loading brings it back."""
    case.engine.unload()
    case.engine.unload()
    assert case.engine.loaded is None
    with pytest.raises(JouleboxError, match="No model is loaded") as caught:
        next(case.engine.generate(prompt()))
    assert caught.value.code == "engine_died"
    case.engine.load(case.model)
    assert case.engine.loaded == case.model


def test_a_model_beyond_the_memory_is_not_loaded(case: Case) -> None:
    """A model that cannot fit this machine is refused before anything is started for it."""
    giant = replace(case.model, file=replace(case.model.file, memory_bytes=1 << 60))
    with pytest.raises(JouleboxError) as caught:
        case.engine.load(giant)
    assert caught.value.code == "model_too_big"
    assert case.engine.loaded is None


def test_a_file_that_is_gone_is_told(case: Case) -> None:
    """A model whose file is gone, or which its engine no longer has, is refused with that name."""
    gone = replace(case.model, path=case.model.path.with_name("gone.gguf"))
    with pytest.raises(JouleboxError, match=r"gone\.gguf") as caught:
        case.engine.load(gone)
    assert caught.value.code in ("broken_model", "unknown_model")
    assert case.engine.loaded is None


# --- llama.cpp --------------------------------------------------------------------------------------------------------


@pytest.fixture
def real(llamacpp: Case) -> LlamaCpp:
    """llama.cpp with SmolLM2 loaded."""
    assert isinstance(llamacpp.engine, LlamaCpp)
    if llamacpp.engine.loaded is None:
        llamacpp.engine.load(llamacpp.model)
    return llamacpp.engine


def ends(pid: int, within_s: float) -> bool:
    """Whether a process is gone, or nothing but a zombie, before `within_s` is over."""
    clock = SystemClock()
    deadline_ns = clock.now_ns() + nanoseconds(within_s)
    while clock.now_ns() < deadline_ns:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state in "ZX":
            return True
        wait_s(clock, 0.01)
    return False


def test_the_real_model_really_answers(real: LlamaCpp) -> None:
    """SmolLM2 knows the capital of France."""
    assert "Paris" in text(list(real.generate(prompt())))


def test_a_system_message_of_ones_own_is_kept(real: LlamaCpp) -> None:
    """The model's default system message is added only where the conversation has none."""
    user, system = prompt().messages[0], Message(role="system", content="You are a helpful assistant.")
    spelled, bare = (replace(prompt(), messages=messages) for messages in ((system, user), (user,)))
    first, second = list(real.generate(spelled)), list(real.generate(bare))
    assert text(first) == text(second)
    assert end(first).usage == end(second).usage
    longer = replace(system, content="You are a helpful assistant who speaks like a pirate of old.")
    third = list(real.generate(replace(prompt(), messages=(longer, user))))
    assert (end(third).usage.input_tokens or 0) > (end(first).usage.input_tokens or 0)


def test_signs_of_several_tokens_are_counted(real: LlamaCpp) -> None:
    """A sign that takes several tokens arrives as one piece that says how many it holds."""
    events = list(real.generate(prompt("Say 😀🎉 back to me, only emojis", max_tokens=24)))
    counts = [event.n for event in events if isinstance(event, Token)]
    assert max(counts) > 1
    assert sum(counts) <= (end(events).usage.output_tokens or 0)


def test_cancel_from_another_thread_in_the_prefill(real: LlamaCpp, llamacpp: Case) -> None:
    """An answer is cancelled while the engine still reads the prompt; afterwards the engine is idle or ended."""
    answer = real.generate(prompt("word " * 450))
    started = next(answer)
    timer = threading.Timer(0.15, real.cancel)
    timer.start()
    events = [started, *answer]
    timer.join()
    assert end(events).finish_reason == "cancelled"
    assert end(events).t_ns - started.t_ns < 6 * NS_PER_S
    if real.pid is not None:
        assert cpu_s(real.pid, during_s=0.5) < 0.1
    answer_again(llamacpp)


def cpu_s(pid: int, during_s: float) -> float:
    """CPU time that all threads of a process take within a while."""
    clock = SystemClock()
    before_s = spent_s(pid)
    wait_s(clock, during_s)
    return spent_s(pid) - before_s


def spent_s(pid: int) -> float:
    return sum(int(path.read_text().split()[0]) for path in Path(f"/proc/{pid}/task").glob("*/schedstat")) / NS_PER_S


def test_a_loaded_engine_is_silent(real: LlamaCpp) -> None:
    """Between prompts the engine takes less than 2 ms of CPU in a second and wakes at most a handful of times."""
    list(real.generate(prompt(max_tokens=8)))
    assert real.pid is not None
    wait_s(SystemClock(), 0.2)
    wakes = switches(real.pid)
    assert cpu_s(real.pid, during_s=1.0) < 0.002
    assert switches(real.pid) - wakes <= 6


def switches(pid: int) -> int:
    """How often threads of a process have been put to work."""
    lines = [
        line
        for path in Path(f"/proc/{pid}/task").glob("*/status")
        for line in path.read_text().splitlines()
        if line.startswith("voluntary_ctxt_switches")
    ]
    return sum(int(line.split()[1]) for line in lines)


def test_memory_need_is_not_understated(real: LlamaCpp, llamacpp: Case) -> None:
    """After a prompt that fills the context, the engine holds no more than was foretold, and not less than half."""
    list(real.generate(prompt("word " * 450, max_tokens=30)))
    status = Path(f"/proc/{real.pid}/status").read_text()
    peak_bytes = next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))
    assert 0.5 < peak_bytes / (llamacpp.model.file.memory_bytes or 0) <= 1.0


@pytest.mark.parametrize(("number", "when"), [(signal.SIGKILL, "answering"), (signal.SIGSEGV, "idle")])
def test_a_dead_engine_is_told_and_comes_back(
    real: LlamaCpp, llamacpp: Case, number: signal.Signals, when: str
) -> None:
    """An engine process that dies is told with its signal, is no longer loaded, and loads again."""
    answer = real.generate(prompt("Tell me a long story.", max_tokens=400))
    assert real.pid is not None
    if when == "answering":
        next(answer)
        next(answer)
    os.kill(real.pid, number)
    with pytest.raises(JouleboxError, match=rf"was ended by {number.name}") as caught:
        list(answer)
    assert (caught.value.code, caught.value.extra["exit_code"]) == ("engine_died", -number)
    assert real.loaded is None
    answer_again(llamacpp)


def test_a_broken_file_is_told(real: LlamaCpp, llamacpp: Case, tmp_path: Path) -> None:
    """A file that llama.cpp cannot load is told by its name, and a sound one loads afterwards."""
    path = tmp_path / "broken.gguf"
    with llamacpp.model.path.open("rb") as sound:
        cut = sound.read(3_000_000)
    for broken in (cut, gguf_bytes(), b"GGUF no more"):
        path.write_bytes(broken)
        with pytest.raises(JouleboxError, match=r"broken\.gguf") as caught:
            real.load(replace(llamacpp.model, path=path))
        assert caught.value.code == "broken_model"
        assert real.loaded is None
    answer_again(llamacpp)


def test_strangers_are_not_served(real: LlamaCpp) -> None:
    """Another program on the machine cannot use the engine: it does not know the key."""
    import httpx2

    assert real.pid is not None
    inodes = {str(path.readlink()) for path in Path(f"/proc/{real.pid}/fd").iterdir()}
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    ports = [int(row[1].split(":")[1], 16) for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in inodes]
    assert len(ports) == 1
    request = {"messages": [{"role": "user", "content": "hi"}]}
    reply = httpx2.post(f"http://127.0.0.1:{ports[0]}/v1/chat/completions", json=request, trust_env=False)
    assert reply.status_code == httpx2.codes.UNAUTHORIZED


PARENT = """
import sys
from pathlib import Path
from joulebox.clock import SystemClock
from joulebox.node.engines.llamacpp import LlamaCpp
from joulebox.node.models import Registry
engine = LlamaCpp(SystemClock(), None, 512)
engine.load(Registry(Path(sys.argv[1]), 512).add(Path(sys.argv[2])))
print(engine.pid, flush=True)
sys.stdin.read()
"""


def test_the_engine_ends_with_its_parent(smollm2: Path, tmp_path: Path) -> None:
    """When the node is killed, its engine process is gone within a second."""
    command = [sys.executable, "-c", PARENT, str(tmp_path), str(smollm2)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert not ends(pid, 0.05)
        parent.kill()
        assert ends(pid, 1.0)


def test_unload_ends_the_process_quickly(real: LlamaCpp) -> None:
    """SIGTERM ends the engine process within a second."""
    pid = real.pid
    assert pid is not None
    clock = SystemClock()
    before_ns = clock.now_ns()
    real.unload()
    assert ends(pid, 0.1)
    assert clock.now_ns() - before_ns < NS_PER_S


@pytest.mark.parametrize(
    ("module", "said"),
    [
        ("raise ModuleNotFoundError(\"No module named 'xllamacpp'\")", "not installed"),
        ("raise ImportError('libgomp.so.1: cannot open shared object file')", "install the package libgomp1"),
        ("import os; os.abort()", "was ended by SIGABRT while it read"),
        ("import os; os.kill(os.getpid(), 9)", "is there enough memory"),
    ],
)
def test_an_engine_that_cannot_start_is_told(
    small: LocalModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, said: str
) -> None:
    """A missing wheel, a missing system library and a crash at the start each have their own sentence."""
    (tmp_path / "xllamacpp.py").write_text(module)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    engine = LlamaCpp(SystemClock(), None, CONTEXT_TOKENS)
    with pytest.raises(JouleboxError, match=said):
        engine.load(small)
    assert engine.loaded is None


# --- scripted ---------------------------------------------------------------------------------------------------------


def test_a_script_is_kept_to_the_nanosecond(scripted: Case) -> None:
    """Tokens come exactly when the script says, on a clock that only moves by being waited on."""
    assert isinstance(scripted.engine, Scripted)
    scripted.engine.load(scripted.model)
    scripted.engine.script = Script(prefill_s=0.8, token_s=0.05, tokens=4)
    start_ns = scripted.clock.now_ns()
    events = list(scripted.engine.generate(prompt()))
    after_s = [round((event.t_ns - start_ns) / NS_PER_S, 9) for event in events]
    assert after_s == [0.0, 0.8, 0.85, 0.9, 0.95, 0.95]
    assert end(events).prefill_s == 0.8
    assert end(events).decode_s == pytest.approx(0.15)


def test_activity_follows_the_script(tmp_path: Path, scripted: Case) -> None:
    """Whoever models the machine is told when load, prefill and decode begin and when they end."""
    told: list[tuple[float, float]] = []
    clock = SimulatedClock()
    script = Script(load_s=0.5, prefill_s=0.3, token_s=0.1, tokens=3)
    engine = Scripted(clock, script, lambda t_ns, level: told.append((t_ns / NS_PER_S, level)))
    engine.load(scripted.model)
    list(engine.generate(prompt()))
    assert told == [(0.0, 0.4), (0.5, 0.0), (0.5, 1.0), (0.8, 0.7), (1.0, 0.0)]


@pytest.mark.parametrize("after", [0, 2])
def test_a_scripted_death(scripted: Case, after: int) -> None:
    """An engine that is to die after so many tokens gives exactly these and is then not loaded any more."""
    assert isinstance(scripted.engine, Scripted)
    told: list[float] = []
    engine = Scripted(scripted.clock, Script(die_after_tokens=after), lambda _, level: told.append(level))
    engine.load(scripted.model)
    events: list[Event] = []
    with pytest.raises(JouleboxError) as caught:
        events.extend(engine.generate(prompt()))
    assert caught.value.code == "engine_died"
    assert (engine.loaded, told[-1]) == (None, 0.0)


def test_a_scripted_broken_model(scripted: Case) -> None:
    """A script may say that loading fails."""
    assert isinstance(scripted.engine, Scripted)
    scripted.engine.script = Script(broken=True)
    with pytest.raises(JouleboxError) as caught:
        scripted.engine.load(scripted.model)
    assert caught.value.code == "broken_model"


def test_a_scripted_answer_depends_on_question_and_seed(scripted: Case) -> None:
    """Other questions and other seeds give other answers, without anything being drawn from outside."""
    scripted.engine.load(scripted.model)
    asked = [prompt("One?"), prompt("Two?"), prompt("One?", seed=1)]
    answers = [text(list(scripted.engine.generate(each))) for each in asked]
    assert len(set(answers)) == 3


def test_a_scripted_cancel_in_the_prefill(scripted: Case) -> None:
    """A cancel that falls into the prefill ends the answer within a look, without a token."""
    assert isinstance(scripted.engine, Scripted)
    assert isinstance(scripted.clock, SimulatedClock)
    scripted.engine.load(scripted.model)
    scripted.engine.script = Script(prefill_s=5.0)
    start_ns = scripted.clock.now_ns()
    scripted.clock.call_at(start_ns + nanoseconds(0.42), scripted.engine.cancel)
    events = list(scripted.engine.generate(prompt()))
    assert len(events) == 2
    assert (end(events).finish_reason, end(events).usage.output_tokens) == ("cancelled", 0)
    assert (events[-1].t_ns - start_ns) / NS_PER_S == pytest.approx(0.45, abs=0.001)


def test_the_model_writes_nothing_but_the_schema(tmp_path: Path, smollm2: Path) -> None:
    """Held to a JSON schema, a model that would write a sentence writes JSON of that schema."""
    engine = LlamaCpp(SystemClock(), 1, CONTEXT_TOKENS)
    engine.load(Registry(tmp_path).add(smollm2, "m"))
    try:
        free = prompt(max_tokens=40)
        held = replace(free, json_schema=json.dumps(CITY), temperature=0.8, top_p=0.9, seed=5)
        assert list(json.loads(text(list(engine.generate(held))))) == ["city"]
        with pytest.raises(json.JSONDecodeError):
            json.loads(text(list(engine.generate(free))))
    finally:
        engine.unload()
