"""The catalog: what it says is well formed, fits what files say of themselves, and is found by every name."""

import json
import re
from pathlib import Path

import pytest

from commands import joulebox
from joulebox.catalog import CatalogModel, about, catalog, find, known
from joulebox.errors import JouleboxError
from joulebox.node import models
from joulebox.node.fetch import DEFAULT
from joulebox.node.fitting import fits, largest_fitting, need_bytes
from joulebox.node.gguf import read_header
from joulebox.node.models import memory_need_bytes

GB = 1_000_000_000
ORIGINAL = ("codellama", "gemma", "llama2", "llama3", "mistral", "stablelm2", "sqlcoder", "tinyllama", "wizardlm")


def test_every_entry_is_whole() -> None:
    """Each model has one source, a licence, and figures that can be."""
    for model in catalog():
        assert (model.hf is None) == (model.file is None), model.id
        assert (model.hf is None) != (model.package is None), model.id
        assert re.fullmatch(r"[a-z0-9][a-z0-9._-]*", model.id), model.id
        assert model.hf is None or re.fullmatch(r"[\w.-]+/[\w.-]+", model.hf), model.id
        assert model.file is None or model.file.endswith(".gguf"), model.id
        assert model.sha256 is None or re.fullmatch(r"[0-9a-f]{64}", model.sha256), model.id
        assert model.size_bytes is None or 50_000_000 < model.size_bytes < 200 * GB, model.id
        assert re.fullmatch(r"\d+(\.\d+)?[BM]", model.parameters), model.id
        assert model.quantization, model.id
        assert model.licence, model.id


def test_no_name_means_two_models() -> None:
    """Every id, alias, name of Ollama, file and digest belongs to one model alone."""
    names = [name for model in catalog() for name in {model.id, *model.aliases, model.ollama} if name is not None]
    assert sorted(names) == sorted(set(names))
    for told in ("file", "sha256"):
        values = [getattr(model, told) for model in catalog() if getattr(model, told) is not None]
        assert len(values) == len(set(values))
    assert all(name == name.lower() for name in names)


def test_the_models_of_the_original_service_are_there() -> None:
    """What the original service offered can be added by the names it had there."""
    assert [find(name).hf is not None for name in ORIGINAL] == [True] * len(ORIGINAL)


def test_sizes_go_with_parameters() -> None:
    """A file is as large as its parameters in that quantisation make it."""
    for model in catalog():
        if model.size_bytes is None:
            continue
        parameters = float(model.parameters[:-1]) * (1e9 if model.parameters.endswith("B") else 1e6)
        bits = 8 * model.size_bytes / parameters
        # a name does not count the embeddings, of which small models have many
        assert 4 <= bits <= (11 if model.quantization.startswith("Q8") else 9), (model.id, bits)


def test_the_default_model_is_that_of_its_package(smollm2: Path) -> None:
    """The catalog tells of the default model what its package and its header tell, memory need included."""
    model = find(DEFAULT.id)
    assert (model.package, model.sha256, model.size_bytes) == (DEFAULT.requirement, DEFAULT.sha256, DEFAULT.size_bytes)
    assert model.licence == DEFAULT.licence
    header = read_header(smollm2)
    assert (model.quantization, model.context_tokens) == (header.quantization, header.context_tokens)
    for context in (512, 4096, 8192):
        assert need_bytes(model, context) == memory_need_bytes(header, DEFAULT.size_bytes, context)
    assert need_bytes(model, 100_000) == need_bytes(model, 8192)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("llama3", "llama3-8b"),
        ("LLAMA3.2", "llama3.2-3b"),
        ("llama3.2:1b", "llama3.2-1b"),
        (" qwen3-4b ", "qwen3-4b"),
        ("qwen2.5-coder-1.5b-instruct", "qwen2.5-coder-1.5b"),
    ],
)
def test_names_are_found(name: str, found: str) -> None:
    """A model is found by its id, its aliases and its name in Ollama's library, whatever the case."""
    assert find(name).id == found


def test_unknown_names_suggest_the_nearest() -> None:
    """A name that is not there is refused with those that come nearest, and with the other sources."""
    with pytest.raises(JouleboxError, match=r"Did you mean .*tinyllama") as caught:
        find("tinylama")
    assert caught.value.code == "unknown_model"
    with pytest.raises(JouleboxError, match=r"no model 'xyzzy'. `joulebox models list --catalog`"):
        find("xyzzy")


def test_a_node_s_model_is_recognised_by_its_digest_first() -> None:
    """Whatever a person calls a file, its digest tells what it is; a name tells where the digest does not."""
    mistral = find("mistral")
    assert known("mine", f"sha256:{mistral.sha256}") == mistral
    assert known("tinyllama", f"sha256:{mistral.sha256}") == mistral
    assert known("tinyllama", "sha256:" + "0" * 64) == find("tinyllama")
    assert known("mine", "sha256:" + "0" * 64) is None
    assert about("llama3.2:1b", "sha256:0") == {
        "family": "Llama 3.2",
        "parameters": "1B",
        "licence": "Llama 3.2 Community License",
    }
    assert set(about("mine", "").values()) == {None}


def test_what_fits() -> None:
    """A model fits by its need, does not where its file alone is too large, and where neither tells nobody knows."""
    model = find("llama3.2-1b")
    need = need_bytes(model, 4096)
    assert need is not None
    assert model.size_bytes is not None
    assert need > model.size_bytes
    assert (fits(model, 4096, need), fits(model, 4096, need - 1)) == (True, False)
    shapeless = find("smollm3")
    assert need_bytes(shapeless, 4096) is None
    assert (fits(shapeless, 4096, 64 * GB), fits(shapeless, 4096, GB)) == (None, False)
    best = largest_fitting(4096, 3 * GB)
    assert best is not None
    assert fits(best, 4096, 3 * GB)
    others = [one for one in catalog() if fits(one, 4096, 3 * GB) and not one.gated]
    assert max(others, key=lambda one: need_bytes(one, 4096) or 0) == best
    assert largest_fitting(4096, 1000) is None


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own, on a machine with 3 GB for a model."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JOULEBOX_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setattr(models, "available_memory_bytes", lambda: 3 * GB)
    return tmp_path


def test_the_catalog_is_listed(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`models list --catalog` tells of each model its size, its licence, and whether it fits this machine."""
    code, out, err = joulebox(capsys, "models", "list", "--catalog")
    assert (code, err) == (0, "")
    [line] = [line for line in out.splitlines() if line.startswith("llama3.2-1b ")]
    assert line.split(maxsplit=5)[1:5] == ["Q4_K_M", "808", "MB", "fits"]
    assert line.endswith("Llama 3.2 Community License")
    assert "too big" in next(line for line in out.splitlines() if line.startswith("qwen2.5-coder-32b "))
    assert "(gated)" in next(line for line in out.splitlines() if line.startswith("gemma3-4b-qat "))
    listed = json.loads(joulebox(capsys, "models", "list", "--catalog", "--json")[1])
    assert [one["id"] for one in listed] == [model.id for model in catalog()]
    by_id = {one["id"]: one for one in listed}
    assert (by_id["llama3.2-1b"]["fits"], by_id["phi4-14b"]["fits"], by_id["smollm3-3b"]["fits"]) == (True, False, None)
    assert by_id["llama3.2-1b"]["memory_bytes"] == need_bytes(find("llama3.2-1b"), 4096)


def test_a_model_is_shown(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`models show` tells everything of one model, and of one that is not there the nearest names."""
    out = joulebox(capsys, "models", "show", "gemma3-4b-qat")[1]
    source = "hf:google/gemma-3-4b-it-qat-q4_0-gguf/gemma-3-4b-it-q4_0.gguf"
    for part in ("Gemma Terms of Use; gated", source, "3.2 GB"):
        assert part in out
    assert json.loads(joulebox(capsys, "models", "show", "llama2", "--json")[1])["id"] == "llama2-7b"
    code, out, err = joulebox(capsys, "models", "show", "lama2")
    assert (code, out) == (2, "")
    assert "Did you mean llama2" in err


def test_entries_are_frozen() -> None:
    """Nobody can change what the catalog says while a program runs."""
    model: CatalogModel = find("llama3")
    with pytest.raises(AttributeError):
        model.licence = "mine"  # type: ignore[misc]
