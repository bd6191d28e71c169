"""What a node does now, since when and why, in words for people. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

from joulebox.accounting.power_model import profile_of
from joulebox.model import IdlePolicy
from joulebox.server.jobs import NodeRecord
from joulebox.server.live import Live
from joulebox.server.sleep import Sleep
from joulebox.wording import lasting

NodeState = Literal["idle", "unloaded", "suspended", "waking", "busy", "draining", "away"]
NodePhase = Literal["settling", "warming_up", "loading", "answering", "measuring"]
DOING: Final[dict[NodePhase | None, str]] = {
    None: "takes up a prompt",
    "settling": "waits for the machine to come to rest",
    "warming_up": "warms up",
    "loading": "loads a model",
    "answering": "answers a prompt",
    "measuring": "listens to the machine after the answer",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeNow:
    """`since` is when this began; `None` where nobody has seen it begin. `power`: the newest watts of a prompt that
    runs, and of which scope, where its node has told any."""

    state: NodeState
    phase: NodePhase | None
    since: datetime | None
    reason: str
    power: Mapping[str, Any] | None = None


def node_now(
    node: NodeRecord,
    here: bool,
    works_since: datetime | None,
    live: Live | None,
    idle_since: datetime | None,
    sleep: Sleep | None = None,
) -> NodeNow:
    """`here`: it is connected. `live` is its running attempt where this server looks after it; `works_since` is known
    wherever it runs; `sleep` where it was let suspend."""
    phase, why = _phase(live)
    if sleep is not None and node.drain is None:
        return _asleep(node, sleep)
    if not here and sleep is None:
        reason = "its connection is gone" if works_since is None else "silent in the middle of a prompt"
        return NodeNow(state="away", phase=None, since=node.seen, reason=reason)
    if node.drain is not None:
        rest = "; finishes its prompt" if works_since is not None else ""
        why = f"{node.drain.why}{rest}"
        return NodeNow(state="draining", phase=phase, since=node.drain.at, reason=why, power=_power(live))
    if works_since is not None:
        since = live.since if live is not None and live.since is not None else works_since
        return NodeNow(state="busy", phase=phase, since=since, reason=why, power=_power(live))
    if node.offer.unloaded_at is not None:
        kept = node.offer.policy.unload_s if node.offer.policy else None
        after = f"idle for {lasting(kept)}" if kept is not None else "idle"
        return NodeNow(
            state="unloaded", phase=None, since=node.offer.unloaded_at, reason=f"{after}, so it has no model in memory"
        )
    return NodeNow(state="idle", phase=None, since=idle_since, reason="waits for prompts")


def _power(live: Live | None) -> Mapping[str, Any] | None:
    told = next((event.data for event in reversed(live.log) if event.kind == "power"), None) if live else None
    found = watts_of(told) if told is not None else {}
    return {"w": found["w"], "scope": found["scope"]} if found.get("w") is not None else None


def watts_of(data: Mapping[str, Any]) -> dict[str, Any]:
    """Watts as they are; without a meter the node tells busy cores, and the model's watts are worked out here."""
    watts, known = data.get("w"), [data.get(name) for name in ("busy_cores", "cores", "memory_bytes")]
    numbers = [number for number in known if isinstance(number, int | float)]
    if watts is None and len(numbers) == len(known):
        busy, cores, memory_bytes = numbers
        profile = profile_of(int(cores), int(memory_bytes))
        watts = round(profile.idle_w + profile.busy_core_w * busy, 3)
    return {"t_s": data.get("t_s"), "w": watts, "scope": data.get("scope")}


def _asleep(node: NodeRecord, sleep: Sleep) -> NodeNow:
    policy = node.offer.policy or IdlePolicy()
    if sleep.failed is not None:
        reason = f"it was suspended, and did not wake within {lasting(policy.wake_max_s)}: look after it"
        return NodeNow(state="away", phase=None, since=sleep.failed, reason=reason)
    if sleep.waking is not None:
        soon = f", which takes about {lasting(sleep.wake_s)}" if sleep.wake_s is not None else ""
        reason = f"woken for a prompt that only it can take{soon}"
        return NodeNow(state="waking", phase=None, since=sleep.waking, reason=reason)
    after = f"idle for {lasting(policy.suspend_s)}" if policy.suspend_s is not None else "idle"
    return NodeNow(state="suspended", phase=None, since=sleep.at, reason=f"{after}, so it sleeps until it is needed")


def _phase(live: Live | None) -> tuple[NodePhase | None, str]:
    if live is None:
        return None, "works on a prompt"
    phase: NodePhase | None = live.phase if live.phase != "queued" else None
    told = next((event.data for event in reversed(live.log) if event.kind == "settling"), None)
    why = DOING[phase]
    if phase == "settling" and told is not None and told.get("sensor") is not None:
        phase, why = _warmth(told)
    return phase, f"control prompt: {why}" if live.purpose == "control" else why


def _warmth(told: Mapping[str, Any]) -> tuple[NodePhase, str]:
    """A machine outside its band: too cold is warmed up, too warm is waited for."""
    now_c, target_c, expected_s = told.get("now_c"), told.get("target_c"), told.get("expected_s")
    if now_c is None or target_c is None:
        return "settling", DOING["settling"]
    if now_c < target_c:
        return "warming_up", f"warms up: {told['sensor']} is at {now_c:g} °C and begins at {target_c:g} °C"
    soon = f", in about {expected_s:.0f} s" if expected_s is not None else ""
    return "settling", f"cools down: {told['sensor']} is at {now_c:g} °C and begins at {target_c:g} °C{soon}"
