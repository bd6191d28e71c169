"""The OpenAPI document: valid, and true of every route, as schemathesis finds out."""

import asyncio
import json
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

import httpx2
import pytest

from answering import answering
from joulebox.server.app import build_app
from joulebox.settings import LOCAL_TOKEN, Settings
from server_stage import Stage, stage

HERE = Path(__file__).parent
CASES_MIN = 2_000
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
)
EXAMPLES = os.environ.get("JOULEBOX_EXAMPLES", "20")
LIMIT_S = 1_500
FREE = {"asks_per_minute": 0, "requests_per_minute": 0, "outstanding_max": 0, "prompts_per_day": 0}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def test_the_document_is_valid(tmp_path: Path) -> None:
    """`/openapi.json` is an OpenAPI document by the rules of its version."""
    from openapi_spec_validator import validate

    validate(build_app(Settings(data_dir=tmp_path)).openapi())


async def ids_of(scene: Stage, key: Mapping[str, str]) -> dict[str, str]:
    """What there is on a server to ask for, by the names of path parameters. The node `n2` is there to be drained."""
    await scene.join(node="n2", instance="b", models=("other",))
    asked = (await scene.http.post("/v1/chat/completions", json=CHAT)).json()["joulebox"]
    made = await scene.http.post("/api/v1/tokens", json={"name": "a", "scopes": ["read"]}, headers=dict(key))
    return {
        "prompt_id": asked["prompt_id"],
        "receipt_id": asked["id"],
        "token_id": made.json()["id"],
        "name": "n2",
        "model_id": "m",
    }


CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


@pytest.mark.slow
@pytest.mark.anyio
@pytest.mark.timeout(LIMIT_S + 60)
async def test_every_route_does_what_the_document_says(tmp_path: Path) -> None:
    """At least 2,000 requests made up from the document, on a server whose node answers at once: no server error, and
    every status, content type and body is one that the document names."""
    async with stage(tmp_path / "data", receipt_wait_s=5.0, **FREE) as scene, answering(scene, "Hel", "lo"):
        key = {"Authorization": f"Bearer {(tmp_path / 'data' / LOCAL_TOKEN).read_text().strip()}"}
        told = {"JOULEBOX_IDS": json.dumps(await ids_of(scene, key)), "SCHEMATHESIS_HOOKS": "openapi_hooks"}
        options = ["--checks", ",".join(CHECKS), "--max-examples", EXAMPLES, "--phases", "examples,coverage,fuzzing"]
        options += ["--header", f"Authorization: {key['Authorization']}", "--request-timeout", "60", "--seed", "1"]
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "schemathesis.cli", "run", f"{scene.url}/openapi.json", *options),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            cwd=tmp_path,
            env=os.environ | told | {"NO_COLOR": "1", "PYTHONPATH": f"{HERE}:{os.environ.get('PYTHONPATH', '')}"},
        )
        printed, _ = await asyncio.wait_for(process.communicate(), LIMIT_S)
        assert (await scene.http.get("/healthz")).status_code == httpx2.codes.OK
    text = printed.decode()
    assert process.returncode == 0, text[-20_000:]
    cases = re.search(r"([\d,]+) generated", text)
    assert cases is not None, text[-2_000:]
    assert int(cases[1].replace(",", "")) >= CASES_MIN, text[-2_000:]
