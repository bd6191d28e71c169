"""Model files of the Hugging Face Hub, all through `huggingface_hub`: looked up, chosen, fetched with resume, checked.

What is under way lies in `.fetching` of the models' folder, so that a download that broke off goes on where it was;
only a file with the digest that the hub tells is registered. `HF_TOKEN` and `HF_ENDPOINT` are honoured; a token is
never shown.
"""

import contextlib
import difflib
import errno
import glob
import logging
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import urlsplit

from joulebox.catalog import catalog
from joulebox.errors import JouleboxError
from joulebox.host import kept_file
from joulebox.node.engine import LocalModel
from joulebox.node.fitting import largest_fitting, need_bytes
from joulebox.node.models import PROCESS_BYTES, Progress, Registry, locked, model_id
from joulebox.wording import size

PUBLIC: Final = "https://huggingface.co"
UNDER_WAY: Final = ".fetching"
LIBRARY: Final = "joulebox"
"""What the hub is told that asks."""
SPARE_BYTES: Final = 256 << 20
"""What a download leaves free on the disk: the node's own results must have room."""
FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_ORDER: Final = (
    "Q4_K_M Q4_K_S Q4_K_L Q4_K_XL Q4_1 Q4_0 IQ4_NL IQ4_XS Q4 Q5_K_M Q5_K_S Q5_1 Q5_0 Q6_K Q8_0 MXFP4 Q3_K_L Q3_K_M "
    "Q3_K_S IQ3_M IQ3_S IQ3_XS IQ3_XXS Q2_K_L Q2_K Q2_K_S IQ2_M IQ2_S IQ2_XS IQ2_XXS F16 FP16 BF16 F32"
)
PREFERRED: Final = tuple(_ORDER.split())
"""Quantisations, the one that is taken first in front: 4 bits lose little, and what people run is mostly that."""
_QUANTIZATION: Final = re.compile(r"(?i)(?:^|[-._])((?:iq|tq|q)\d\w*|bf16|fp?16|f32|mxfp4)(?=[-.]|$)")
_PART: Final = re.compile(r"-\d{5}-of-\d{5}\.gguf$")
_HEX: Final = re.compile("[0-9a-f]{40,64}")
"""A commit or a sha256. It becomes part of a file's name."""
NAME_MAX_BYTES: Final = 200
"""Of repository and file together: with what is put to it, it still is a file's name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HubFile:
    """A file as the hub tells of it, seen in the commit `revision`. `gated`: the terms must be accepted there first."""

    repository: str
    name: str
    revision: str
    size_bytes: int
    sha256: str | None
    licence: str | None
    gated: bool

    @property
    def quantization(self) -> str:
        """How its weights are stored, by its name; `unknown` where that does not tell."""
        found = _QUANTIZATION.findall(self.name.rpartition("/")[2].removesuffix(".gguf"))
        return str(found[-1]).upper() if found else "unknown"


class Hub:
    """The Hugging Face Hub, or the one that `HF_ENDPOINT` names.

    Raises `JouleboxError("model_fetch")` where `huggingface_hub` is not installed, and from every method where the hub
    does not give what was asked: one sentence that says why and what to do.
    """

    def __init__(self) -> None:
        try:
            from huggingface_hub import HfApi
            from huggingface_hub.utils.logging import set_verbosity
        except ImportError as error:
            sentence = "Fetching from the Hugging Face Hub takes huggingface_hub: run pip install 'joulebox[models]'."
            raise JouleboxError("model_fetch", sentence) from error
        set_verbosity(logging.ERROR)
        self.endpoint = (os.environ.get("HF_ENDPOINT") or PUBLIC).rstrip("/")
        self._api = HfApi(endpoint=self.endpoint, library_name=LIBRARY)

    def files(self, repository: str) -> list[HubFile]:
        """Every GGUF file of a repository (`OWNER/NAME`) that is a whole model."""
        with self._told(repository):
            info = self._api.model_info(repository, files_metadata=True)
            licence = getattr(info.card_data, "license_name", None) or getattr(info.card_data, "license", None)
            found = [
                HubFile(
                    repository=repository,
                    name=str(one.rfilename),
                    revision=str(info.sha),
                    size_bytes=int(one.size or 0),
                    sha256=str(one.lfs.sha256) if one.lfs is not None else None,
                    licence=str(licence) if licence else None,
                    gated=bool(info.gated),
                )
                for one in info.siblings or ()
            ]
        whole = [one for one in found if one.name.lower().endswith(".gguf") and not _PART.search(one.name)]
        models = [one for one in whole if "mmproj" not in one.name.lower()]
        if not models:
            sentence = (
                f"{repository} has no model in one GGUF file: look for a repository whose name ends in GGUF, or "
                "convert the model with llama.cpp."
            )
            raise JouleboxError("model_fetch", sentence)
        return models

    def download(self, file: HubFile, part: Path, progress: Progress | None = None) -> None:
        """The whole file at `part`; what an earlier attempt left there is gone on with.

        `hf_hub_download` begins anew after a break; what it is made of does not.
        """
        from huggingface_hub import get_hf_file_metadata, hf_hub_url
        from huggingface_hub.file_download import http_get
        from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

        _check_room(file, part)
        try:
            with self._told(file.repository), kept_file(part) as out:
                url = hf_hub_url(file.repository, file.name, revision=file.revision, endpoint=self.endpoint)
                found = get_hf_file_metadata(url, endpoint=self.endpoint, library_name=LIBRARY)
                headers = build_hf_headers(library_name=LIBRARY)
                if urlsplit(found.location).netloc != urlsplit(url).netloc:
                    headers.pop("authorization", None)  # that address is signed: the token stays with the hub
                http_get(
                    found.location,
                    out,
                    resume_size=out.tell(),
                    headers=headers,
                    expected_size=file.size_bytes,
                    tqdm_class=_bar(progress, file.size_bytes),
                )
        except _DiskFull as error:
            part.unlink(missing_ok=True)
            sentence = (
                f"The disk is full: {file.name} takes {size(file.size_bytes)} in {part.parent.parent}, and what had "
                "come was removed again. Make room there, or set JOULEBOX_MODELS_DIR."
            )
            raise JouleboxError("model_fetch", sentence) from error

    @contextlib.contextmanager
    def _told(self, repository: str) -> Iterator[None]:
        """Whatever goes wrong inside, as one of our sentences."""
        try:
            yield
        except JouleboxError:
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.errno in FULL:
                raise _DiskFull from error
            raise _failure(error, repository, self.endpoint) from error


class _DiskFull(Exception):
    """There is no room for the next byte."""


def hub_source(text: str) -> tuple[str, str | None]:
    """`OWNER/NAME` and the file of `OWNER/NAME[/FILE]`. Raises `bad_request`."""
    parts = text.strip().strip("/").split("/", 2)
    if len(parts) < 2 or not all(parts):
        sentence = f"hf:{text} names no repository: write hf:OWNER/NAME or hf:OWNER/NAME/FILE.gguf."
        raise JouleboxError("bad_request", sentence)
    return f"{parts[0]}/{parts[1]}", parts[2] if len(parts) == 3 else None


def named(files: Sequence[HubFile], name: str) -> HubFile:
    """The file of that name. Raises `model_fetch` with the names that come nearest."""
    for one in files:
        if one.name.lower() == name.lower():
            return one
    names = [one.name for one in files]
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.3) or names[:3]
    sentence = f"{files[0].repository} has no file {name}. It has {', '.join(near)}{' ...' if len(names) > 3 else ''}."
    raise JouleboxError("model_fetch", sentence)


def choose(files: Sequence[HubFile], room_bytes: int, context_tokens: int) -> HubFile:
    """The file of a repository that is taken where none was named: the first of `PREFERRED` that `room_bytes` of memory
    can hold. Raises `model_too_big`."""

    def rank(file: HubFile) -> tuple[int, int]:
        quantization = file.quantization
        return PREFERRED.index(quantization) if quantization in PREFERRED else len(PREFERRED), file.size_bytes

    for file in sorted(files, key=rank):
        if least_bytes(file, context_tokens) <= room_bytes:
            return file
    raise _too_big(min(files, key=lambda file: file.size_bytes), room_bytes, context_tokens)


def least_bytes(file: HubFile, context_tokens: int) -> int:
    """What loading a file takes: of one of the catalog the need, of any other at least this."""
    for model in catalog():
        if file.sha256 is not None and model.sha256 == file.sha256:
            need = need_bytes(model, context_tokens)
            if need is not None:
                return need
    return file.size_bytes + PROCESS_BYTES


def fetch_into(
    registry: Registry, hub: Hub, file: HubFile, name: str | None = None, progress: Progress | None = None
) -> LocalModel:
    """Fetch a file and add it to the registry; where its bytes are there already, the model that they are.

    Raises `model_fetch`, `model_too_big`, `broken_model`, or `bad_request` where `name` belongs to another model: then
    nothing was registered, and a part that came is kept only where a later attempt can go on with it.
    """
    _check_told(file)
    for model in registry.list():
        if file.sha256 is not None and model.file.digest == f"sha256:{file.sha256}":
            return model
    check_fits(file, registry.context_tokens, registry.room_bytes())
    if file.sha256 is not None:
        registry.check_name(model_id(name or file.name.rpartition("/")[2]), f"sha256:{file.sha256}")
    slug = f"{file.repository}/{file.name}".replace("/", "--")
    target, under_way = registry.folder / slug, registry.folder / UNDER_WAY
    part = under_way / f"{slug}.{(file.sha256 or file.revision)[:16]}.part"
    try:
        with locked(under_way / f"{slug}.lock"):
            if not target.is_file() or target.stat().st_size != file.size_bytes:
                for other in under_way.glob(f"{glob.escape(slug)}.*.part"):
                    if other != part or part.stat().st_size > file.size_bytes:
                        other.unlink()
                hub.download(file, part, progress)
                part.replace(target)
            return _registered(registry, target, file, name or file.name.rpartition("/")[2], progress)
    except OSError as error:
        said = error.strerror or error
        sentence = f"{registry.folder} cannot be written: {said}. Make room there, or set JOULEBOX_MODELS_DIR."
        raise JouleboxError("model_fetch", sentence) from error


def _registered(registry: Registry, target: Path, file: HubFile, name: str, progress: Progress | None) -> LocalModel:
    try:
        return registry.add(target, name, progress, sha256=file.sha256)
    except JouleboxError as error:
        if not any(model.path == target.resolve() for model in registry.list()):
            target.unlink(missing_ok=True)
        if error.code == "broken_model" and "sha256" in error.extra:
            sentence = (
                f"{file.name} has not the sha256 that the hub tells ({file.sha256}); it was not kept. Try again, and "
                "look at what stands between you and the hub if it happens twice."
            )
            raise JouleboxError("model_fetch", sentence) from error
        raise


def check_fits(file: HubFile, context_tokens: int, room_bytes: int) -> None:
    """Raises `model_too_big` where this node cannot hold `file`, with the largest model of the catalog that it can."""
    if least_bytes(file, context_tokens) > room_bytes:
        raise _too_big(file, room_bytes, context_tokens)


def _check_told(file: HubFile) -> None:
    """Name, commit and digest become the name of a file here, whatever a hub says."""
    steps, long = file.name.split("/"), len(f"{file.repository}/{file.name}".encode(errors="replace"))
    named = file.name.isprintable() and not {"", ".", ".."} & set(steps) and long <= NAME_MAX_BYTES
    marks = [one for one in (file.revision, file.sha256) if one is not None]
    if not named or not all(map(_HEX.fullmatch, marks)):
        sentence = (
            f"{file.repository} names a file that can be none here ({file.name[:80]!r}): take another repository."
        )
        raise JouleboxError("model_fetch", sentence)


def _too_big(file: HubFile, room_bytes: int, context_tokens: int) -> JouleboxError:
    need = least_bytes(file, context_tokens)
    best = largest_fitting(context_tokens, room_bytes)
    hint = f"the largest of the catalog that fits is {best.id}" if best is not None else "none of the catalog fits"
    sentence = (
        f"{file.name} needs at least {size(need)} of memory with a context of {context_tokens} tokens, but this node "
        f"has {size(room_bytes)} for models: {hint} (joulebox models list --catalog)."
    )
    return JouleboxError("model_too_big", sentence, memory_bytes=need, available_bytes=room_bytes)


def _check_room(file: HubFile, part: Path) -> None:
    """What came already counts: it is not fetched again."""
    folder = part.parent.parent
    came = part.stat().st_size if part.exists() else 0
    need, free = max(0, file.size_bytes - came) + SPARE_BYTES, shutil.disk_usage(folder).free
    if free < need:
        sentence = (
            f"{file.name} takes {size(need)} of disk, {size(SPARE_BYTES)} of that to spare, and {size(free)} are free "
            f"in {folder}. Make room there, or set JOULEBOX_MODELS_DIR."
        )
        raise JouleboxError("model_fetch", sentence)


def _failure(error: Exception, repository: str, endpoint: str) -> JouleboxError:
    """What went wrong, as a sentence for the person."""
    from huggingface_hub import errors

    network = (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, TimeoutError, ConnectionError)
    libraries = {"httpx2", "httpcore2", "ssl"}
    if isinstance(error, errors.HFValidationError):
        sentence = f"{repository} is no name of a repository: write hf:OWNER/NAME or hf:OWNER/NAME/FILE.gguf."
        return JouleboxError("bad_request", sentence)
    if isinstance(error, errors.GatedRepoError):
        why = (
            f"{repository} is gated: accept its terms at {endpoint}/{repository}, then set HF_TOKEN to a token of that "
            f"account ({endpoint}/settings/tokens)."
        )
    elif isinstance(error, errors.RepositoryNotFoundError):
        why = f"{endpoint} has no repository {repository}, or it is private: look at the name, or set HF_TOKEN."
    elif isinstance(error, network) or type(error).__module__.partition(".")[0] in libraries:
        why = _no_answer(endpoint)
    elif isinstance(error, errors.EntryNotFoundError | errors.RevisionNotFoundError):
        why = f"{repository} has not that file any more: ask again with hf:{repository}."
    elif isinstance(error, errors.HfHubHTTPError):
        why = _refused(getattr(error.response, "status_code", None), endpoint)
    else:
        text = (str(error).splitlines() or [type(error).__name__])[0][:200]
        why = f"The download from {endpoint} broke off ({_without_token(text)}): the same command goes on with it."
    return JouleboxError("model_fetch", why)


def _no_answer(endpoint: str) -> str:
    return (
        f"{endpoint} does not answer, or broke off: look at the network and try again, the same command goes on where "
        "it was; HF_ENDPOINT names another hub, and joulebox models add PATH.gguf takes a file."
    )


def _refused(status: int | None, endpoint: str) -> str:
    if status == 401:
        return f"{endpoint} does not know your token: look at HF_TOKEN."
    if status == 403:
        return f"{endpoint} does not let your token read that: look at what HF_TOKEN may do."
    if status == 429:
        return f"{endpoint} wants fewer requests: wait some minutes, or set HF_TOKEN."
    return f"{endpoint} answered {status}: try again later."


def _without_token(text: str) -> str:
    token = os.environ.get("HF_TOKEN")
    return text.replace(token, "...") if token else text


def _bar(progress: Progress | None, size_bytes: int) -> Any:
    """What `huggingface_hub` draws its progress with: here it is only passed on."""

    class Bar:
        def __init__(self, *_: object, initial: float = 0, total: float | None = None, **__: object) -> None:
            self.n, self.total = float(initial), float(total or size_bytes)
            self._tell()

        def update(self, n: float | None = 1) -> None:
            self.n += n or 0
            self._tell()

        def _tell(self) -> None:
            if progress is not None:
                progress(int(self.n), int(self.total))

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None:
            self.close()

        def close(self) -> None:
            """Nothing was opened."""

        def refresh(self, *_: object, **__: object) -> None:
            """Everything was told at once."""

        def set_description(self, *_: object, **__: object) -> None:
            """The title is ours."""

    return Bar
