"""What people send to a server, and what is set on one: bodies of three APIs, settings, addresses, backups."""

import json
import tomllib
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import httpx2
from pydantic import BaseModel, ValidationError

from hostile import FORBIDDEN
from joulebox.bench.record import read_record
from joulebox.client import _problem
from joulebox.columns import safe
from joulebox.errors import REGISTRY, JouleboxError
from joulebox.model import Prompt
from joulebox.node import driven, meters
from joulebox.server.bodies import PromptBody
from joulebox.server.campaigns_api import CampaignBody
from joulebox.server.events import seen_until
from joulebox.server.foreign.ollama import GenerateBody, OllamaChatBody
from joulebox.server.foreign.openai_forms import ChatBody, CompletionBody
from joulebox.server.foreign.responses import ResponseBody
from joulebox.server.pages.markdown import to_html
from joulebox.server.store import archive
from joulebox.settings import load_settings
from joulebox.terminal import escaped, harmless, shown_json

NOW: Final = datetime(2026, 11, 23, tzinfo=UTC)
TURNS: Final = [{"role": "user", "content": "Why?"}]
CHAT: Final = {"model": "m", "messages": TURNS, "max_tokens": 9, "stop": ["x"], "temperature": 0.5, "stream": True}
FOREIGN: Final[Mapping[str, tuple[type[BaseModel], Mapping[str, Any]]]] = {
    "chat": (ChatBody, CHAT | {"response_format": {"type": "json_object"}, "top_p": 0.9}),
    "completion": (CompletionBody, {"model": "m", "prompt": "Why?", "max_tokens": 9, "echo": False}),
    "response": (ResponseBody, {"model": "m", "input": TURNS, "text": {"format": {"type": "text"}}}),
    "ollama chat": (OllamaChatBody, {"model": "m", "messages": TURNS, "options": {"num_predict": 9}, "format": "json"}),
    "ollama generate": (GenerateBody, {"model": "m", "prompt": "Why?", "keep_alive": "5m", "stream": False}),
}
PROMPT: Final = {
    "model": "m",
    "messages": TURNS,
    "placement": "zone:DE",
    "deadline": "2026-11-24T06:00Z",
    "max_energy_j": 5.0,
    "json_schema": {"type": "object"},
}


def foreign(kind: type[BaseModel]) -> Callable[[bytes], object]:
    """A body of a foreign API, and the prompt that it becomes; what is wrong with it is said as a refusal."""

    def run(data: bytes) -> object:
        body: Any = kind.model_validate_json(data)
        return PromptBody.model_validate({"model": "m"} | _given(body.to_fields())).to_prompt()

    return run


def _given(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def run_prompt(data: bytes) -> object:
    body = PromptBody.model_validate_json(data)
    prompt = body.to_prompt()
    assert isinstance(prompt, Prompt)
    return body.to_wish(NOW), body.to_priority()


def run_campaign(data: bytes) -> object:
    return CampaignBody.model_validate_json(data)


def run_settings(data: bytes) -> object:
    """Settings as the file has them. The environment is this process's own."""
    text = data.decode(errors="replace")
    try:
        found = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError, OverflowError, ValueError):
        return None
    return load_settings(**{name: value for name, value in found.items() if name.isidentifier()}).footprint


def run_addresses(data: bytes) -> object:
    """Addresses of meters and engines, as far as nothing is opened."""
    text = data.decode(errors="replace")
    for parse in (meters.parse, driven.parse):
        try:
            parse(text)
        except JouleboxError as error:
            assert error.detail
    return None


def run_place(data: bytes) -> object:
    return seen_until(data.decode("latin-1"))


def run_markdown(data: bytes) -> object:
    html = str(to_html(data.decode(errors="replace"))).lower()
    assert "<script" not in html
    assert "<img" not in html
    assert 'href="javascript' not in html
    return html


def run_terminal(data: bytes) -> object:
    text = data.decode("utf-8", "surrogatepass") if _whole(data) else data.decode("latin-1")
    shown = shown_json({text: text})
    assert json.loads(shown) == {text: text}
    assert not FORBIDDEN.search(harmless(text) + escaped(text) + shown)
    assert not str(safe(text)).startswith(("=", "+", "-", "@", "\t", "\r"))
    return shown


def _whole(data: bytes) -> bool:
    try:
        data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return False
    return True


def run_refusal(data: bytes) -> object:
    error = _problem(httpx2.Response(400 + data[0] if data else 500, content=data[1:]))
    assert error.code in REGISTRY
    return error.detail


def run_backup(folder: Callable[[], Path]) -> Callable[[bytes], object]:
    """The manifest of a backup, whatever file it is."""

    def run(data: bytes) -> object:
        path = folder() / "backup.zip"
        path.write_bytes(data)
        return archive.manifest_of(path)

    return run


def run_record(folder: Callable[[], Path]) -> Callable[[bytes], object]:
    """A campaign's file."""

    def run(data: bytes) -> object:
        path = folder() / "campaign.jsonl"
        path.write_bytes(data)
        return read_record(path)

    return run


REFUSALS: Final = (JouleboxError, ValidationError)
SETTINGS: Final = b'zone = "DE"\npue = 1.2\nstart_max_c = "cpu=45"\npublic = ["read"]\nembodied_kg = 100\nnode = "a"\n'
ADDRESSES: Final = (b"shelly:http://10.0.0.2,timeout=2", b"ollama:http://127.0.0.1:11434", b"powercap:/sys/class")
MARKDOWN: Final = (
    b"# A\n- [a](https://x.test) `b`\n\n|a|b|\n|-|-|\n|c|d|\n\n```py\n<b>\n```\n<script>x</script> ![p](q)"
)
PROBLEM: Final = b'\x04{"code": "not_found", "detail": "x", "status": 404, "retry_s": 2}'
