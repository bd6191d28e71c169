"""A node behind a TLS proxy that cuts silent streams: nothing is lost by it, and it is told apart from a wrong one."""

import asyncio
import threading
from pathlib import Path

import pytest

from joulebox.client import Client
from joulebox.errors import JouleboxError
from joulebox.node.engines.scripted import Script
from server_stage import WAIT_S, stage
from test_agent import agent_of, at_work
from test_silence import OPEN
from tls_proxy import tls_proxy

pytestmark = pytest.mark.anyio
QUIET = Script(load_s=0.0, prefill_s=0.0, token_s=3.5, tokens=2)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def cost(thread: int) -> tuple[int, int]:
    """What a thread of this process has cost so far: nanoseconds of processor time, and how often it was woken."""
    folder = Path(f"/proc/self/task/{thread}")
    lines = [line.split() for line in (folder / "status").read_text().splitlines() if "ctxt_switches" in line]
    return int((folder / "schedstat").read_text().split()[0]), sum(int(line[1]) for line in lines)


async def test_a_cut_stream_costs_no_measurement(tmp_path: Path) -> None:
    """A proxy that cuts the node's held connection after each second of silence makes the node hold a new one: the
    prompt is answered by its first attempt."""
    async with stage(tmp_path, public=OPEN, grace_s=15) as scene:
        with tls_proxy(tmp_path / "proxy", scene.url, 1) as (url, ca_file):
            agent = agent_of(url, tmp_path, "n1", QUIET, ca_file)
            async with at_work(agent):
                async with asyncio.timeout(WAIT_S):
                    while not (await scene.http.get("/api/v1/nodes")).json()["nodes"]:  # noqa: ASYNC110
                        await asyncio.sleep(0.02)
                prompt_id = (await scene.ask(mode="quiet"))["id"]
                await scene.until(prompt_id, "running")
                await asyncio.sleep(0.5)
                hold = next(one.native_id for one in threading.enumerate() if one.name == "hold")
                assert hold is not None
                before = cost(hold)
                await asyncio.sleep(2.5)
                spent_ns, woken = (now - then for now, then in zip(cost(hold), before, strict=True))
                status = await scene.until(prompt_id, "completed")
            held = (tmp_path / "proxy" / "access.log").read_text().count("/hold HTTP")
    print(f"{held} holds; two cuts: {spent_ns / 1e6:.1f} ms of processor time, {woken} wake-ups")
    assert (status["attempt"], status["node"]) == (1, "n1")
    assert held >= 3, "the proxy cut the stream, and the node came back"


async def test_a_certificate_that_nobody_vouches_for(tmp_path: Path) -> None:
    """A node ends at once with a sentence that names the setting; one that is no certificate is refused as well."""
    async with stage(tmp_path) as scene:
        with tls_proxy(tmp_path / "proxy", scene.url, 5) as (url, ca_file):
            with pytest.raises(JouleboxError, match=r"certificate of https://.* is not trusted.*ca_file") as refused:
                await asyncio.to_thread(agent_of(url, tmp_path, "n1").run)
            assert refused.value.code == "untrusted_server"
            with Client(url, ca_file=ca_file) as trusted:
                assert await asyncio.to_thread(trusted.call, "GET", "/healthz") == {"status": "ok"}
            for wrong in (ca_file.with_name("nginx.conf"), tmp_path / "none.pem"):
                with pytest.raises(JouleboxError, match="ca_file") as refused:
                    Client(url, ca_file=wrong)
                assert refused.value.code == "bad_setting"
