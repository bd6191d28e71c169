"""Hugging Face transformers for tests: where the real one is installed, and the small model as a folder of safetensors.

torch and its parts are several gigabytes, so no test brings them: `python tests/torch_peer.py` (`make
engine-transformers`) makes the environment below `.cache/peers`.
"""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from joulebox.clock import SystemClock
from joulebox.node.driven import Driven, open_engine
from joulebox.node.model_folder import memory_need_bytes
from joulebox.node.models import Registry, locked
from joulebox.settings import Settings

ROOT: Final = Path(__file__).parents[1]
PINS: Final = ROOT / "tests" / "peers" / "transformers.txt"
ENVIRONMENT: Final = ROOT / ".cache" / "peers" / "transformers"
FOLDER: Final = ROOT / ".cache" / "models" / "SmolLM2-135M-Instruct-safetensors"
SAVE: Final = ROOT / "tests" / "peers" / "save_folder.py"


def python() -> Path:
    """The Python that has torch and transformers: the one of the tests, or that of the environment. Skips without."""
    if importlib.util.find_spec("torch") and importlib.util.find_spec("transformers"):
        return Path(sys.executable)
    mark = ENVIRONMENT / "pins"
    if not mark.is_file() or mark.read_bytes() != PINS.read_bytes():
        pytest.skip(
            "torch and transformers are not here (3 GB to fetch): make engine-transformers brings and tests them."
        )
    return ENVIRONMENT / "bin" / "python"


def folder(gguf: Path) -> Path:
    """The small model as a folder of safetensors, made once."""
    with locked(FOLDER.with_suffix(".lock")):
        if not FOLDER.is_dir():
            fresh = FOLDER.with_suffix(".new")
            shutil.rmtree(fresh, ignore_errors=True)
            subprocess.run([python(), SAVE, gguf.resolve(), fresh], check=True, capture_output=True, timeout=600)
            fresh.replace(FOLDER)
    return FOLDER


def registry(data_dir: Path, context_tokens: int) -> Registry:
    """A list of models for this engine."""
    return Registry(data_dir, context_tokens, need=memory_need_bytes, forms=("gguf", "safetensors"))


def opened(data_dir: Path, context_tokens: int) -> Driven:
    """The real engine, as a node opens it; on one thread, as two that wait for each other are slower beside others."""
    engine = f"transformers:,python={python()},device=cpu"
    settings = Settings(engine=engine, data_dir=data_dir, context_tokens=context_tokens, threads=1)
    return open_engine(settings, SystemClock())


def main() -> None:
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or "uv"
    into = ["--python", str(ENVIRONMENT / "bin" / "python")]
    if not (ENVIRONMENT / "pins").is_file() or (ENVIRONMENT / "pins").read_bytes() != PINS.read_bytes():
        print("fetching torch and transformers, some 3 GB", flush=True)
        subprocess.run([uv, "venv", "-q", "--clear", "--python", sys.executable, str(ENVIRONMENT)], check=True)
        subprocess.run([uv, "pip", "install", "-q", "--compile-bytecode", *into, "-r", str(PINS)], check=True)
        shutil.copyfile(PINS, ENVIRONMENT / "pins")


if __name__ == "__main__":
    main()
