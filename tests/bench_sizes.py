"""Memory and start of server, node and command line (`make bench PART=sizes`)."""

import asyncio
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from statistics import median

from bench_gateways import CLOCK, OURS, Gateway, floor, joulebox, litellm, process, rush, tree_rss_mb, upstream
from bench_page import Part, Row, spread, table
from bench_requests import slots
from joulebox.client import Client
from joulebox.units import seconds
from stage import wait

SERVER_MAX_MB, NODE_MAX_MB, HELP_MAX_S = 120.0, 60.0, 0.3
RUSH_S = 4.0
TIMES = 9
OPEN_WEBUI = "Open WebUI was not run; its application alone is 2.7 MB in 217 requests (see pages)."


def timed(command: Sequence[str]) -> tuple[float, float]:
    """Wall and processor seconds of a command that ends by itself."""
    before, began_ns = resource.getrusage(resource.RUSAGE_CHILDREN), CLOCK.now_ns()
    subprocess.run(list(command), check=True, stdout=subprocess.DEVNULL)
    took_s, after = seconds(CLOCK.now_ns() - began_ns), resource.getrusage(resource.RUSAGE_CHILDREN)
    return took_s, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def servers() -> tuple[float, float, float]:
    """Megabytes of a server at rest and after work, and of a node at rest without a model."""
    with joulebox() as ours:
        wait(2.0)
        rest_mb = ours.rss_mb()
        with tempfile.TemporaryDirectory() as folder:
            settings = {"JOULEBOX_DATA_DIR": folder, "JOULEBOX_SERVER": ours.url}
            settings |= {"JOULEBOX_NODE": "bench", "JOULEBOX_METERS": "model:", "JOULEBOX_ZONE": "DE"}
            with process([sys.executable, "-m", "joulebox", "node"], settings) as node, Client(ours.url) as client:
                while not client.nodes():
                    wait(0.2)
                wait(5.0)
                node_mb = tree_rss_mb(node.pid)
        with slots(ours.url):
            asyncio.run(rush(ours, 16, RUSH_S))
        return rest_mb, ours.rss_mb(), node_mb


def starts(one: Callable[[], AbstractContextManager[Gateway | None]], times: int) -> list[tuple[float, float]]:
    """How long each of several starts took until it listened, and its megabytes then; none where it cannot be had."""
    found = []
    for _ in range(times):
        with one() as gateway:
            if gateway is None:
                break
            found.append((gateway.start_s, gateway.rss_mb()))
    return found


def part(rounds: int) -> Part:
    """Everything in turns."""
    rest_mb, worked_mb, node_mb = servers()
    command = str(Path(sys.executable).parent / "joulebox")
    helps = {
        "python -c pass": [timed([sys.executable, "-c", "pass"]) for _ in range(TIMES)],
        "joulebox --help": [timed([command, "--help"]) for _ in range(TIMES)],
        "joulebox ask --help": [timed([command, "ask", "--help"]) for _ in range(TIMES)],
    }
    with upstream(8, 0.0) as engine:
        started = {
            OURS: starts(joulebox, rounds),
            "bare ASGI + aiohttp": starts(lambda: floor(engine), rounds),
            "LiteLLM proxy": starts(lambda: litellm(engine), rounds),
        }
    lines = [
        (name, spread([s for s, _ in found]), spread([mb for _, mb in found], "{:.0f}"))
        for name, found in started.items()
    ]
    commands = [
        (f"`{name}`", spread([wall for wall, _ in found], "{:.3f}"), spread([cpu for _, cpu in found], "{:.3f}"))
        for name, found in helps.items()
    ]
    text = TEXT.format(rest=rest_mb, worked=worked_mb, node=node_mb, rush_s=RUSH_S)
    text += "\n" + table(("Server", "Listens after, s", "Memory then, MB"), lines)
    text += "\n\n" + table(("Command", "Wall, s", "CPU, s"), commands)
    help_s = median(wall for wall, _ in helps["joulebox --help"])
    proxied = started["LiteLLM proxy"]
    beside = f"LiteLLM {spread([mb for _, mb in proxied], '{:.0f}')} MB" if proxied else ABSENT
    rows = [
        Row(
            what="memory of the server at rest",
            figure=f"{rest_mb:.0f} MB ({worked_mb:.0f} MB after {RUSH_S:g} s of 16 clients)",
            beside=beside,
            target=f"<= {SERVER_MAX_MB:.0f} MB",
            reached=rest_mb <= SERVER_MAX_MB,
        ),
        Row(
            what="memory of the node agent without an engine",
            figure=f"{node_mb:.0f} MB",
            target=f"<= {NODE_MAX_MB:.0f} MB",
            reached=node_mb <= NODE_MAX_MB,
        ),
        Row(
            what="the server listens after",
            figure=f"{spread([s for s, _ in started[OURS]])} s",
            beside=f"LiteLLM {spread([s for s, _ in proxied])} s" if proxied else ABSENT,
        ),
        Row(
            what="`joulebox --help`",
            figure=f"{spread([wall for wall, _ in helps['joulebox --help']])} s",
            beside=f"Python alone {median(wall for wall, _ in helps['python -c pass']):.2f} s",
            target=f"<= {HELP_MAX_S:g} s",
            reached=help_s <= HELP_MAX_S,
        ),
    ]
    raw = {"server_mb": rest_mb, "worked_mb": worked_mb, "node_mb": node_mb, "starts": started, "commands": helps}
    return Part(rows=rows, text=text, raw=raw)


ABSENT = "LiteLLM could not be installed here"
TEXT = f"""## Memory and start

Resident memory of a process with all that it started. The server at rest takes {{rest:.0f}} MB, after {{rush_s:g}} s of
16 clients {{worked:.0f}} MB; a node that has joined and recorded for five seconds, with no model loaded and so without
an engine's process, {{node:.0f}} MB. {OPEN_WEBUI}
"""
