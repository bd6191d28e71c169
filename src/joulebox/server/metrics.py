"""`/metrics`: the service in Prometheus text form, or OpenMetrics where that is asked for.

`FAMILIES` is the one table of all metrics: their page of the reference, the dashboard's test and the lint read it too.
Counters come from the database, so that every server tells the same and none begins anew; gauges are what this server
knows now. Labels are bounded by what the operator set up: nodes, models, zones. No label names a prompt or a person.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any, Final, Literal, get_args

from fastapi import APIRouter, Header
from fastapi.responses import PlainTextResponse, Response

import joulebox
from joulebox.accounting import METHOD_VERSION
from joulebox.accounting.fleet import idle_energy
from joulebox.errors import JouleboxError
from joulebox.protocol import LeaseRequest
from joulebox.server.desk import Desk
from joulebox.server.grid.live import Grid
from joulebox.server.jobs import NodeRecord
from joulebox.server.node_now import NodeNow, NodeState
from joulebox.server.problems import NewRouter
from joulebox.server.store.seeing_books import SeeingBooks, Watched
from joulebox.server.tallies import NONE
from joulebox.units import J_PER_KWH

STATES: Final[tuple[NodeState, ...]] = get_args(NodeState)
FRESH: Final = timedelta(minutes=5)
"""What an idle node last drew is shown for so long."""
UNITS: Final = ("joules", "grams", "grams_per_joule", "watts", "celsius", "seconds")
Values = Iterable[tuple[Mapping[str, str], float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One metric: name with its unit, kind, labels, and what it is."""

    name: str
    kind: Literal["counter", "gauge"]
    labels: tuple[str, ...]
    help: str

    @property
    def unit(self) -> str:
        """The unit in the name; empty where it counts things or says yes."""
        bare = self.name.removesuffix("_total")
        return next((unit for unit in sorted(UNITS, key=len, reverse=True) if bare.endswith(f"_{unit}")), "")


def _counter(name: str, labels: str, told: str) -> Family:
    return Family(name=f"joulebox_{name}", kind="counter", labels=tuple(labels.split()), help=told)


def _gauge(name: str, labels: str, told: str) -> Family:
    return Family(name=f"joulebox_{name}", kind="gauge", labels=tuple(labels.split()), help=told)


FAMILIES: Final[Mapping[str, Family]] = {
    one.name: one
    for one in (
        _counter(
            "energy_joules_total",
            "node model purpose scope method verdict figure",
            "Joules by receipts as first made; scopes are never added to one another. figure: answer (idle included), "
            "active (above idle), tail (after it), full (lease to release with earlier attempts).",
        ),
        _counter(
            "co2e_grams_total",
            "node model purpose zone part",
            "Grams of CO2e of answers, central value; part: operational, embodied.",
        ),
        _counter(
            "receipts_total",
            "node model purpose scope method verdict grade",
            "Receipts made, by verdict and by grade of the answer's energy.",
        ),
        _counter("tokens_total", "node model purpose direction", "Tokens read (input) and written (output)."),
        _counter(
            "phase_seconds_total",
            "node model purpose phase",
            "Seconds that answered prompts spent queued, in settle, load and answer.",
        ),
        _counter("prompts_total", "node model purpose state", "Prompts that ended, by their last state."),
        _counter("attempts_total", "node outcome", "Attempts that ended: done, failed, lost or cancelled."),
        _counter("rescues_total", "node", "Failed or lost attempts after which the prompt went back into the line."),
        _counter(
            "idle_joules_total",
            "node scope method loaded",
            "Joules drawn between prompts, attributed to none; loaded: with a model in memory.",
        ),
        _counter("idle_seconds_total", "node scope method loaded", "Seconds between prompts that these joules are of."),
        _gauge("queue_prompts", "model state", "Prompts that wait (available, deferred; up to a bound) or run."),
        _gauge("node_info", "node zone engine engine_version", "One for each node that ever joined."),
        _gauge("node_state", "node state", "One for what the node does now, zero for what it does not."),
        _gauge("node_last_seen_timestamp_seconds", "node", "When the node was last connected."),
        _gauge(
            "node_power_watts",
            "node scope doing",
            "Newest power of a node that answers, or mean of its last idle stretch; absent where nobody knows.",
        ),
        _gauge("node_temperature_celsius", "node", "Temperature as told with the last request for work."),
        _gauge(
            "node_temperature_band_celsius",
            "node scope bound",
            "Between which temperatures an answer begins; bound: min, max.",
        ),
        _gauge(
            "grid_intensity_grams_per_joule",
            "zone source quality bound",
            "Carbon intensity of the grid now; bound: low, central, high. Times 3.6e6: grams per kilowatt hour.",
        ),
        _gauge("build_info", "version method_version", "One: this server's version, and that of its method."),
    )
}


class Metrics:
    """What is scraped."""

    def __init__(self, desk: Desk, books: SeeingBooks, grid: Grid) -> None:
        self._desk = desk
        self._books = books
        self._grid = grid

    async def look(self) -> dict[str, Values]:
        """Every metric that has a value now, by name. Raises `JouleboxError("database")`."""
        watched, nodes = await self._books.watched(), await self._desk.nodes()
        now = self._desk.now()
        found: dict[str, Values] = {name: watched.totals.get(name, ()) for name in FAMILIES}
        found |= {"joulebox_queue_prompts": _queue(watched), "joulebox_build_info": [(_build(), 1.0)]}
        return found | _nodes(nodes, now) | {"joulebox_grid_intensity_grams_per_joule": self._intensities(nodes)}

    def _intensities(self, nodes: Sequence[tuple[NodeRecord, NodeNow]]) -> Values:
        own = self._grid.own_zone
        wanted = {node.offer.zone for node, _ in nodes} | ({own} if own is not None else set())
        found: dict[tuple[tuple[str, str], ...], float] = {}
        for zone in sorted(wanted, key=str):
            try:
                grid = self._grid.now(zone)
            except JouleboxError:  # a zone that is no longer in the table
                continue
            source = re.split(r"[(,;]", grid.source)[0].strip()  # its name, without what else is told of it
            labels = {"zone": grid.zone, "source": source, "quality": grid.quality}
            bounds = {"low": grid.low, "central": grid.g_per_kwh, "high": grid.high}
            for bound, g_per_kwh in bounds.items():
                found[*labels.items(), ("bound", bound)] = g_per_kwh / J_PER_KWH
        return [(dict(labels), value) for labels, value in found.items()]


def _queue(watched: Watched) -> Values:
    return [({"model": model, "state": state}, float(count)) for (model, state), count in watched.prompts.items()]


def _build() -> Mapping[str, str]:
    return {"version": joulebox.__version__, "method_version": METHOD_VERSION}


def _nodes(nodes: Sequence[tuple[NodeRecord, NodeNow]], now: datetime) -> dict[str, Values]:
    known: dict[str, list[tuple[Mapping[str, str], float]]] = {}

    def tell(name: str, value: float, **labels: str) -> None:
        known.setdefault(f"joulebox_node_{name}", []).append((labels, value))

    for node, found in nodes:
        offer, name = node.offer, node.offer.node
        engine = {"engine": offer.engine.name, "engine_version": offer.engine.version}
        tell("info", 1.0, node=name, zone=offer.zone or NONE, **engine)
        for state in STATES:
            tell("state", float(state == found.state), node=name, state=state)
        tell("last_seen_timestamp_seconds", node.seen.timestamp(), node=name)
        if found.power is not None:
            tell("power_watts", float(found.power["w"]), node=name, scope=str(found.power["scope"]), doing="answering")
        elif found.state in {"idle", "unloaded"} and (idle := _idle_power(offer, now)) is not None:
            tell("power_watts", idle[1], node=name, scope=idle[0], doing="idle")
        if offer.temperature_c is not None:
            tell("temperature_celsius", offer.temperature_c, node=name)
        for band in offer.bands:
            for bound, at_c in (("min", band.min_c), ("max", band.max_c)):
                if at_c is not None:
                    tell("temperature_band_celsius", at_c, node=name, scope=band.scope, bound=bound)
    return dict(known)


def _idle_power(offer: LeaseRequest, now: datetime) -> tuple[str, float] | None:
    """Scope and watts of the last idle stretch that a node told, while that is new."""
    last = max(offer.idle, key=lambda one: one.until, default=None)
    if last is None or not last.counted or now - last.until > FRESH:
        return None
    lasted_s = (last.until - last.start).total_seconds()
    drawn = idle_energy(last.counted, lasted_s, offer.cores or 1, offer.memory_bytes)
    return drawn.scope, drawn.j / lasted_s


def rendered(found: Mapping[str, Values], accept: str) -> tuple[bytes, str]:
    """The text, in the newest form that `accept` takes, and its media type. The library knows the forms' rules."""
    from prometheus_client.exposition import choose_encoder
    from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
    from prometheus_client.process_collector import ProcessCollector
    from prometheus_client.registry import Collector, CollectorRegistry

    class Once(Collector):
        def collect(self) -> Iterable[Metric]:
            for name, family in FAMILIES.items():
                metric: CounterMetricFamily | GaugeMetricFamily
                if family.kind == "counter":
                    metric = CounterMetricFamily(name, family.help, labels=family.labels, unit=family.unit)
                else:
                    metric = GaugeMetricFamily(name, family.help, labels=family.labels, unit=family.unit)
                for labels, value in found.get(name, ()):
                    metric.add_metric([labels.get(label, NONE) for label in family.labels], value)
                yield metric

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Once())
    ProcessCollector(registry=registry)
    encoder, media_type = choose_encoder(accept)
    return encoder(registry), media_type


def router(new: NewRouter, metrics: Metrics) -> APIRouter:
    """The route."""
    routes = new()
    forms: dict[int | str, dict[str, Any]] = {
        200: {"content": {"text/plain": {}, "application/openmetrics-text": {}}, "description": "All metrics."}
    }

    @routes.get("/metrics", response_class=PlainTextResponse, responses=forms)
    async def scrape(accept: Annotated[str, Header()] = "") -> Response:
        """The service as Prometheus reads it: energy, emissions, verdicts, nodes, queue and grid."""
        body, media_type = rendered(await metrics.look(), accept)
        return Response(body, media_type=media_type)

    return routes
