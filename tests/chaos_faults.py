"""The faults of `make chaos`, each with what is done, in words for the page."""

import os
import random
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from chaos_line import State
from chaos_stage import Disk, NotMadeError, Rig, Stage
from joulebox.node.models import Registry
from stage import MODEL, SYSTEM, wait


@dataclass(slots=True)
class Scene:
    """What a fault may touch. `cancel` has a person cancel a prompt that runs, if one does."""

    stage: Stage
    rig: Rig
    model: Path
    chance: random.Random
    cancel: Callable[[], None]

    @property
    def disk(self) -> Disk:
        """Raises `NotMadeError` where there is none."""
        if self.stage.disk is None:
            raise NotMadeError("it needs a disk of its own: root, a mount namespace and a loop device")
        return self.stage.disk


Act = Callable[[Scene], None]


@dataclass(frozen=True, slots=True)
class Fault:
    """One kind. `ends`: codes with which some prompts may then end instead of an answer."""

    name: str
    done: str
    act: Act
    ends: tuple[str, ...] = ()
    only_postgres: bool = False


def _killed(victim: str) -> Act:
    def act(scene: Scene) -> None:
        scene.stage.kill(victim)

    return act


def _stopped(victim: str, rests_s: float) -> Act:
    def act(scene: Scene) -> None:
        scene.stage.signal(victim, signal.SIGSTOP)
        wait(rests_s)
        scene.stage.signal(victim, signal.SIGCONT)

    return act


def _hangs(scene: Scene) -> None:
    """What is cancelled first may have had its last token: the engine then stands still for the next one."""
    hung = None
    for _ in range(100):
        if (hung := scene.stage.pid("engine")) is not None:
            break
        wait(0.1)
    scene.stage.signal("engine", signal.SIGSTOP)
    for _ in range(300):
        scene.cancel()
        if scene.stage.pid("engine") != hung:
            return
        wait(0.1)
    scene.stage.signal("engine", signal.SIGCONT)


def _processes_killed(scene: Scene) -> None:
    scene.stage.everything_dies()
    scene.stage.everything_begins()


def _power_cut(scene: Scene) -> None:
    scene.disk.cut_power()
    scene.stage.everything_dies()
    scene.disk.begin_anew()
    scene.stage.everything_begins()


def _line(state: State, rests_s: float) -> Act:
    def act(scene: Scene) -> None:
        scene.stage.line.be(state)
        wait(rests_s)
        scene.stage.line.be("good")

    return act


def _no_name(scene: Scene) -> None:
    names = scene.stage.names
    if names is None:
        raise NotMadeError("names of its own need root and a mount namespace")
    names.forget()
    scene.stage.line.be("cut")
    scene.stage.line.be("good")
    wait(4.0)
    names.know()


def _full_disk(scene: Scene, *killed: str) -> None:
    ballast = scene.disk.fill()
    for victim in killed:
        scene.stage.kill(victim)
    wait(4.0)
    ballast.unlink()
    postgres = scene.stage.postgres
    if postgres is not None and not postgres.alive:
        postgres.start()


def _full_at_start(scene: Scene) -> None:
    _full_disk(scene, "server", "node")


def _read_only(scene: Scene) -> None:
    scene.disk.turn_read_only()
    wait(3.0)
    scene.stage.everything_dies()
    scene.disk.begin_anew()
    scene.stage.everything_begins()


def _clock(victim: str) -> Act:
    def act(scene: Scene) -> None:
        step_s = scene.chance.choice((3_600.0, -3_600.0))
        scene.stage.clock_of(victim).write_text(str(step_s))
        wait(3.0)
        scene.stage.clock_of(victim).write_text("0")

    return act


def _unplugged(scene: Scene) -> None:
    """Its files are there and say nothing; the rig would write them again within a millisecond."""
    scene.rig.process.send_signal(signal.SIGSTOP)
    for counter in scene.rig.powercap.rglob("energy_uj"):
        os.truncate(counter, 0)
    wait(3.0)
    scene.rig.process.send_signal(signal.SIGCONT)


def _gone_at_start(scene: Scene) -> None:
    away = scene.rig.powercap.with_name("away")
    scene.rig.powercap.rename(away)
    scene.stage.kill("node")
    wait(2.5)
    away.rename(scene.rig.powercap)


def _model_cut(scene: Scene) -> None:
    whole = scene.model.read_bytes()
    scene.model.with_suffix(".part").write_bytes(whole[: len(whole) // 2])
    scene.model.with_suffix(".part").replace(scene.model)  # the old file stays whole for whoever has it mapped
    scene.stage.kill("engine")
    wait(3.0)
    scene.model.with_suffix(".part").write_bytes(whole)
    scene.model.with_suffix(".part").replace(scene.model)
    Registry(scene.stage.folder).add(scene.model, MODEL, default_system=SYSTEM)


def _postgres_ends(scene: Scene) -> None:
    assert scene.stage.postgres is not None
    scene.stage.postgres.restart()


def _postgres_stops(scene: Scene) -> None:
    assert scene.stage.postgres is not None
    with suppress(ProcessLookupError):
        os.killpg(scene.stage.postgres.pid, signal.SIGSTOP)
    for pid in (backends := scene.stage.postgres.children()):
        _send(pid, signal.SIGSTOP)
    wait(4.0)
    for pid in backends:
        _send(pid, signal.SIGCONT)
    os.killpg(scene.stage.postgres.pid, signal.SIGCONT)


def _send(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


FAULTS: Final = (
    Fault("server killed", "SIGKILL", _killed("server")),
    Fault("node killed", "SIGKILL", _killed("node")),
    Fault("engine crashes", "SIGKILL to the process of the model", _killed("engine")),
    Fault("server stands still", "SIGSTOP, after 4 s SIGCONT", _stopped("server", 4.0)),
    Fault("node stands still", "SIGSTOP, after 4 s SIGCONT: longer than it may be silent (3 s)", _stopped("node", 4.0)),
    Fault("engine stands still", "SIGSTOP, after 4 s SIGCONT", _stopped("engine", 4.0)),
    Fault(
        "engine hangs",
        "SIGSTOP for good; a person cancels what runs until the node has ended it",
        _hangs,
        ends=("cancelled",),
    ),
    Fault("everything killed", "SIGKILL to every process at once, then all begin again", _processes_killed),
    Fault(
        "power cut",
        "the disk ends at once and loses what was not flushed, every process is killed; then disk and all begin again",
        _power_cut,
    ),
    Fault("line cut", "each connection between node and server ended, none let in, for 3 s", _line("cut", 3.0)),
    Fault("line silent", "nothing passes for 4 s and nobody is told", _line("silent", 4.0)),
    Fault("line slow", "every 16 kB take 0.3 s more, for 5 s", _line("slow", 5.0)),
    Fault("name lost", "line cut once, and the node cannot find the server's name for 4 s", _no_name),
    Fault("disk full", "not one byte left for 4 s, for server, node and database", _full_disk),
    Fault("disk full at the start", "the same while server and node are killed and begin", _full_at_start),
    Fault(
        "disk read-only",
        "the file system reports an error and takes nothing any more; after 3 s checked, and everything begins again",
        _read_only,
    ),
    Fault("server's clock set", "its calendar jumps by an hour, ahead or back, and after 3 s back", _clock("server")),
    Fault("node's clock set", "the same on the node", _clock("node")),
    Fault("meter unplugged", "its counters say nothing for 3 s while the node reads", _unplugged),
    Fault("meter missing at the start", "it is away for 2.5 s while the node is killed and begins", _gone_at_start),
    Fault(
        "model file broken",
        "half of it is gone and the engine killed; after 3 s added again whole",
        _model_cut,
        ends=("broken_model", "unknown_model"),
    ),
    Fault("Postgres killed", "SIGKILL to its first process, then started", _killed("postgres"), only_postgres=True),
    Fault("Postgres restarted", "its own fast stop, then started", _postgres_ends, only_postgres=True),
    Fault("Postgres stands still", "SIGSTOP to all of it, after 4 s SIGCONT", _postgres_stops, only_postgres=True),
)
