"""Ollama fetches a model: `POST /api/pull` of its API, which tells its progress as one JSON object a line.

Where the model lies, how a broken download is gone on with and whether it is whole is Ollama's own business; here its
progress is passed on, and what it complains of told in one sentence.
"""

import json
from collections.abc import Iterator
from typing import Any, Final

import httpx2

from joulebox.errors import JouleboxError
from joulebox.node.models import Progress

DEFAULT: Final = "http://127.0.0.1:11434"
"""Where Ollama listens unless it is told otherwise."""
CONNECT_S: Final = 5.0
SILENCE_S: Final = 300.0
"""Ollama tells its progress several times a second, but takes minutes to check the digest of a large file."""


def pull(base_url: str, name: str, progress: Progress | None = None) -> None:
    """Have the Ollama at `base_url` fetch the model `name`; `progress` hears of all its layers together.

    Raises `JouleboxError("model_fetch")` where it does not answer, breaks off, or has no such model.
    """
    sizes: dict[str, tuple[int, int]] = {}
    for said in _said(base_url, name):
        if "error" in said:
            raise _refusal(str(said["error"]), base_url, name)
        if said.get("status") == "success":
            return
        digest, total = said.get("digest"), said.get("total")
        if isinstance(digest, str) and isinstance(total, int):
            sizes[digest] = (int(said.get("completed") or 0), total)
            if progress is not None:
                progress(sum(done for done, _ in sizes.values()), sum(size for _, size in sizes.values()))
    raise _broke_off(base_url, name, "it said no more")


def _said(base_url: str, name: str) -> Iterator[dict[str, Any]]:
    """Each line that Ollama sends."""
    timeout = httpx2.Timeout(SILENCE_S, connect=CONNECT_S)
    body = {"model": name, "stream": True}
    try:
        with httpx2.stream("POST", f"{base_url.rstrip('/')}/api/pull", json=body, timeout=timeout) as response:
            if response.status_code != httpx2.codes.OK:
                raise _refusal(_complaint(response.read(), response.status_code), base_url, name)
            for line in response.iter_lines():
                if line.strip():
                    yield _object(line)
    except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.InvalidURL, httpx2.UnsupportedProtocol) as error:
        sentence = (
            f"No Ollama answers at {base_url}: start it (ollama serve), or name its address with OLLAMA_HOST or with "
            "JOULEBOX_ENGINE=ollama:URL."
        )
        raise JouleboxError("model_fetch", sentence) from error
    except (httpx2.HTTPError, ValueError) as error:
        raise _broke_off(base_url, name, str(error) or type(error).__name__) from error


def _object(line: str) -> dict[str, Any]:
    said = json.loads(line)
    if not isinstance(said, dict):
        raise ValueError(f"it sent {line[:80]!r}")
    return said


def _complaint(body: bytes, status: int) -> str:
    """What a refusal says, in Ollama's own words where it has some."""
    try:
        return str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        return f"it answered {status}"


def _refusal(error: str, base_url: str, name: str) -> JouleboxError:
    told = error.lower()
    if "file does not exist" in told or "not found" in told:
        why = f"Ollama's library has no model {name}: look at ollama.com/library, or at joulebox models list --catalog."
    elif "no space left" in told:
        why = f"The disk of the Ollama at {base_url} is full: make room there, then pull {name} again."
    else:
        why = f"The Ollama at {base_url} could not fetch {name}: {error.rstrip('.')}."
    return JouleboxError("model_fetch", why)


def _broke_off(base_url: str, name: str, why: str) -> JouleboxError:
    sentence = f"The Ollama at {base_url} broke off while it fetched {name} ({why}): the same command goes on with it."
    return JouleboxError("model_fetch", sentence)
