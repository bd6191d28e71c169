"""Models from a hub and from Ollama: chosen, fetched, gone on with after a break, checked, refused in one sentence."""

import contextlib
import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import hub_peer
from commands import joulebox
from gguf_files import gguf_bytes
from hub_peer import TOKEN, Peer, Repository
from joulebox.clock import SystemClock
from joulebox.errors import JouleboxError
from joulebox.model import Message, Prompt
from joulebox.node import models
from joulebox.node.engine import Token
from joulebox.node.engines.llamacpp import LlamaCpp
from joulebox.node.engines.ollama_pull import pull
from joulebox.node.hub import PREFERRED, UNDER_WAY, Hub, HubFile, choose, fetch_into, hub_source, named
from joulebox.node.models import Registry

pytest.importorskip("huggingface_hub", reason="the extra `models` brings huggingface_hub")

MIB = 1 << 20
GB = 1_000_000_000
TINY = gguf_bytes(weights=bytes(4 * MIB))
LARGE = gguf_bytes(weights=bytes(48 * MIB))
"""So large that the library, which writes 10 MiB at a time, has written some when it breaks off."""
NAME = "Tiny-Q4_K_M.gguf"
REPOSITORY = "maker/Tiny-GGUF"
NOBODY = "http://127.0.0.1:9"


@pytest.fixture
def peer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Peer]:
    """A hub with one small model, and a machine that knows no other hub and no token."""
    with hub_peer.hub(maker__Tiny=Repository({}), **{"maker__Tiny-GGUF": Repository({NAME: TINY})}) as made:
        monkeypatch.setenv("HF_ENDPOINT", made.url)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("JOULEBOX_DATA_DIR", str(tmp_path / "data"))
        monkeypatch.setattr(models, "available_memory_bytes", lambda: 3 * GB)
        monkeypatch.chdir(tmp_path)
        yield made


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "data")


def add(registry: Registry, name: str = NAME, repository: str = REPOSITORY) -> Any:
    """Fetch a file as the command line does."""
    hub = Hub()
    return fetch_into(registry, hub, named(hub.files(repository), name), "tiny")


def refused(registry: Registry, said: str, code: str = "model_fetch", **asked: str) -> str:
    """The sentence of an attempt that leaves nothing behind."""
    with pytest.raises(JouleboxError, match=said) as caught:
        add(registry, **asked)
    assert caught.value.code == code
    assert registry.list() == []
    assert "\n" not in caught.value.detail
    return caught.value.detail


def left_behind(registry: Registry) -> list[str]:
    """The files below the models' folder, without locks."""
    files = registry.folder.rglob("*") if registry.folder.is_dir() else ()
    return sorted(path.name for path in files if path.is_file() and path.suffix != ".lock")


def test_a_file_is_fetched_and_registered(peer: Peer, registry: Registry) -> None:
    """A file comes whole, its progress is told, it is registered with the digest that the hub tells, and only once."""
    hub, seen = Hub(), list[tuple[int, int]]()
    [file] = hub.files(REPOSITORY)
    assert (file.quantization, file.licence, file.gated) == ("Q4_K_M", "apache-2.0", False)
    model = fetch_into(registry, hub, file, "tiny", lambda done, total: seen.append((done, total)))
    assert (model.file.id, model.path.read_bytes()) == ("tiny", TINY)
    assert model.file.digest == f"sha256:{hashlib.sha256(TINY).hexdigest()}"
    assert (len(TINY), len(TINY)) in seen
    assert all(done <= total for done, total in seen)
    assert left_behind(registry) == ["maker--Tiny-GGUF--Tiny-Q4_K_M.gguf"]
    asked = peer.bodies()
    assert add(registry) == model
    assert peer.bodies() == asked == 1
    registry.remove("tiny")
    assert left_behind(registry) == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)])
def test_a_stopped_download_goes_on_where_it_was(peer: Peer, registry: Registry, number: int, code: int) -> None:
    """A download that is killed or interrupted half way is gone on with by the same command, from where it was."""
    peer.stall = True
    peer.repositories[REPOSITORY].files[NAME] = LARGE
    command = [sys.executable, "-m", "joulebox", "models", "add", f"hf:{REPOSITORY}/{NAME}", "--name", "tiny"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment())
    assert peer.half_way.wait(30)
    part = wait_for_part(registry)
    process.send_signal(number)
    told = process.communicate()[1].decode()
    assert process.returncode == code, told
    assert ("What came is kept" in told) == (number == signal.SIGINT)
    assert registry.list() == []
    peer.stall = False
    peer.leave.set()
    assert add(registry).path.read_bytes() == LARGE
    assert peer.ranges[0] is None
    assert 0 < part <= start_of(peer.ranges[1]) <= len(LARGE) // 2 + MIB


def environment() -> dict[str, str]:
    """That of a command that finds the same modules."""
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def start_of(asked: str | None) -> int:
    """From which byte on a file was asked for."""
    return int((asked or "bytes=0-").removeprefix("bytes=").partition("-")[0])


def wait_for_part(registry: Registry) -> int:
    """The size of what came, as soon as some did."""
    gate = threading.Event()
    for _ in range(300):
        for path in registry.folder.rglob("*.part"):
            if path.stat().st_size:
                return path.stat().st_size
        gate.wait(0.02)
    raise AssertionError("nothing came")


def test_a_cut_connection_is_told_or_mended(peer: Peer, registry: Registry) -> None:
    """Where the connection breaks the library tries again, or the next attempt goes on; never is half a file taken."""
    peer.repositories[REPOSITORY].files[NAME] = LARGE
    peer.cuts = [25 * MIB]
    try:
        model = add(registry)
    except JouleboxError as error:
        assert error.code == "model_fetch"
        assert "goes on" in error.detail
        assert registry.list() == []
        model = add(registry)
    assert model.path.read_bytes() == LARGE
    assert 0 < start_of(peer.ranges[1]) <= 25 * MIB


def test_a_wrong_digest_is_refused(peer: Peer, registry: Registry) -> None:
    """A file that has not the digest that the hub tells is neither registered nor kept."""
    peer.repositories[REPOSITORY].digests[NAME] = "0" * 64
    refused(registry, "has not the sha256 that the hub tells")
    assert left_behind(registry) == []


def test_a_gated_model_says_where_to_accept(
    peer: Peer, registry: Registry, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A gated model tells where its terms are accepted; with a token that may it comes, and nothing shows the token."""
    peer.repositories[REPOSITORY].gated = True
    detail = refused(registry, "is gated: accept its terms at")
    assert f"{peer.url}/{REPOSITORY}" in detail
    assert "HF_TOKEN" in detail
    monkeypatch.setenv("HF_TOKEN", "hf_nobodyKnowsThis")
    assert "hf_nobodyKnowsThis" not in refused(registry, "does not know your token")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    code, out, err = joulebox(capsys, "models", "add", f"hf:{REPOSITORY}")
    assert code == 0
    assert f"It is gated: its terms must be accepted at {peer.url}/{REPOSITORY}" in out
    assert TOKEN not in out + err
    assert TOKEN in peer.tokens
    assert peer.beside == {None}


def test_what_is_not_there_is_told(peer: Peer, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """A repository or file that is not there, one without models and a silent hub have a sentence each."""
    refused(registry, "has no repository maker/None, or it is private", repository="maker/None")
    refused(registry, r"has no file Tiny-Q8_0.gguf. It has Tiny-Q4_K_M.gguf", name="Tiny-Q8_0.gguf")
    refused(registry, "has no model in one GGUF file", repository="maker/Tiny")
    refused(registry, "no name of a repository", code="bad_request", repository="maker/..")
    monkeypatch.setenv("HF_ENDPOINT", NOBODY)
    refused(registry, f"{NOBODY} does not answer")
    assert left_behind(registry) == []


@pytest.mark.parametrize("text", ["", "maker", "maker/", "/", "maker//x.gguf"])
def test_sources_that_name_nothing(text: str) -> None:
    """What is no repository is refused with the form that one has."""
    with pytest.raises(JouleboxError, match="OWNER/NAME"):
        hub_source(text)


def test_sources() -> None:
    """A source is a repository, or a file of one, in a folder or not."""
    assert hub_source("maker/Tiny") == ("maker/Tiny", None)
    assert hub_source("maker/Tiny/a.gguf") == ("maker/Tiny", "a.gguf")
    assert hub_source("maker/Tiny/Q4/a.gguf") == ("maker/Tiny", "Q4/a.gguf")


def file_of(name: str, size_bytes: int = 1000) -> HubFile:
    return HubFile(
        repository="m/T", name=name, revision="r", size_bytes=size_bytes, sha256=None, licence=None, gated=False
    )


@pytest.mark.parametrize(
    ("name", "quantization"),
    [
        ("Meta-Llama-3.1-8B-Instruct-Q4_K_M.gguf", "Q4_K_M"),
        ("tinyllama-1.1b-chat-v1.0.Q4_K_M.gguf", "Q4_K_M"),
        ("qwen2.5-0.5b-instruct-q4_k_m.gguf", "Q4_K_M"),
        ("Q8/model-IQ4_XS.gguf", "IQ4_XS"),
        ("Phi-3-mini-4k-instruct-q4.gguf", "Q4"),
        ("Phi-3-mini-4k-instruct-fp16.gguf", "FP16"),
        ("Qwen3-8B-BF16.gguf", "BF16"),
        ("gpt-oss-20b-mxfp4.gguf", "MXFP4"),
        ("model.gguf", "unknown"),
    ],
)
def test_quantisations_by_name(name: str, quantization: str) -> None:
    """How a file's weights are stored is read from its name, as all makers write it."""
    assert file_of(name).quantization == quantization


def test_the_quantisation_that_fits_is_taken() -> None:
    """Of several files the first in the order of preference that the memory holds is taken; none is refused by name."""
    sizes = {"Q8_0": 9 * GB, "Q4_K_M": 5 * GB, "Q3_K_M": 4 * GB, "Q2_K": 3 * GB, "F16": 16 * GB}
    files = [file_of(f"T-{quantization}.gguf", size_bytes) for quantization, size_bytes in sizes.items()]
    taken = [choose(files, room_gb * GB + 100 * MIB, 4096).quantization for room_gb in (20, 5, 4, 3)]
    assert taken == ["Q4_K_M", "Q4_K_M", "Q3_K_M", "Q2_K"]
    with pytest.raises(JouleboxError, match=r"T-Q2_K\.gguf needs at least .* the largest of the catalog that fits is"):
        choose(files, 2 * GB, 4096)
    assert len(set(PREFERRED)) == len(PREFERRED)


def test_parts_and_projectors_are_no_models(peer: Peer) -> None:
    """A part of a split model, a projector and what is no GGUF file are not offered."""
    peer.repositories[REPOSITORY].files |= {
        "T-Q8_0-00001-of-00002.gguf": b"1",
        "mmproj-F16.gguf": b"2",
        "model.safetensors": b"3",
    }
    assert [one.name for one in Hub().files(REPOSITORY)] == [NAME]


def test_too_big_a_model_is_refused_before_it_is_fetched(peer: Peer, tmp_path: Path) -> None:
    """What this node cannot hold is refused with both numbers and the largest model of the catalog that it can."""
    small = Registry(tmp_path / "data", available_bytes=MIB)
    refused(small, "needs at least 38 MB of memory .* has 1 MB for models: none of the catalog fits", "model_too_big")
    peer.repositories[REPOSITORY].sizes[NAME] = 30 * GB
    machine = Registry(tmp_path / "data", available_bytes=2 * GB)
    refused(machine, r"has 2\.0 GB for models: the largest of the catalog that fits is \S+ \(joulebox", "model_too_big")
    assert peer.bodies() == 0


def test_what_the_header_shows_to_be_too_big_is_not_kept(peer: Peer, tmp_path: Path) -> None:
    """A model whose need only its header tells is refused after it came, and its file removed again."""
    machine = Registry(tmp_path / "data", available_bytes=40 * MIB)
    refused(machine, "needs .* of memory with a context of", "model_too_big")
    assert left_behind(machine) == []


def test_a_name_that_is_taken_is_refused_before_anything_is_fetched(peer: Peer, registry: Registry) -> None:
    """A name that belongs to another model is refused before gigabytes come for nothing."""
    own = Path("own.gguf")
    own.write_bytes(gguf_bytes())
    registry.add(own, "tiny")
    with pytest.raises(JouleboxError, match="Another model is called tiny already"):
        add(registry)
    assert peer.bodies() == 0


@pytest.mark.parametrize(
    "name",
    ["a\0b.gguf", "../../../x.gguf", "a/../x.gguf", "\ud800.gguf", "a\nb.gguf", "\u202efugg.gguf", "x" * 250 + ".gguf"],
)
def test_a_name_that_no_file_has_is_refused(peer: Peer, registry: Registry, name: str) -> None:
    """A hub that names a file with NUL, steps upwards or signs that nobody sees ends in one sentence; nothing comes."""
    peer.repositories[REPOSITORY].files[name] = TINY
    detail = refused(registry, "names a file that can be none here", name=name)
    assert detail.isprintable()
    assert (peer.bodies(), left_behind(registry)) == (0, [])


@pytest.mark.parametrize("digest", ["../../../../x", "a\0b", "", "AA" * 32])
def test_a_digest_that_is_none_is_refused(peer: Peer, registry: Registry, digest: str) -> None:
    """What a hub tells as digest stands in a file's name here: anything but a digest is refused."""
    peer.repositories[REPOSITORY].digests[NAME] = digest
    refused(registry, "names a file that can be none here")
    assert (peer.bodies(), left_behind(registry)) == (0, [])


@pytest.mark.parametrize(
    "told",
    [b"[]", b"{}", b'{"siblings": 5}', b'{"siblings": [{"rfilename": {"a": 1}, "size": "x"}]}', b"[" * 5_000, b"\xff"],
)
def test_a_hub_that_answers_nonsense_is_told(peer: Peer, registry: Registry, told: bytes) -> None:
    """Whatever a hub says of a repository, one sentence ends it."""
    peer.info = told
    refused(registry, ".")


def test_too_little_disk_is_told_before(peer: Peer, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file for which the disk has no room is refused before it is fetched, with both numbers and the folder."""
    free = models_free(registry)
    peer.repositories[REPOSITORY].sizes[NAME] = free + GB
    huge = Registry(registry.folder.parent, available_bytes=free * 10)
    detail = refused(huge, "takes .* of disk, .* are free in")
    assert str(registry.folder) in detail
    assert peer.bodies() == 0


def models_free(registry: Registry) -> int:
    """What is free where the models are kept."""
    status = os.statvfs(registry.folder.parent.parent)
    return status.f_bavail * status.f_frsize


def test_a_disk_that_fills_up_leaves_nothing(peer: Peer, registry: Registry) -> None:
    """Where no further byte can be written while a file comes, one sentence says so and what came is removed again."""
    command = [sys.executable, "-m", "joulebox", "models", "add", f"hf:{REPOSITORY}/{NAME}"]

    def narrow() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (MIB, MIB))

    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        preexec_fn=narrow,
        env=environment(),
    )
    assert done.returncode == 1, done.stderr
    [sentence] = [line for line in done.stderr.splitlines() if line.startswith("joulebox:")]
    assert "The disk is full" in sentence
    assert "JOULEBOX_MODELS_DIR" in sentence
    assert "Traceback" not in done.stderr
    assert (registry.list(), left_behind(registry)) == ([], [])


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 320 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=320m", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if made.returncode != 0:
        pytest.skip("a file system of its own needs root")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.slow
def test_a_disk_that_another_fills_leaves_nothing(peer: Peer, small_disk: Path) -> None:
    """Where somebody else takes the last room while a file comes, one sentence says so and what came is removed."""
    peer.repositories[REPOSITORY].files[NAME] = LARGE
    peer.stall = True
    command = [sys.executable, "-m", "joulebox", "models", "add", f"hf:{REPOSITORY}", "--data-dir", str(small_disk)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment())
    assert peer.half_way.wait(30)
    with (small_disk / "filler").open("wb", buffering=0) as filler, contextlib.suppress(OSError):
        while True:
            filler.write(bytes(MIB))
    peer.leave.set()
    told = process.communicate()[1].decode()
    assert process.returncode == 1
    assert "The disk is full" in told
    assert left_behind(Registry(small_disk)) == []


def test_who_adds_at_the_same_time_fetches_once(peer: Peer, registry: Registry) -> None:
    """Of several that add one model at the same moment one fetches it, and all get it."""
    got: list[Any] = []
    threads = [threading.Thread(target=lambda: got.append(add(registry))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 4
    assert len({model.file.digest for model in got}) == 1
    assert (peer.bodies(), len(registry.list())) == (1, 1)


def test_without_the_library_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation without the extra says which one brings the library."""
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(JouleboxError, match=r"pip install 'joulebox\[models\]'"):
        Hub()


# --- the command line -------------------------------------------------------------------------------------------------


def test_the_licence_stands_before_the_download(peer: Peer, capsys: pytest.CaptureFixture[str]) -> None:
    """`models add hf:...` says which file, how large and under which licence before it fetches, then what it takes."""
    peer.repositories[REPOSITORY].files["Tiny-Q8_0.gguf"] = gguf_bytes()
    code, out, err = joulebox(capsys, "models", "add", f"hf:{REPOSITORY}", "--name", "mine")
    lines = out.splitlines()
    assert code == 0
    assert lines[0] == f"{REPOSITORY} has 2 files; Q4_K_M is taken."
    assert lines[1] == f"{NAME}  Q4_K_M  4 MB  licence: apache-2.0"
    assert lines[2].startswith("mine: file 4 MB, memory ")
    assert f"fetching {NAME} 100 %" in err
    assert [one["id"] for one in json.loads(joulebox(capsys, "models", "list", "--json")[1])] == ["mine"]
    again = joulebox(capsys, "models", "add", f"hf:{REPOSITORY}/{NAME}", "--name", "b")[1]
    assert "It is here already, as mine." in again


def test_a_model_of_the_catalog_is_fetched_by_its_name(peer: Peer, capsys: pytest.CaptureFixture[str]) -> None:
    """`models add tinyllama` takes repository and file of the catalog, shows its licence, and calls it so."""
    name = "tinyllama-1.1b-chat-v1.0.Q4_K_M.gguf"
    peer.repositories["TheBloke/TinyLlama-1.1B-Chat-v1.0-GGUF"] = Repository({name: TINY}, licence=None)
    code, out, _ = joulebox(capsys, "models", "add", "tinyllama")
    assert code == 0
    assert f"{name}  Q4_K_M  4 MB  licence: Apache-2.0" in out
    assert out.splitlines()[-1].startswith("tinyllama-1.1b: file 4 MB")
    assert "here as tinyllama-1.1b" in joulebox(capsys, "models", "list", "--catalog")[1]


@pytest.mark.parametrize(
    ("source", "code", "part"),
    [
        ("hf:maker", 2, "hf:OWNER/NAME"),
        ("hf:maker/None", 1, "has no repository"),
        ("tinylama", 2, "Did you mean"),
        ("ollama:", 2, "ollama:NAME"),
        ("none/of.gguf", 1, "There is no file"),
    ],
)
def test_wrong_sources(peer: Peer, capsys: pytest.CaptureFixture[str], source: str, code: int, part: str) -> None:
    """A source that is none is one sentence on stderr, and an exit code."""
    done, out, err = joulebox(capsys, "models", "add", source)
    assert (done, out) == (code, "")
    assert part in err
    assert "Traceback" not in err


# --- Ollama -----------------------------------------------------------------------------------------------------------

PULLED: list[dict[str, Any]] = [
    {"status": "pulling manifest"},
    {"status": "pulling aa", "digest": "sha256:aa", "total": 900, "completed": 300},
    {"status": "pulling bb", "digest": "sha256:bb", "total": 100},
    {"status": "pulling aa", "digest": "sha256:aa", "total": 900, "completed": 900},
    {"status": "pulling bb", "digest": "sha256:bb", "total": 100, "completed": 100},
    {"status": "verifying sha256 digest"},
    {"status": "writing manifest"},
    {"status": "success"},
]


def test_ollama_pulls() -> None:
    """Ollama is asked for the model by its name, and what it tells of each layer adds up to one progress."""
    seen: list[tuple[int, int]] = []
    with hub_peer.ollama(PULLED) as (url, asked):
        pull(f"{url}/", "llama3.2:1b", lambda done, total: seen.append((done, total)))
    assert asked == [{"path": "/api/pull", "model": "llama3.2:1b", "stream": True}]
    assert seen == [(300, 900), (300, 1000), (900, 1000), (1000, 1000)]


@pytest.mark.parametrize(
    ("lines", "status", "said"),
    [
        ([{"error": "pull model manifest: file does not exist"}], 200, "library has no model nope"),
        ([{"error": "model 'nope' not found"}], 404, "library has no model nope"),
        ([PULLED[0], {"error": "write /x: no space left on device"}], 200, "disk of the Ollama at .* is full"),
        ([{"error": "max retries exceeded"}], 200, "could not fetch nope: max retries exceeded"),
        ([], 500, "it answered 500"),
        (PULLED[:4], 200, "broke off while it fetched nope"),
    ],
)
def test_what_ollama_complains_of(lines: list[dict[str, Any]], status: int, said: str) -> None:
    """Whatever Ollama complains of, or where it breaks off, one sentence says it."""
    with hub_peer.ollama(lines, status) as (url, _), pytest.raises(JouleboxError, match=said) as caught:
        pull(url, "nope")
    assert caught.value.code == "model_fetch"


@pytest.mark.parametrize("url", [NOBODY, "127.0.0.1:9", "ftp://127.0.0.1", "http://[::1"])
def test_no_ollama_is_told(url: str) -> None:
    """Where no Ollama answers, or the address is none, the sentence says how to start and name one."""
    with pytest.raises(JouleboxError, match=r"No Ollama answers at .* \(ollama serve\)"):
        pull(url, "llama3")


def test_ollama_on_the_command_line(
    peer: Peer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`models add ollama:NAME` has the Ollama that OLLAMA_HOST names pull it, and tells how a node offers it."""
    with hub_peer.ollama(PULLED) as (url, asked):
        monkeypatch.setenv("OLLAMA_HOST", url.removeprefix("http://"))
        code, out, _ = joulebox(capsys, "models", "add", "ollama:tinyllama:1.1b")
    assert code == 0
    assert [one["model"] for one in asked] == ["tinyllama:1.1b"]
    assert out.splitlines() == [
        "tinyllama:1.1b  1.1B  licence: Apache-2.0",
        f"tinyllama:1.1b is in the Ollama at {url}.",
        f"A node offers it with JOULEBOX_ENGINE=ollama:{url}.",
    ]


def test_the_catalog_goes_with_the_engine(
    peer: Peer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name of the catalog is fetched by the Ollama that is the node's engine; others bring their own models."""
    with hub_peer.ollama(PULLED) as (url, asked):
        monkeypatch.setenv("JOULEBOX_ENGINE", f"ollama:{url},process=ollama")
        code, out, _ = joulebox(capsys, "models", "add", "tinyllama")
        assert (code, [one["model"] for one in asked]) == (0, ["tinyllama:1.1b"])
        assert out == f"tinyllama:1.1b  1.1B  licence: Apache-2.0\ntinyllama:1.1b is in the Ollama at {url}.\n"
        assert "needs about" in joulebox(capsys, "models", "add", "llama3")[2]
        assert "needs about" in joulebox(capsys, "models", "add", "ollama:phi4:14b")[2]
        assert "no name in Ollama's library" in joulebox(capsys, "models", "add", "smollm3")[2]
        assert len(asked) == 1
        assert "does not run it" in joulebox(capsys, "models", "add", f"hf:{REPOSITORY}")[2]
    monkeypatch.setenv("JOULEBOX_ENGINE", "openai:http://127.0.0.1:9")
    code, _, err = joulebox(capsys, "models", "add", "tinyllama")
    assert code == 2
    assert "brings its own models" in err


# --- the real model ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_fetched_model_answers(peer: Peer, registry: Registry, smollm2: Path) -> None:
    """A real model that came through the hub, broken off once on its way, is loaded and answers a prompt."""
    name = smollm2.name
    peer.repositories["maker/Smol-GGUF"] = Repository({name: smollm2.read_bytes()})
    hub = Hub()
    [file] = hub.files("maker/Smol-GGUF")
    peer.cuts = [40 * MIB]
    try:
        model = fetch_into(registry, hub, file, "smol")
    except JouleboxError:
        model = fetch_into(registry, hub, file, "smol")
    assert start_of(peer.ranges[1]) > 0
    engine = LlamaCpp(SystemClock(), threads=1, context_tokens=512)
    messages = (
        Message(role="system", content="You are a helpful assistant."),
        Message(role="user", content="What is the capital of France?"),
    )
    try:
        engine.load(model)
        prompt = Prompt(model="smol", messages=messages, max_tokens=12, seed=0)
        text = "".join(event.text for event in engine.generate(prompt) if isinstance(event, Token))
    finally:
        engine.unload()
    assert "Paris" in text
    assert list((registry.folder / UNDER_WAY).glob("*.part")) == []
