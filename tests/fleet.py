"""`make fleet`: what a fleet costs a measuring machine, and how soon it notices; writes the numbers of `docs/fleet.md`.

    python tests/fleet.py [--silent-s 60] [--turns 5] [--tokens 200]

The machine that vanishes is a network namespace whose packets are dropped (root, iproute2, nftables); the proxy is a
real nginx (with openssl); servers and Postgres are real, each in a process of its own where times are told.
"""

import argparse
import asyncio
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import postgres_server
from accuracy_page import with_part
from joulebox.clock import SystemClock
from joulebox.node.engines.scripted import Script
from joulebox.protocol import Batch, to_json
from joulebox.units import seconds
from networks import network
from scale_nodes import Wire, centiles
from server_stage import done, offer, stage, story
from test_agent import QUICK, agent_of, at_work
from test_proxy import cost
from test_silence import OPEN, asked, node_process, node_state, threads, until_held, wakes
from tls_proxy import tls_proxy

CLOCK = SystemClock()
PAGE = Path(__file__).parents[1] / "docs" / "fleet.md"
PROGRAM = "tests/fleet.py"
PARTS = ("hops", "silence")
GRACE_S = 15.0
"""As the setting comes."""
CUT_AFTER_S = 2
Json = dict[str, Any]


def since_s(start_ns: int) -> float:
    return seconds(CLOCK.now_ns() - start_ns)


# --- silence ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Vanished:
    """Wake-ups of the node's holding and sending threads while the kernel probed it, and when its prompt was elsewhere
    after its network had gone."""

    wakes: int
    elsewhere_s: float


async def vanish(folder: Path, silent_s: float) -> Vanished:
    """A quiet prompt on a machine that is silent so long, and then vanishes without a word."""
    with network() as line:
        async with stage(folder, host=line.here, public=OPEN, grace_s=GRACE_S) as scene:
            with node_process(scene.url, folder / "node", where=line) as process:
                prompt_id = await asked(scene, mode="quiet")
                await until_held(scene, prompt_id)
                named = await threads(folder / "node", process)
                idle = [named["hold"], named["relay"]]
                await asyncio.sleep(0.5)
                before = [wakes(process.pid, one) for one in idle]
                await asyncio.sleep(silent_s)
                woken = sum(wakes(process.pid, one) for one in idle) - sum(before)
                (folder / "second").mkdir()
                async with at_work(agent_of(scene.url, folder / "second", "n2", QUICK)):
                    line.cut()
                    cut_ns = CLOCK.now_ns()
                    while (await scene.status(prompt_id))["node"] != "n2":  # noqa: ASYNC110 - asked as people ask
                        await asyncio.sleep(0.05)
                    return Vanished(wakes=woken, elsewhere_s=since_s(cut_ns))


async def unheard(folder: Path) -> float:
    """After how many seconds a prompt is cancelled whose machine has vanished before the word reached it."""
    with network() as line:
        async with stage(folder, host=line.here, public=OPEN, grace_s=GRACE_S) as scene:
            with node_process(scene.url, folder / "node", where=line):
                prompt_id = await asked(scene, mode="quiet")
                await until_held(scene, prompt_id)
                line.cut()
                cut_ns = CLOCK.now_ns()
                await scene.http.delete(f"/api/v1/prompts/{prompt_id}")
                while (await scene.status(prompt_id))["state"] != "cancelled":  # noqa: ASYNC110 - asked as people ask
                    await asyncio.sleep(0.1)
                return since_s(cut_ns)


async def killed(folder: Path) -> float:
    """After how many seconds a node is away whose agent was killed in the middle of an answer."""
    async with stage(folder, grace_s=0.05, attempts_max=9) as scene:
        with node_process(scene.url, folder / "node") as process:
            prompt_id = await asked(scene)
            await until_held(scene, prompt_id)
            process.kill()
            killed_ns = CLOCK.now_ns()
            while await node_state(scene) != "away":  # noqa: ASYNC110 - asked as people ask
                await asyncio.sleep(0.001)
            return since_s(killed_ns)


async def cut_streams(folder: Path) -> tuple[float, float]:
    """What each cut of a silent stream by a TLS proxy costs the node's holding thread: ms of CPU time, wake-ups."""
    async with stage(folder, public=OPEN, grace_s=GRACE_S) as scene:
        with tls_proxy(folder / "proxy", scene.url, CUT_AFTER_S) as (url, ca_file):
            script = Script(load_s=0.0, prefill_s=0.0, token_s=4.5 * CUT_AFTER_S, tokens=2)
            async with at_work(agent_of(url, folder, "n1", script, ca_file)):
                prompt_id = await asked(scene, mode="quiet")
                await scene.until(prompt_id, "running")
                await asyncio.sleep(0.5)
                hold = next(one.native_id for one in threading.enumerate() if one.name == "hold")
                assert hold is not None
                before, held = cost(hold), count_holds(folder)
                await asyncio.sleep(3.5 * CUT_AFTER_S)
                spent_ns, woken = (now - then for now, then in zip(cost(hold), before, strict=True))
                cuts = count_holds(folder) - held
                while (status := await scene.status(prompt_id))["state"] == "running":  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
    assert (cuts >= 2, status["state"], status["attempt"]) == (True, "completed", 1)
    return spent_ns / 1e6 / cuts, woken / cuts


def count_holds(folder: Path) -> int:
    """How often the node's stream has been cut, by the proxy's own log."""
    return (folder / "proxy" / "access.log").read_text().count("/hold HTTP")


def of_each(turns: int, measure: Callable[[Path], Coroutine[Any, Any, Any]]) -> list[Any]:
    """So many turns, each in a folder of its own."""
    found = []
    for _ in range(turns):
        with tempfile.TemporaryDirectory() as folder:
            found.append(asyncio.run(measure(Path(folder))))
    return found


def spread(values: Sequence[float], unit: str) -> str:
    """The median, and from what to what where there are several."""
    if len(values) == 1:
        return f"{values[0]:.1f} {unit}"
    return f"{median(values):.1f} {unit} ({min(values):.1f} to {max(values):.1f}, {len(values)} times)"


def silence_part(silent_s: float, turns: int) -> str:
    """How silent a working node is, and how soon it is missed."""
    first = of_each(1, partial(vanish, silent_s=silent_s))[0]
    others = of_each(turns - 1, partial(vanish, silent_s=1.0))
    elsewhere = [one.elsewhere_s for one in (first, *others)]
    away_ms = [1e3 * one for one in of_each(2 * turns, killed)]
    ((cpu_ms, woken),) = of_each(1, cut_streams)
    rows = (
        (f"wake-ups of its two connections in {silent_s:g} s of a quiet prompt", f"{first.wakes}", "0"),
        ("agent killed: away after", spread(away_ms, "ms"), "100 ms"),
        ("machine vanished: its prompt runs elsewhere after", spread(elsewhere, "s"), "30 s"),
        ("machine vanished, its prompt cancelled: over after", spread(of_each(1, unheard), "s"), "30 s"),
        ("a proxy cuts its silent stream: each cut costs it", f"{cpu_ms:.1f} ms CPU, {woken:.0f} wake-ups", ""),
    )
    return "\n".join(
        ["| Of a node at work | Measured | Bound |", "|---|--:|--:|", *(f"| {' | '.join(r)} |" for r in rows)]
    )


# --- tokens through another server ------------------------------------------------------------------------------------


@contextmanager
def pair() -> Iterator[list[str]]:
    """Two server processes on one new database; their addresses."""
    with postgres_server.database() as url, ExitStack() as stack:
        urls = []
        for _ in range(2):
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            settings = {"JOULEBOX_DATABASE_URL": url, "JOULEBOX_PORT": "0", "JOULEBOX_DATA_DIR": folder}
            command = (sys.executable, "-m", "joulebox", "serve")
            server = subprocess.Popen(command, env=os.environ | settings, stdout=subprocess.PIPE, text=True)
            stack.callback(server.wait, 15)
            stack.callback(server.terminate)
            assert server.stdout is not None
            urls.append(next(word for word in server.stdout.readline().split() if word.startswith("http")))
        yield urls


async def first_token_s(owner: str, watched: str) -> float:
    """From the moment the node sends its first token to `owner` until who watches at `watched` has it."""
    node, hold, person = Wire(owner), Wire(owner), Wire(watched)
    try:
        _, body = await node.post("/api/v1/prompts", json.dumps({"model": "m", "prompt": "hello"}).encode())
        prompt_id = json.loads(body)["id"]
        status = await person.request("GET", f"/api/v1/prompts/{prompt_id}/events")
        assert status == 200
        status, body = await node.post("/node/v1/lease", to_json(offer(wait_s=20.0)))
        lease = json.loads(body)
        assert (status, lease["job_id"]) == (200, prompt_id)
        path = f"/node/v1/attempts/{lease['token']}"
        assert await hold.request("GET", f"{path}/hold") == 200
        await hold.chunk()
        told = story("Hello")
        await node.post(f"{path}/events", to_json(Batch(events=tuple(told[:2]))))
        await until(person, b"event: started")
        start_ns = CLOCK.now_ns()
        sent = asyncio.create_task(node.post(f"{path}/events", to_json(Batch(events=tuple(told[2:3])))))
        await until(person, b"event: token")
        took_s = since_s(start_ns)
        await sent
        await node.post(f"{path}/events", to_json(Batch(events=tuple(told[3:]))))
        await node.post(f"{path}/finish", to_json(done(lease, "Hello")))
        await hold.body()
        await until(person, b"event: receipt")
        return took_s
    finally:
        for wire in (node, hold, person):
            wire.close()


async def until(person: Wire, event: bytes) -> None:
    """Read until that event has come."""
    while event not in (piece := await person.chunk()):
        assert piece, f"the stream ended without {event!r}"


async def hops(urls: Sequence[str], tokens: int) -> tuple[list[float], list[float]]:
    """First tokens through the server that looks after the attempt, and through the other one too; in turns, so that
    whatever else the machine does befalls both."""
    owner, other = urls
    node = Wire(owner)
    await node.post("/node/v1/lease", to_json(offer(wait_s=0.0)))
    node.close()
    one, two = [], []
    for _ in range(tokens + 1):
        one.append(await first_token_s(owner, owner))
        two.append(await first_token_s(owner, other))
    return one[1:], two[1:]  # the first of each opens connections between servers and to the database


def hops_part(tokens: int) -> str:
    """What a second server in the way of the tokens costs."""
    with pair() as urls:
        one, two = asyncio.run(hops(urls, tokens))
    lines = ["| From the node to who watches, through | p50 | p95 |", "|---|--:|--:|"]
    for name, values in (("its server", one), ("its server and another one", two)):
        told = centiles(values)
        lines.append(f"| {name} | {1e3 * told['p50']:.2f} ms | {1e3 * told['p95']:.2f} ms |")
    added_ms = 1e3 * (centiles(two)["p50"] - centiles(one)["p50"])
    return "\n".join([*lines, "", f"{tokens} first tokens each. The second hop adds {added_ms:.2f} ms (bound: 5 ms)."])


def main() -> None:
    """Measure, and write each part into the page as soon as it is done."""
    parser = argparse.ArgumentParser(description="What a fleet costs a measuring machine, and how soon it notices.")
    parser.add_argument("--silent-s", type=float, default=60.0)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--only", choices=PARTS)
    parser.add_argument("--page", type=Path, default=PAGE)
    given = parser.parse_args()
    parts: dict[str, Callable[[], str]] = {
        "hops": lambda: hops_part(given.tokens),
        "silence": lambda: silence_part(given.silent_s, given.turns),
    }
    where = f"Python {platform.python_version()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start."
    try:
        for name in PARTS:
            if given.only in (None, name):
                text = f"{parts[name]()}\n\n{where}"
                print(f"--- {name}\n{text}", flush=True)
                page = given.page.read_text(encoding="utf-8")
                given.page.write_text(with_part(page, name, text, PROGRAM), encoding="utf-8")
    finally:
        postgres_server.end()


if __name__ == "__main__":
    main()
