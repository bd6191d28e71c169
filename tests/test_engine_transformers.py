"""The engine transformers: how text comes out of tokens, folders of safetensors, and what only the real thing shows.

The suite that every engine passes runs over it in `test_engines.py`.
"""

import json
import os
import signal
import struct
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import torch_peer
from gguf_files import write_gguf
from joulebox.clock import SystemClock
from joulebox.errors import JouleboxError
from joulebox.model import Message, Prompt
from joulebox.node.driven import Driven, open_engine
from joulebox.node.engine import Finished, LocalModel, Token
from joulebox.node.engines.transformers import Transformers
from joulebox.node.engines.transformers_process import Text
from joulebox.node.models import Registry
from joulebox.settings import Settings
from joulebox.units import NS_PER_S

CONTEXT_TOKENS = 512
SYSTEM = "You are a helpful assistant."
CONFIG = {
    "model_type": "llama", "num_hidden_layers": 2, "hidden_size": 8, "num_attention_heads": 2,
    "num_key_value_heads": 1, "max_position_embeddings": 2048, "vocab_size": 11,
}  # fmt: skip


# --- text -------------------------------------------------------------------------------------------------------------


class Bytes:
    """A tokenizer whose tokens are bytes of UTF-8."""

    def decode(self, tokens: list[int], *, skip_special_tokens: bool) -> str:
        return bytes(tokens).decode(errors="replace")


def pieces(answer: str, *stops: str) -> tuple[list[tuple[str, int]], bool]:
    """What is told of an answer that comes a byte at a time, and whether a stop word ended it."""
    told: list[tuple[str, int]] = []
    text = Text(Bytes(), list(stops), lambda line: told.append((line["text"], line["n"])))
    for token in answer.encode():
        text.add(token)
    text.end()
    return told, text.stopped


def test_text_comes_in_whole_signs_and_counts_every_token() -> None:
    """A sign of several tokens comes as one piece that says how many it holds, and nothing is lost or said twice."""
    assert pieces("aé😀") == ([("a", 1), ("é", 2), ("😀", 4)], False)
    told, _ = pieces("Voilà: 水 and 😀🎉, over and over. " * 20)
    assert "".join(text for text, _ in told) == "Voilà: 水 and 😀🎉, over and over. " * 20


@pytest.mark.parametrize(
    ("stops", "shown", "stopped"),
    [
        (("cd",), "ab", True),
        (("ce",), "abcdef", False),
        (("bcx", "de"), "abc", True),
        (("f",), "abcde", True),
        (("fg",), "abcdef", False),
        (("abcdef",), "", True),
    ],
)
def test_nothing_of_a_stop_word_is_shown(stops: tuple[str, ...], shown: str, *, stopped: bool) -> None:
    """What may become a stop word waits until it has, or cannot any more; at the end it comes out."""
    told, ended = pieces("abcdef", *stops)
    assert ("".join(text for text, _ in told), ended) == (shown, stopped)


# --- folders ----------------------------------------------------------------------------------------------------------


def weights(path: Path, shape: tuple[int, ...] = (3, 4), *, missing: int = 0) -> None:
    """A file of safetensors with one tensor of 16-bit numbers."""
    size = 2 * shape[0] * shape[1]
    head = json.dumps({"w": {"dtype": "BF16", "shape": shape, "data_offsets": [0, size]}}).encode()
    path.write_bytes(struct.pack("<Q", len(head)) + head + bytes(size - missing))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "small"
    path.mkdir()
    (path / "config.json").write_text(json.dumps(CONFIG))
    (path / "tokenizer.json").write_text("{}")
    weights(path / "model.safetensors")
    return path


def registry(tmp_path: Path) -> Registry:
    return torch_peer.registry(tmp_path / "data", CONTEXT_TOKENS)


def test_a_folder_is_a_model(tmp_path: Path, folder: Path) -> None:
    """A folder of safetensors is taken up with its size and form, and only engines that run it offer it."""
    model = registry(tmp_path).add(folder)
    assert (model.file.id, model.file.quantization, model.file.context_tokens) == ("small", "BF16", CONTEXT_TOKENS)
    assert model.file.size_bytes == (folder / "model.safetensors").stat().st_size
    registry(tmp_path).add(write_gguf(tmp_path / "other.gguf"))
    assert [each.file.id for each in registry(tmp_path).list()] == ["other", "small"]
    llamacpp = Registry(tmp_path / "data")
    assert [each.file.id for each in llamacpp.list()] == ["other"]
    with pytest.raises(JouleboxError, match="no model small here"):
        llamacpp.get("small")
    registry(tmp_path).remove("small")
    assert folder.is_dir()


def test_the_digest_covers_all_that_makes_the_answer(tmp_path: Path, folder: Path) -> None:
    """Another tokenizer makes another digest and is seen as a change; another README does not."""
    first = registry(tmp_path).add(folder)
    (folder / "README.md").write_text("words")
    assert registry(tmp_path).add(folder).file.digest == first.file.digest
    (folder / "tokenizer.json").write_text('{"other": 1}')
    with pytest.raises(JouleboxError, match="has changed since it was added"):
        registry(tmp_path).get("small")
    assert registry(tmp_path).add(folder, "again").file.digest != first.file.digest


def test_weights_in_several_files_are_counted_together(tmp_path: Path, folder: Path) -> None:
    """The files that the index names are the weights; one that lies outside the folder is refused."""
    whole = registry(tmp_path).add(folder).file
    (folder / "model.safetensors").rename(folder / "a.safetensors")
    weights(folder / "b.safetensors")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"v": "a.safetensors", "w": "b.safetensors"}}))
    both = registry(tmp_path).add(folder, "both").file
    assert both.size_bytes == 2 * (whole.size_bytes or 0)
    assert (both.memory_bytes or 0) - (whole.memory_bytes or 0) == 2 * 2 * 12
    index.write_text(json.dumps({"weight_map": {"w": "../b.safetensors"}}))
    with pytest.raises(JouleboxError, match="names other files"):
        registry(tmp_path).add(folder, "outside")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("model.safetensors", None, r"holds no model\.safetensors"),
        ("model.safetensors", b"", "cut short"),
        ("model.safetensors", b"\xff" * 64, "cut short"),
        ("model.safetensors", struct.pack("<Q", 2) + b"{}", "no weights"),
        ("model.safetensors", struct.pack("<Q", 13) + b'{"w":[1,2,3]}', "cannot be used"),
        ("config.json", None, r"a folder without a model"),
        ("config.json", b"[]", "no JSON object"),
        ("config.json", b"{}", "num_hidden_layers"),
        ("config.json", json.dumps(CONFIG | {"hidden_size": -1}).encode(), "hidden_size"),
        ("config.json", json.dumps(CONFIG | {"num_key_value_heads": "x"}).encode(), "make no sense"),
    ],
)
def test_a_broken_folder_is_told(tmp_path: Path, folder: Path, name: str, content: bytes | None, said: str) -> None:
    """What is wrong with a folder is one sentence, and nothing is taken up."""
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    with pytest.raises(JouleboxError, match=said) as caught:
        registry(tmp_path).add(folder)
    assert caught.value.code == "broken_model"
    assert registry(tmp_path).list() == []


def test_a_folder_that_was_cut_is_told(tmp_path: Path, folder: Path) -> None:
    """A download that broke off is seen before anything is loaded."""
    weights(folder / "model.safetensors", missing=1)
    with pytest.raises(JouleboxError, match="cut short"):
        registry(tmp_path).add(folder)


# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "code", "said"),
    [
        ("transformers:http://127.0.0.1:1", "bad_setting", "has no address"),
        ("transformers:,flavour=x", "bad_setting", "leave out flavour"),
        ("transformers:,dtype=int4", "bad_setting", "bfloat16"),
        ("transformers:,device=tpu", "bad_setting", "cuda"),
        ("transformers:,python=/nowhere/python", "engine_missing", "/nowhere/python cannot be run"),
        ("transformers:,python=/bin/true", "engine_missing", "/bin/true cannot be run"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused(tmp_path: Path, setting: str, code: str, said: str) -> None:
    """Addresses, unknown options and Pythons that are none are each refused in a sentence."""
    with pytest.raises(JouleboxError, match=said) as caught:
        open_engine(Settings(engine=setting, data_dir=tmp_path), SystemClock())
    assert caught.value.code == code


def test_missing_packages_are_named(tmp_path: Path) -> None:
    """Without torch the engine says what is missing in which Python, and what to run."""
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S "$@"\n')
    bare.chmod(0o755)
    with pytest.raises(JouleboxError, match=r"needs transformers, torch.*pip install 'joulebox\[transformers\]'"):
        open_engine(Settings(engine=f"transformers:,python={bare}", data_dir=tmp_path), SystemClock())


# --- the real thing ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def driven(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driven]:
    """The real engine with SmolLM2 twice: as a folder of safetensors and as a GGUF file."""
    data_dir = tmp_path_factory.mktemp("torch")
    known = torch_peer.registry(data_dir, CONTEXT_TOKENS)
    known.add(torch_peer.folder(smollm2), "safetensors", default_system=SYSTEM)
    known.add(smollm2, "gguf", default_system=SYSTEM)
    opened = torch_peer.opened(data_dir, CONTEXT_TOKENS)
    yield opened
    opened.engine.unload()


@pytest.fixture
def real(driven: Driven) -> Transformers:
    """The real engine with its model loaded."""
    assert isinstance(driven.engine, Transformers)
    loaded = driven.engine.loaded
    if loaded is None or loaded.file.id != "safetensors":
        driven.engine.load(driven.model("safetensors"))
    return driven.engine


def asked(question: str = "What is the capital of France?", **more: Any) -> Prompt:
    return Prompt(model="m", messages=(Message(role="user", content=question),), max_tokens=12, **more)


def answer(engine: Transformers, prompt: Prompt) -> tuple[str, Finished]:
    events = list(engine.generate(prompt))
    finished = events[-1]
    assert isinstance(finished, Finished)
    return "".join(event.text for event in events if isinstance(event, Token)), finished


def peak_bytes(engine: Transformers) -> int:
    status = Path(f"/proc/{engine.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("name", "dtype"), [("gguf", "float32"), ("safetensors", "bfloat16")])
def test_the_real_transformers_really_answers(driven: Driven, name: str, dtype: str) -> None:
    """From either form the model knows the capital of France; versions, device and form of its numbers are told, and
    it holds no more memory than was foretold, and not less than half."""
    engine, model = driven.engine, driven.model(name)
    assert isinstance(engine, Transformers)
    engine.load(model)
    assert "Paris" in answer(engine, asked())[0]
    assert engine.info.name == "transformers"
    assert engine.info.version.endswith(f", cpu, {dtype}")
    assert "torch 2" in engine.info.version
    answer(engine, asked("word " * 450))
    assert 0.5 < peak_bytes(engine) / (model.file.memory_bytes or 0) <= 1.0


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_seed_repeats_a_draw(real: Transformers) -> None:
    """With a temperature the same seed draws the same answer, and another seed another."""
    drawn = {seed: answer(real, asked(temperature=1.5, top_p=0.95, seed=seed))[0] for seed in (1, 2, 3)}
    assert answer(real, asked(temperature=1.5, top_p=0.95, seed=1))[0] == drawn[1]
    assert len(set(drawn.values())) > 1


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_what_it_cannot_do_is_refused(real: Transformers) -> None:
    """A JSON schema is refused in a sentence, and so is a conversation that its template does not take."""
    with pytest.raises(JouleboxError, match="JSON schema") as caught:
        list(real.generate(asked(json_schema='{"type": "object"}')))
    assert caught.value.code == "bad_request"
    assert real.loaded is not None


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_cancel_in_a_long_prefill(real: Transformers) -> None:
    """An answer that is cancelled while its prompt is read ends as `cancelled`; the process has stopped or is ended."""
    events = real.generate(replace(asked("word " * 450), max_tokens=400))
    started = next(iter(events))
    timer = threading.Timer(0.1, real.cancel)
    timer.start()
    *_, last = events
    timer.join()
    assert isinstance(last, Finished)
    assert last.finish_reason == "cancelled"
    assert last.t_ns - started.t_ns < 6 * NS_PER_S


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_between_prompts_it_is_silent(real: Transformers) -> None:
    """Between prompts the process takes less than 2 ms of processor time in a second."""
    clock = SystemClock()
    answer(real, asked())
    clock.sleep_until(clock.now_ns() + NS_PER_S // 5)
    before_ns = spent_ns(real)
    clock.sleep_until(clock.now_ns() + NS_PER_S)
    assert spent_ns(real) - before_ns < 2_000_000


def spent_ns(engine: Transformers) -> int:
    return sum(int(path.read_text().split()[0]) for path in Path(f"/proc/{engine.pid}/task").glob("*/schedstat"))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_death_is_told_and_it_comes_back(real: Transformers, driven: Driven) -> None:
    """A process that is killed is told by its signal, is not loaded any more, and loads again."""
    events = real.generate(replace(asked("Tell me a long story."), max_tokens=400))
    next(iter(events))
    next(iter(events))
    assert real.pid is not None
    os.kill(real.pid, signal.SIGKILL)
    with pytest.raises(JouleboxError, match="was ended by SIGKILL") as caught:
        list(events)
    assert caught.value.code == "engine_died"
    assert real.loaded is None
    real.load(driven.model("safetensors"))
    assert "Paris" in answer(real, asked())[0]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", ["code", "pickled", "cut", "untold"])
def test_code_and_pickles_are_never_taken(driven: Driven, tmp_path: Path, kind: str) -> None:
    """A model that brings code, has its weights pickled, or is damaged is refused, and nothing of it runs."""
    sound = driven.model("safetensors")
    path, ran = tmp_path / "bad", tmp_path / "ran"
    path.mkdir()
    for file in sound.path.iterdir():
        (path / file.name).write_bytes(file.read_bytes())
    config = json.loads((path / "config.json").read_text())
    if kind == "code":
        own = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.Own"}
        (path / "config.json").write_text(json.dumps(config | {"model_type": "own", "auto_map": own}))
        (path / "own.py").write_text(f"open({str(ran)!r}, 'w')")
    elif kind == "pickled":
        (path / "model.safetensors").rename(path / "pytorch_model.bin")
    elif kind == "cut":
        (path / "model.safetensors").write_bytes((sound.path / "model.safetensors").read_bytes()[:3_000_000])
    else:
        (path / "config.json").write_text(json.dumps(config | {"model_type": "nobody"}))
    with pytest.raises(JouleboxError, match=str(path)) as caught:
        driven.engine.load(LocalModel(file=sound.file, path=path))
    assert caught.value.code == "broken_model"
    assert not ran.exists()
    assert driven.engine.loaded is None
