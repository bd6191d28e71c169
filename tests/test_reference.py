"""The reference pages are made from the code: nothing public is undocumented, nothing documented is gone."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

import reference
import reference_cli
import reference_fields
import reference_http
import traces
from joulebox.accounting import account
from joulebox.accounting.validity import RULES
from joulebox.errors import REGISTRY
from joulebox.model import Receipt
from joulebox.plain import plain
from joulebox.server.comparing import Preference
from joulebox.server.recompute import Recomputed
from joulebox.settings import Settings
from server_stage import Stage, done, stage, story


@pytest.fixture
def anyio_backend() -> str:
    """The server runs on asyncio alone."""
    return "asyncio"


@pytest.mark.parametrize("name", sorted(reference.PAGES))
def test_page_is_what_the_code_says(name: str) -> None:
    """A committed reference page equals what `make docs` writes from the code."""
    written = (reference.FOLDER / name).read_text(encoding="utf-8")
    assert written == reference.PAGES[name](), f"docs/reference/{name} is out of date: run `make docs`, commit the page"


def test_nothing_public_is_undocumented() -> None:
    """Every setting, route, error, verdict, command, option, field, variable, meter and engine is told of."""
    wrong = reference.gaps()
    assert not wrong, "\n  ".join(["", *wrong])


def test_every_name_of_a_registry_stands_on_its_page_once() -> None:
    """Each error, verdict, setting, command and route has one row or heading of its own."""
    errors, verdicts, settings = (reference.PAGES[name]() for name in ("errors.md", "verdicts.md", "settings.md"))
    assert [code for code in REGISTRY if errors.count(f"\n| `{code}` |") != 1] == []
    assert [code for code in RULES if verdicts.count(f"\n| `{code}` |") != 1] == []
    assert [name for name in Settings.model_fields if settings.count(f"`JOULEBOX_{name.upper()}`") != 1] == []
    told = reference_cli.command_line_page()
    assert [one.words for one in reference_cli.commands() if told.count(f"\n## {one.words}\n") != 1] == []
    both = reference_http.http_page() + reference_http.protocol_page()
    routes = [f"{method} {path}" for method, path, _ in reference_http.routes()]
    assert [name for name in routes if both.count(f"\n## {name}\n") != 1] == []


def test_a_command_without_help_is_a_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    """An option, a route and a field that nobody describes are each named, with what to do."""
    ask = next(one for one in reference_cli.commands() if one.words == "joulebox ask")
    monkeypatch.setattr(ask.parts[1], "help", None)
    monkeypatch.setattr(reference_cli, "commands", lambda: [ask])
    assert reference_cli.gaps() == [
        "`joulebox ask` does not say what `--model` is: give it help= in its typer.Option or typer.Argument."
    ]
    told = reference_http.answers()
    fewer = {"routes": {k: v for k, v in told["routes"].items() if k != "GET /healthz"}}
    fewer["words"] = {k: v for k, v in told["words"].items() if k != "campaign"}
    monkeypatch.setattr(reference_http, "answers", lambda: {**told, **fewer})
    (answer, field) = sorted(reference_http.gaps(), key=lambda one: "campaign" in one)
    assert "GET /healthz" in answer
    assert "GET /api/v1/table: give `campaign` a description" in field
    words = reference_fields.words()
    monkeypatch.setattr(reference_fields, "words", lambda: {**words, "Usage": {}})
    assert any("`input_tokens`" in one for one in reference_fields.gaps())


def test_a_receipt_has_the_fields_of_the_page() -> None:
    """The keys of a real receipt's JSON are those that the page lists, at every depth that it has."""
    counter = traces.channel()
    trace = traces.trace(traces.series(counter, traces.work(10.0, 30.0, 30.0, 32.0), 34.0))
    receipt = plain(account(trace, traces.factors(), receipt_id="r", placement=traces.PLACEMENT))
    known = {noun.__name__: {one.name for one in fields(noun)} for noun in reference_fields.nouns_of(Receipt)}
    assert set(receipt) == known["Receipt"]
    for name, noun in (("energy", "Energy"), ("sci", "SciBoundaries"), ("carbon", "Carbon"), ("times", "Times")):
        assert set(receipt[name]) == known[noun]
    assert set(receipt["energy"]["answer"]) == known["Figure"]
    assert set(receipt["sci"]["answer"]) == known["Sci"]
    page = reference_fields.receipt_page()
    for noun, names in known.items():
        part = page.partition(f"\n## {noun}\n")[2].partition("\n## ")[0]
        assert [name for name in names if f"| `{name}` |" not in part] == [], noun


async def _answered(on: Stage) -> dict[str, Any]:
    prompt_id = (await on.ask())["id"]
    lease = await on.lease()
    await on.send(lease, story("Paris"))
    await on.finish(lease, done(lease, "Paris"))
    return await on.until(prompt_id, "completed")


@pytest.mark.anyio
async def test_the_objects_of_the_http_page_are_what_the_server_answers(tmp_path: Path) -> None:
    """Prompt, model, node, token and standing have exactly the fields that the page gives them, and so have events."""
    told = {name: set(meanings) for name, meanings in reference_http.answers()["objects"].items()}
    assert told["Recomputed"] == {one.name for one in fields(Recomputed)}
    assert told["Preference"] == {one.name for one in fields(Preference)}
    async with stage(tmp_path) as on:
        await on.join()
        status = await _answered(on)
        assert set(status) == told["Prompt"]
        assert {event.name for event in await on.all_events(status["id"])} <= told["Events"]
        for path, name, noun in (
            ("/api/v1/models", "models", "Model"),
            ("/api/v1/nodes", "nodes", "Node"),
            ("/api/v1/prompts", "prompts", "Prompt"),
        ):
            (one,) = (await on.http.get(path)).json()[name]
            assert set(one) == told[noun]
        assert set((await on.http.get("/api/v1/me")).json()) == told["Standing"]
        admin = {"Authorization": f"Bearer {(tmp_path / 'local.token').read_text().strip()}"}
        made = await on.http.post("/api/v1/tokens", json={"name": "x", "scopes": ["ask"]}, headers=admin)
        assert set(made.json()) == told["Token"] | {"token"}
