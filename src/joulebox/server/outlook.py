"""When will it be my turn, and why not now: place in the line, expected start, one sentence. Pure."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import median

from joulebox.model import JobState
from joulebox.server.jobs import Reach, Record, Waiting


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What a waiting person is told. `position` is how many prompts are taken before this one; `None` once it runs."""

    position: int | None = None
    expected_start: datetime | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """All that the outlook depends on: the line, what each known node may take, who is present, since when each works.

    `durations_s` are those of the last completed jobs, in seconds.
    """

    line: Sequence[Waiting]
    reach: Mapping[str, Reach]
    present: Collection[str]
    busy: Mapping[str, datetime]
    durations_s: Sequence[float]


def outlook(record: Record, why: str | None, scene: Scene, now: datetime) -> Outlook:
    """The outlook of one job; `why` is the reason its running attempt was placed where it is."""
    if record.job.state is JobState.RUNNING:
        return Outlook(reason=why)
    if record.job.state is not JobState.AVAILABLE:
        return Outlook()
    me = record.waiting
    able = [node for node, reach in scene.reach.items() if reach.takes(me)]
    present = [node for node in able if node in scene.present]
    before = _before(me, present or able, scene)
    if not present:
        return Outlook(position=before, reason=_nobody(me.model, able, scene))
    reason = "next in line" if before == 0 else f"{before} prompt{' is' if before == 1 else 's are'} before yours"
    return Outlook(position=before, expected_start=_start(before, present, scene, now), reason=reason)


def _before(me: Waiting, nodes: Collection[str], scene: Scene) -> int:
    """The jobs that one of my nodes would take before mine."""
    count = 0
    for waiting in scene.line:
        if waiting.id == me.id:
            break
        count += any(scene.reach[node].takes(waiting) for node in nodes)
    return count


def _nobody(model: str, able: Sequence[str], scene: Scene) -> str:
    if not scene.present:
        return "no node is connected: start one with `joulebox node`"
    if able:
        return f"waiting for {' or '.join(sorted(able))}: no connected node has {model}"
    return f"no node has {model} any more: add it with `joulebox models add`"


def _start(before: int, present: Sequence[str], scene: Scene, now: datetime) -> datetime | None:
    """Each node works through its share, one median duration each."""
    idle = len(present) - sum(node in scene.busy for node in present)
    if before < idle:
        return now
    if not scene.durations_s:
        return None
    typical = timedelta(seconds=median(scene.durations_s))
    free = sorted(max(now, scene.busy[node] + typical) if node in scene.busy else now for node in present)
    rounds, turn = divmod(before, len(free))
    return free[turn] + rounds * typical
