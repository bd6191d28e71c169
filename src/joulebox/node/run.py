"""Wires a node and runs it: meters, engine, models, recorder, agent."""

import logging
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from joulebox.client import Client
from joulebox.clock import SystemClock
from joulebox.logs import bound, configure
from joulebox.node.agent import Agent
from joulebox.node.calibration import FILE, busy_cores, calibrated, load_calibration
from joulebox.node.cooling import sensors, start_band
from joulebox.node.driven import open_engine
from joulebox.node.measurement import Conditions, this_machine
from joulebox.node.meters import open_meters
from joulebox.node.models import available_memory_bytes
from joulebox.node.neighbours import scan
from joulebox.node.recorder import Recorder
from joulebox.node.rest import rest_of
from joulebox.node.spool import SPOOL, Spool
from joulebox.settings import Settings

LOG: Final = logging.getLogger("joulebox.node")


def run(settings: Settings, on_ready: Callable[[str], object], server_pid: int | None = None) -> None:
    """Run a node until SIGTERM or Ctrl-C. `server_pid`: a process on this machine that belongs to the server, or has it
    as a child. Raises `JouleboxError` where it cannot begin."""
    configure("node", settings.log, settings.log_format)
    clock = SystemClock()
    meters, calibration = calibrated(open_meters(settings.meters), load_calibration(settings.data_dir / FILE))
    recorder = Recorder(meters, clock, settings.reading_hz)
    driven = open_engine(settings, clock)
    with Client(settings.server, settings.token_for(), ca_file=settings.ca_file) as client:
        agent = Agent(
            client,
            this_machine(settings.node, settings.zone, calibration, settings.footprint),
            driven.engine,
            recorder,
            driven.models,
            Spool(settings.data_dir / SPOOL),
            clock,
            available_memory_bytes(),
            Conditions(
                band=start_band(settings), look=scan, server_pid=server_pid, load=_work, engine=driven.processes
            ),
            rest_of(settings),
        )
        scopes = [channel.scope for channel in sensors(recorder.channels)]
        names = (*settings.start_min_c, *settings.start_max_c)
        if names and not any(scope.startswith(names) for scope in scopes):
            LOG.warning("no temperature of %s is read: nothing is waited for (`joulebox doctor`)", " or ".join(names))
        signal.signal(signal.SIGTERM, lambda *_: _leave())
        on_ready(settings.node)
        try:
            with bound(node=settings.node):
                agent.run()
        except KeyboardInterrupt:
            agent.stop()


@contextmanager
def _work(share: float) -> Iterator[None]:
    """Keeps this share of the cores busy."""
    with busy_cores() as load, load(share):
        yield


def _leave() -> None:
    raise KeyboardInterrupt
