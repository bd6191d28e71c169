"""Wires a node and runs it: meters, engine, models, recorder, agent."""

import logging
import signal
from collections.abc import Callable

from joulebox.client import Client
from joulebox.clock import SystemClock
from joulebox.node.agent import Agent
from joulebox.node.calibration import FILE, calibrated, load_calibration
from joulebox.node.engines.llamacpp import LlamaCpp
from joulebox.node.measurement import this_machine
from joulebox.node.meters import open_meters
from joulebox.node.models import Registry, available_memory_bytes
from joulebox.node.recorder import Recorder
from joulebox.node.spool import SPOOL, Spool
from joulebox.settings import Settings


def run(settings: Settings, on_ready: Callable[[str], object]) -> None:
    """Run a node until SIGTERM or Ctrl-C. Raises `JouleboxError` where it cannot begin."""
    logging.basicConfig(level=settings.log.upper(), format="node: %(message)s")
    logging.getLogger("httpx2").setLevel(logging.WARNING)
    clock = SystemClock()
    meters, calibration = calibrated(open_meters(settings.meters), load_calibration(settings.data_dir / FILE))
    recorder = Recorder(meters, clock, settings.reading_hz)
    registry = Registry(settings.models_folder, settings.context_tokens)
    with Client(settings.server) as client:
        agent = Agent(
            client,
            this_machine(settings.node, settings.zone, calibration),
            LlamaCpp(clock, settings.threads, settings.context_tokens),
            recorder,
            registry.list,
            Spool(settings.data_dir / SPOOL),
            clock,
            available_memory_bytes(),
        )
        signal.signal(signal.SIGTERM, lambda *_: _leave())
        on_ready(settings.node)
        try:
            agent.run()
        except KeyboardInterrupt:
            agent.stop()


def _leave() -> None:
    raise KeyboardInterrupt
