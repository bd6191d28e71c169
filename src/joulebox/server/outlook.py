"""When will it be my turn, why not now, and why here: place in the line, expected start, one sentence. Pure."""

from collections import Counter, deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from statistics import median
from typing import Any

from joulebox.model import JobState
from joulebox.protocol import LeaseRequest
from joulebox.server.control import REASON
from joulebox.server.jobs import BEFORE_MAX, FASTEST, NODE_PREFIX, RECENT, ZONE_PREFIX, Reaches, Record, Waiting
from joulebox.server.sleep import Sleep
from joulebox.wording import lasting


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What a waiting person is told. `position` is how many prompts are taken before this one, `BEFORE_MAX` where there
    are more; `None` once it runs."""

    position: int | None = None
    expected_start: datetime | None = None
    reason: str | None = None


class Pace:
    """How long prompts take from lease to delivery, in seconds: the medians of those that were answered last, by model,
    and of all together where a model's own are not known."""

    def __init__(self, lasted: Iterable[tuple[str, float]] = ()) -> None:
        self._all: deque[float] = deque(maxlen=RECENT)
        self._of: dict[str, deque[float]] = {}
        for model, lasted_s in lasted:
            self.add(model, lasted_s)

    def add(self, model: str, lasted_s: float) -> None:
        """A prompt was answered."""
        self._all.append(lasted_s)
        self._of.setdefault(model, deque(maxlen=RECENT)).append(lasted_s)

    def typical_s(self, model: str | None = None) -> float | None:
        """What one takes; `None` where none was answered yet."""
        known = self._of.get(model or "", self._all)
        return median(known) if known else None

    def each_s(self, mix: Mapping[str, int]) -> float | None:
        """What one of so many prompts of each model takes on average; `None` where nobody can tell."""
        typical = [(count, self.typical_s(model)) for model, count in mix.items()]
        known = [(count, one_s) for count, one_s in typical if one_s is not None]
        counted = sum(count for count, _ in known)
        return sum(count * one_s for count, one_s in known) / counted if counted else self.typical_s()


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """All that the outlook depends on: how many wait before, in each line (of a model, at a place) up to `BEFORE_MAX`;
    what each known node may take, who is present, since when each works, which of them still settles, and how.

    `pace` is what was learned of how long prompts take.
    """

    before: Mapping[tuple[str, str], int]
    reach: Reaches
    present: Collection[str]
    busy: Mapping[str, datetime]
    pace: Pace
    settling: Mapping[str, str] = field(default_factory=dict)
    draining: Mapping[str, str] = field(default_factory=dict)
    """Nodes that take no more prompts, each with the reason."""
    asleep: Mapping[str, Sleep] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Free:
    """A connected node, and in how many seconds it would begin with one more prompt; `None` where nobody can tell."""

    offer: LeaseRequest
    wait_s: float | None


def outlook(record: Record, why: str | None, scene: Scene, now: datetime) -> Outlook:
    """The outlook of one job; `why` is the reason its running attempt was placed where it is."""
    if record.job.state is JobState.RUNNING:
        return Outlook(reason=scene.settling.get(record.job.node or "", why))
    if record.job.state is JobState.DEFERRED:
        return Outlook(expected_start=record.job.available, reason=record.plan.reason if record.plan else None)
    if record.job.state is not JobState.AVAILABLE:
        return Outlook()
    me = record.waiting
    able = scene.reach.able(me)
    present = [node for node in able if node in scene.present]
    mix = _before(present or able, scene)
    before = min(sum(mix.values()), BEFORE_MAX)
    if not present and (sleeping := [node for node in able if _comes(node, scene)]):
        return _woken(before, mix, sleeping, scene, now)
    if not present:
        return Outlook(position=before, reason=_nobody(me.model, able, scene))
    if before >= BEFORE_MAX:
        return Outlook(position=before, reason=f"more than {BEFORE_MAX} prompts are before yours")
    reason = "next in line" if before == 0 else f"{before} prompt{' is' if before == 1 else 's are'} before yours"
    cooling = [scene.settling[node] for node in present if node in scene.settling]
    if cooling and all(node in scene.busy for node in present):
        reason += f"; {cooling[0]}"
    if record.plan is not None:
        reason += f"; {record.plan.reason}"
    return Outlook(position=before, expected_start=_start(before, mix, present, scene, now), reason=reason)


def why(record: Record, able: AbstractSet[str], present: AbstractSet[str]) -> str:
    """Why one of the nodes that are `able` to may take this job now, for the receipt."""
    if record.purpose == "control":
        return REASON
    if record.plan is not None:
        return record.plan.reason
    if record.placement.startswith(NODE_PREFIX):
        return "the prompt asked for this node"
    if len(able) == 1:
        return "the only node that may take it"
    where = f" in {record.placement.removeprefix(ZONE_PREFIX)}" if record.placement != FASTEST else ""
    count = len(able & present)
    return f"the first to be free of {count} connected nodes with {record.job.prompt.model}{where}"


def settling(node: str, said: Mapping[str, Any]) -> str:
    """What a node that settles says, in words; what it does not say is left out."""
    target_c, now_c, expected_s = (said.get(name) for name in ("target_c", "now_c", "expected_s"))
    text = f"{node} settles"
    if target_c is not None:
        warms = now_c is not None and now_c < target_c
        text = f"{node} {'is warmed up' if warms else 'cools'} to {target_c:g} °C"
    return text if expected_s is None else f"{text}, about {expected_s:.0f} s"


def _before(nodes: Collection[str], scene: Scene) -> Mapping[str, int]:
    """The jobs that one of my nodes would take before mine, by model."""
    reaches = [scene.reach[node] for node in nodes]
    mix: Counter[str] = Counter()
    for (model, line), count in scene.before.items():
        if any(model in reach.models and line in reach.lines for reach in reaches):
            mix[model] += count
    return mix


def _comes(node: str, scene: Scene) -> bool:
    sleep = scene.asleep.get(node)
    return sleep is not None and sleep.failed is None and node not in scene.draining


def _woken(before: int, mix: Mapping[str, int], sleeping: Sequence[str], scene: Scene, now: datetime) -> Outlook:
    """Of a prompt that only sleeping nodes can take: when the first of them is ready, by its past wake-ups."""
    node = min(sleeping, key=lambda one: (scene.asleep[one].waking is None, scene.asleep[one].wake_s or 0.0, one))
    sleep = scene.asleep[node]
    known = f", which takes about {lasting(sleep.wake_s)}" if sleep.wake_s is not None else ""
    ready = sleep.ready(now)
    each_s = scene.pace.each_s(mix)
    if ready is not None and before:
        ready = ready + before * timedelta(seconds=each_s) if each_s is not None else None
    return Outlook(
        position=before,
        expected_start=ready,
        reason=f"{node} was suspended and is woken for it{known}",
    )


def _nobody(model: str, able: Collection[str], scene: Scene) -> str:
    if drained := sorted(node for node in able if node in scene.draining):
        return f"waiting for {drained[0]}, which takes no prompts for now: {scene.draining[drained[0]]}"
    if failed := sorted(node for node in able if node in scene.asleep):
        return f"waiting for {failed[0]}, which was suspended and did not wake: it is tried again every 10 minutes"
    if not scene.present:
        return "no node is connected: start one with `joulebox node`"
    if able:
        return f"waiting for {' or '.join(sorted(able))}: no connected node has {model}"
    return f"no node has {model} any more: add it with `joulebox models add`"


@dataclass(frozen=True, slots=True)
class Share:
    """Prompts that wait for a model: `each` of these nodes has so many to take, in the mean."""

    nodes: AbstractSet[str]
    model: str
    each: float


def shared(reach: Reaches, coming: AbstractSet[str], crowd: Mapping[tuple[str, str], int]) -> list[Share]:
    """What waits (`crowd`, by model and line, of a long line the first `BEFORE_MAX`) among the nodes that are or come:
    found once for all of them, since there may be a thousand."""
    able = {kind: reach.able(Waiting(id="", model=kind[0], placement=kind[1])) & coming for kind in crowd}
    return [
        Share(able[kind], kind[0], count / len(able[kind])) for kind, count in crowd.items() if count and able[kind]
    ]


def wait_s(node: str, shares: Sequence[Share], since: datetime | None, pace: Pace, now: datetime) -> float | None:
    """In how many seconds this node would begin with one more prompt: after the one it works on (`since`), and its
    share of what waits. `None` where nobody can tell yet how long a prompt takes."""
    share_s = 0.0
    for share in shares:
        if node in share.nodes:
            if (one_s := pace.typical_s(share.model)) is None:
                return None
            share_s += share.each * one_s
    typical_s = pace.typical_s()
    if since is None:
        return share_s
    return max(typical_s - (now - since).total_seconds(), 0.0) + share_s if typical_s is not None else None


def _start(
    before: int, mix: Mapping[str, int], present: Collection[str], scene: Scene, now: datetime
) -> datetime | None:
    """Each node works through its share, each prompt as long as its model usually takes."""
    idle = len(present) - sum(node in scene.busy for node in present)
    if before < idle:
        return now
    each_s, typical_s = scene.pace.each_s(mix), scene.pace.typical_s()
    if each_s is None or typical_s is None:
        return None
    each, typical = timedelta(seconds=each_s), timedelta(seconds=typical_s)
    free = sorted(max(now, scene.busy[node] + typical) if node in scene.busy else now for node in present)
    rounds, turn = divmod(before, len(free))
    return free[turn] + rounds * each
