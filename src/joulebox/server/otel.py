"""A prompt's life as OpenTelemetry spans and metrics: the whole mapping, and the only place that knows the SDK.

Spans are made when a prompt is over, from what the database keeps of it: its attempts, the evidence of its nodes and
its receipt. So nothing is done while an answer is measured, times are the measured ones, and whichever server ends a
prompt tells all of it. Texts are never in it, neither prompts nor answers nor stop sequences.

Nothing here is imported, and nothing runs, unless an `OTEL_*` variable names an exporter (`wanted`).
"""

import json
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, Literal

import joulebox
from joulebox.errors import JouleboxError
from joulebox.evidence import decode_trace
from joulebox.model import AttemptState, JobState, SpanName, Trace
from joulebox.server.store.seeing_books import Life, Tried
from joulebox.units import NS_PER_US

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.metrics.export import MetricReader
    from opentelemetry.sdk.trace import SpanProcessor

SEMCONV: Final = "1.37.0"
"""The version of the semantic conventions that the `gen_ai.*` names below are of: the last one of their first home."""
SCHEMA_URL: Final = f"https://opentelemetry.io/schemas/{SEMCONV}"
PROVIDER: Final = "joulebox"
OPERATION: Final = "chat"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
Names = Mapping[str, str]
"""Attributes, each with where its value stands among the facts of a prompt; what is not known is left out."""

PROMPT: Final[Names] = {
    "joulebox.prompt.id": "prompt.id",
    "joulebox.prompt.state": "prompt.state",
    "joulebox.prompt.purpose": "prompt.purpose",
    "joulebox.prompt.priority": "prompt.priority",
    "joulebox.prompt.placement": "prompt.placement",
    "joulebox.prompt.mode": "prompt.mode",
    "joulebox.prompt.attempts": "prompt.attempts",
    "joulebox.receipt.id": "receipt.id",
    "joulebox.verdict": "receipt.verdict",
    "joulebox.reasons": "reasons",
    "joulebox.simulated": "receipt.simulated",
    "joulebox.method_version": "receipt.method_version",
    "joulebox.energy.full_j": "receipt.energy.full.j",
    "joulebox.energy.full_u_j": "receipt.energy.full.u",
    "joulebox.energy.full_grade": "receipt.energy.full.grade",
    "joulebox.carbon.saved_g": "receipt.placement.saved_g",
    "error.type": "prompt.error",
}
ATTEMPT: Final[Names] = {
    "joulebox.attempt.number": "attempt.number",
    "joulebox.attempt.outcome": "attempt.state",
    "joulebox.node": "attempt.node",
    "joulebox.zone": "zone",
    "error.type": "attempt.problem",
}
INFERENCE: Final[Names] = {
    "gen_ai.operation.name": "operation",
    "gen_ai.provider.name": "provider",
    "gen_ai.output.type": "output",
    "gen_ai.request.model": "prompt.model",
    "gen_ai.request.max_tokens": "prompt.max_tokens",
    "gen_ai.request.temperature": "prompt.temperature",
    "gen_ai.request.seed": "prompt.seed",
    "gen_ai.response.id": "prompt.id",
    "gen_ai.response.model": "receipt.model.name",
    "gen_ai.response.finish_reasons": "finish_reasons",
    "gen_ai.usage.input_tokens": "receipt.usage.input_tokens",
    "gen_ai.usage.output_tokens": "receipt.usage.output_tokens",
    "joulebox.node": "attempt.node",
    "joulebox.engine.name": "receipt.engine.name",
    "joulebox.engine.version": "receipt.engine.version",
    "joulebox.model.digest": "receipt.model.digest",
    "joulebox.energy.scope": "receipt.energy.scope",
    "joulebox.energy.missing": "receipt.energy.missing",
    "joulebox.energy_j": "receipt.energy.answer.j",
    "joulebox.energy_u_j": "receipt.energy.answer.u",
    "joulebox.energy_grade": "receipt.energy.answer.grade",
    "joulebox.energy.active_j": "receipt.energy.active.j",
    "joulebox.energy.active_u_j": "receipt.energy.active.u",
    "joulebox.energy.tail_j": "receipt.energy.tail.j",
    "joulebox.power.mean_w": "receipt.power.mean_w",
    "joulebox.power.idle_w": "receipt.power.idle_w",
    "joulebox.carbon.operational_g": "receipt.carbon.operational.g",
    "joulebox.carbon.embodied_g": "receipt.carbon.embodied.g",
    "joulebox.carbon.intensity_g_per_kwh": "receipt.carbon.intensity.g_per_kwh",
    "joulebox.carbon.zone": "receipt.carbon.intensity.zone",
    "joulebox.sci.answer_g": "receipt.sci.answer.per_answer_g",
    "joulebox.verdict": "receipt.verdict",
}
"""Of the span in which the model answers. The plain names `energy_j`, `energy_u_j` and `energy_grade` are the headline:
`energy.answer` of the receipt."""
PHASE: Final[Names] = {
    "joulebox.energy_j": "phase.j",
    "joulebox.energy_u_j": "phase.u",
    "joulebox.energy.method": "phase.method",
}
SPANS: Final[Mapping[SpanName, str]] = {
    "settle": "settle",
    "load": "load",
    "prefill": "prefill",
    "decode": "decode",
    "post": "measure",
}
"""Spans of the evidence by what they are called here; the answer is called after operation and model."""
IN_RECEIPT: Final[Mapping[SpanName, str]] = {"post": "tail"}
"""What the receipt calls a span of the evidence, where that is another name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Instrument:
    """One metric: kind, unit, what it is, and the ends of its buckets where it has any."""

    kind: Literal["histogram", "counter"]
    unit: str
    help: str
    ends: tuple[float, ...] = ()


_TOKENS: Final = tuple(float(4**power) for power in range(14))
_REQUEST_S: Final = tuple(0.01 * 2**power for power in range(14))
_FIRST_S: Final = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
_PER_TOKEN_S: Final = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
INSTRUMENTS: Final[Mapping[str, Instrument]] = {
    "gen_ai.client.token.usage": Instrument(
        kind="histogram", unit="{token}", help="Number of input and output tokens used.", ends=_TOKENS
    ),
    "gen_ai.server.request.duration": Instrument(
        kind="histogram", unit="s", help="From the request handed to the engine to the last token.", ends=_REQUEST_S
    ),
    "gen_ai.server.time_to_first_token": Instrument(
        kind="histogram", unit="s", help="Time to the first token of an answer.", ends=_FIRST_S
    ),
    "gen_ai.server.time_per_output_token": Instrument(
        kind="histogram", unit="s", help="Time per output token after the first.", ends=_PER_TOKEN_S
    ),
    "joulebox.energy": Instrument(kind="counter", unit="J", help="Joules of answers, by figure, scope and verdict."),
    "joulebox.co2e": Instrument(kind="counter", unit="g", help="Grams of CO2e of answers, operational and embodied."),
}
ABOUT: Final[Names] = {
    name: INFERENCE[name]
    for name in (
        "gen_ai.operation.name",
        "gen_ai.provider.name",
        "gen_ai.request.model",
        "gen_ai.response.model",
        "joulebox.node",
    )
}
"""What every metric is told by."""

Facts = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A span before the SDK makes it; times in nanoseconds since 1970, `error` where it failed."""

    name: str
    start_ns: int
    end_ns: int
    kind: Literal["server", "client", "internal"] = "internal"
    attributes: Mapping[str, Any] = field(default_factory=dict)
    error: str | None = None
    events: tuple[tuple[str, int], ...] = ()
    inner: tuple["Planned", ...] = ()


# --- a life becomes spans and measurements ----------------------------------------------------------------------------


def facts_of(life: Life) -> Facts:
    """Everything that attributes may name, without any text."""
    record, job = life.record, life.record.job
    receipt = json.loads(life.receipt) if life.receipt is not None else None
    finish = receipt["finish_reason"] if receipt else job.finish_reason
    prompt = {name: getattr(job.prompt, name) for name in ("model", "max_tokens", "temperature", "seed", "mode")}
    prompt |= {"id": job.id, "state": str(job.state), "purpose": record.purpose, "priority": record.priority}
    prompt |= {"placement": record.policy, "attempts": job.attempt, "error": job.error.code if job.error else None}
    return {
        "operation": OPERATION,
        "provider": PROVIDER,
        "output": "text",
        "prompt": prompt,
        "receipt": receipt,
        "reasons": [one["code"] for one in receipt["reasons"]] if receipt else None,
        "finish_reasons": [finish] if finish else None,
    }


def named(names: Names, facts: Facts) -> dict[str, Any]:
    """The attributes of these names that are known."""
    found = {name: _at(facts, path) for name, path in names.items()}
    return {name: value for name, value in found.items() if value is not None and value != []}


def _at(facts: Any, path: str) -> Any:
    for part in path.split("."):
        facts = facts.get(part) if isinstance(facts, Mapping) else None
    return facts


def spans_of(life: Life) -> Planned:
    """A prompt's life as a tree: waiting, and each attempt with what its evidence tells."""
    job, facts = life.record.job, facts_of(life)
    end = job.finalized or job.created
    inner, since = [], job.created
    for tried in life.tried:
        inner.append(Planned(name="queue", start_ns=_ns(since), end_ns=_ns(tried.leased)))
        inner.append(_attempt(tried, facts))
        since = tried.finished or tried.leased
    if not life.tried:
        inner.append(Planned(name="queue", start_ns=_ns(since), end_ns=_ns(end)))
    return Planned(
        name=f"prompt {job.prompt.model}",
        start_ns=_ns(job.created),
        end_ns=_ns(end),
        kind="server",
        attributes=named(PROMPT, facts),
        error=job.error.code if job.error and job.state is JobState.DISCARDED else None,
        inner=tuple(inner),
    )


def _attempt(tried: Tried, facts: Facts) -> Planned:
    trace = decode_trace(tried.trace) if tried.trace is not None else None
    done = tried.state is AttemptState.DONE
    told = {name: value for name, value in asdict(tried).items() if name != "trace"} | {"state": str(tried.state)}
    mine = {**facts, "attempt": told, "zone": trace.zone if trace else None}
    if not done:
        mine["receipt"] = None
    failed = tried.state in {AttemptState.FAILED, AttemptState.LOST}
    return Planned(
        name=f"attempt {tried.number}",
        start_ns=_ns(tried.leased),
        end_ns=_ns(tried.finished or tried.leased),
        attributes=named(ATTEMPT, mine),
        error=(tried.problem or str(tried.state)) if failed else None,
        inner=tuple(_told(trace, mine)) if trace is not None else (),
    )


def _told(trace: Trace, facts: Facts) -> Iterator[Planned]:
    """What the evidence of an attempt tells: settling, loading, the answer with its phases, listening on."""
    origin_ns = _ns(trace.origin)
    parts = [span for span in trace.spans if span.name in {"prefill", "decode"}]
    phases = _at(facts, "receipt.energy.phases") or {}

    def planned(name: str, start_ns: int, end_ns: int, attributes: Mapping[str, Any], **more: Any) -> Planned:
        start_ns, end_ns = origin_ns + start_ns, origin_ns + end_ns
        return Planned(name=name, start_ns=start_ns, end_ns=end_ns, attributes=attributes, **more)

    def phase(name: SpanName, start_ns: int, end_ns: int) -> Planned:
        return planned(SPANS[name], start_ns, end_ns, named(PHASE, {"phase": phases.get(IN_RECEIPT.get(name, name))}))

    for span in trace.spans:
        if span.name == "answer":
            first = trace.tokens[0].t_ns if trace.tokens else None
            yield planned(
                f"{OPERATION} {facts['prompt']['model']}",
                span.start_ns,
                span.end_ns,
                named(INFERENCE, facts),
                kind="client",
                events=(("first_token", origin_ns + first),) if first is not None else (),
                inner=tuple(phase(one.name, one.start_ns, one.end_ns) for one in parts),
            )
        elif span.name in SPANS and span not in parts:
            yield phase(span.name, span.start_ns, span.end_ns)


def measured(life: Life) -> Iterator[tuple[str, float, dict[str, Any]]]:
    """What an answer adds to each instrument: name, amount, and what it is told by."""
    facts = facts_of(life)
    receipt = facts["receipt"]
    if receipt is None:
        return
    common = named(ABOUT, {**facts, "attempt": {"node": receipt["node"]}})
    usage, times, energy, carbon = (receipt[name] for name in ("usage", "times", "energy", "carbon"))
    plain = {
        "gen_ai.server.request.duration": times["duration_s"],
        "gen_ai.server.time_to_first_token": times["time_to_first_token_s"],
        "gen_ai.server.time_per_output_token": times["time_per_output_token_s"],
    }
    for name, value in plain.items():
        if value is not None:
            yield name, value, common
    for way in ("input", "output"):
        if usage[f"{way}_tokens"] is not None:
            yield "gen_ai.client.token.usage", usage[f"{way}_tokens"], common | {"gen_ai.token.type": way}
    for figure in ("answer", "active", "tail", "full"):
        if energy[figure] is not None:
            told = {"joulebox.figure": figure, "joulebox.energy.scope": energy["scope"]}
            told |= {"joulebox.verdict": receipt["verdict"]}
            yield "joulebox.energy", max(energy[figure]["j"], 0.0), common | told
    for part in ("operational", "embodied"):
        if carbon[part] is not None:
            yield "joulebox.co2e", carbon[part]["g"], common | {"joulebox.part": part}


def _ns(at: datetime) -> int:
    return (at - _EPOCH) // (datetime.resolution) * NS_PER_US


# --- the SDK ----------------------------------------------------------------------------------------------------------


class Telemetry:
    """Tells the SDK of prompts that are over. Its calls may take a while: make them in a thread."""

    def __init__(self, spans: Sequence["SpanProcessor"], metrics: Sequence["MetricReader"]) -> None:
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider

        own = {"service.name": "joulebox", "service.version": joulebox.__version__}
        own["service.instance.id"] = secrets.token_hex(8)
        resource = Resource.create().merge(Resource(own)).merge(OTELResourceDetector().detect())
        self._tracers = TracerProvider(resource=resource, shutdown_on_exit=False)
        for processor in spans:
            self._tracers.add_span_processor(processor)
        self._meters = MeterProvider(metrics, resource=resource, shutdown_on_exit=False)
        self._tracer = self._tracers.get_tracer("joulebox", joulebox.__version__, schema_url=SCHEMA_URL)
        meter = self._meters.get_meter("joulebox", joulebox.__version__, schema_url=SCHEMA_URL)
        self._add: dict[str, Any] = {}
        for name, one in INSTRUMENTS.items():
            if one.kind == "histogram":
                made = meter.create_histogram(name, one.unit, one.help, explicit_bucket_boundaries_advisory=one.ends)
                self._add[name] = made.record
            else:
                self._add[name] = meter.create_counter(name, one.unit, one.help).add

    def tell(self, life: Life) -> None:
        """A prompt is over."""
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        parent = life.record.traceparent
        self._make(spans_of(life), TraceContextTextMapPropagator().extract({"traceparent": parent} if parent else {}))
        for name, value, attributes in measured(life):
            self._add[name](value, attributes)

    def _make(self, planned: Planned, context: "Context") -> None:
        from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context

        kind = {"server": SpanKind.SERVER, "client": SpanKind.CLIENT, "internal": SpanKind.INTERNAL}[planned.kind]
        span = self._tracer.start_span(
            planned.name, context, kind, dict(planned.attributes), start_time=planned.start_ns
        )
        for name, at_ns in planned.events:
            span.add_event(name, timestamp=at_ns)
        if planned.error is not None:
            span.set_status(Status(StatusCode.ERROR, planned.error))
        for one in planned.inner:
            self._make(one, set_span_in_context(span, context))
        span.end(end_time=max(planned.end_ns, planned.start_ns))

    def close(self) -> None:
        """Send what is left."""
        self._tracers.shutdown()
        self._meters.shutdown()


# --- the environment --------------------------------------------------------------------------------------------------

Signal = Literal["traces", "metrics"]
EXPORTERS: Final[Mapping[tuple[Signal, str], tuple[str, str]]] = {
    ("traces", "otlp"): ("opentelemetry.exporter.otlp.proto.http.trace_exporter", "OTLPSpanExporter"),
    ("traces", "console"): ("opentelemetry.sdk.trace.export", "ConsoleSpanExporter"),
    ("metrics", "otlp"): ("opentelemetry.exporter.otlp.proto.http.metric_exporter", "OTLPMetricExporter"),
    ("metrics", "console"): ("opentelemetry.sdk.metrics.export", "ConsoleMetricExporter"),
}


def wanted(environment: Mapping[str, str], signal: Signal) -> list[str]:
    """The exporters that the environment names for a signal: those of `OTEL_TRACES_EXPORTER` and
    `OTEL_METRICS_EXPORTER`, or `otlp` where only an endpoint is named. Raises `JouleboxError("bad_setting")`."""
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return []
    upper = signal.upper()
    endpoints = ("OTEL_EXPORTER_OTLP_ENDPOINT", f"OTEL_EXPORTER_OTLP_{upper}_ENDPOINT")
    implied = "otlp" if any(environment.get(name) for name in endpoints) else "none"
    names = [one.strip() for one in (environment.get(f"OTEL_{upper}_EXPORTER") or implied).split(",")]
    for name in names:
        if name != "none" and (signal, name) not in EXPORTERS:
            sentence = f"OTEL_{upper}_EXPORTER = {name!r} cannot be used: it takes otlp, console or none."
            raise JouleboxError("bad_setting", sentence)
    protocol = environment.get(f"OTEL_EXPORTER_OTLP_{upper}_PROTOCOL") or environment.get("OTEL_EXPORTER_OTLP_PROTOCOL")
    if "otlp" in names and protocol not in {None, "", "http/protobuf"}:
        sentence = f"OTEL_EXPORTER_OTLP_PROTOCOL = {protocol!r} cannot be used: send http/protobuf, port 4318."
        raise JouleboxError("bad_setting", sentence)
    return [name for name in names if name != "none"]


def from_environment(environment: Mapping[str, str] = os.environ) -> Telemetry | None:
    """What the environment asks for; `None` where it asks for nothing.

    Raises `JouleboxError`: `bad_setting`, `missing_extra`.
    """
    traces, metrics = wanted(environment, "traces"), wanted(environment, "metrics")
    if not traces and not metrics:
        return None
    try:
        from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        processors = [BatchSpanProcessor(_exporter("traces", name)) for name in traces]
        readers = [PeriodicExportingMetricReader(_exporter("metrics", name)) for name in metrics]
    except ModuleNotFoundError as error:
        sentence = "An OTEL_* variable names an exporter, and OpenTelemetry is not installed: run "
        sentence += "pip install 'joulebox[otel]', or set OTEL_SDK_DISABLED=true."
        raise JouleboxError("missing_extra", sentence) from error
    return Telemetry(processors, readers)


def _exporter(signal: Signal, name: str) -> Any:
    module, kind = EXPORTERS[signal, name]
    return getattr(import_module(module), kind)()
