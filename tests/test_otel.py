"""Prompts as OpenTelemetry tells them: a real flow into the SDK's in-memory collector, with its times and joules."""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes
from opentelemetry.semconv._incubating.metrics import gen_ai_metrics
from opentelemetry.trace import SpanKind, StatusCode

import databases
from joulebox.errors import JouleboxError
from joulebox.evidence import decode_trace
from joulebox.model import Problem, Span
from joulebox.protocol import Finish
from joulebox.server import otel, tracing
from joulebox.server.lives import Lives
from joulebox.server.otel import Telemetry, from_environment, wanted
from joulebox.server.store.seeing_books import Life
from server_stage import Stage, done, evidence, stage

pytestmark = pytest.mark.anyio
Json = dict[str, Any]
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Collector(Telemetry):
    """The real SDK, which keeps what it is told in memory."""

    def __init__(self) -> None:
        self.kept, self.reader = InMemorySpanExporter(), InMemoryMetricReader()
        super().__init__([SimpleSpanProcessor(self.kept)], [self.reader])

    @property
    def spans(self) -> Sequence[ReadableSpan]:
        """What was told, in the order in which spans began."""
        return sorted(self.kept.get_finished_spans(), key=lambda one: (one.start_time or 0, -(one.end_time or 0)))

    def span(self, name: str) -> ReadableSpan:
        """The only span of that name."""
        (found,) = [one for one in self.spans if one.name == name]
        return found

    def metrics(self) -> dict[str, list[Any]]:
        """The points of each metric."""
        data = self.reader.get_metrics_data()
        assert data is not None
        scopes = [scope for resource in data.resource_metrics for scope in resource.scope_metrics]
        return {one.name: list(one.data.data_points) for scope in scopes for one in scope.metrics}

    def close(self) -> None:
        """The server has told everything; the test still looks."""


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector, closed at the end."""
    collector = Collector()
    try:
        yield collector
    finally:
        Telemetry.close(collector)


async def answer(scene: Stage, **headers: str) -> tuple[Json, Json]:
    """One prompt answered; its lease and its receipt."""
    asked = await scene.http.post(
        "/api/v1/prompts", json={"model": "m", "prompt": "secret words", "seed": 7, "stop": ["hidden"]}, headers=headers
    )
    assert asked.status_code == 202
    lease = await scene.lease()
    reply = await scene.finish(lease, done(lease, "Hel", "lo"))
    receipt: Json = (await scene.http.get(f"/api/v1/receipts/{reply.json()['receipt_id']}")).json()
    return lease, receipt


async def test_a_prompt_becomes_a_tree_of_spans(tmp_path: Path) -> None:
    """Waiting, the attempt and the answer inside it are spans, with times of the evidence and joules of the receipt."""
    with collecting() as told:
        async with stage(tmp_path, listener=told) as scene:
            await scene.join()
            lease, receipt = await answer(scene)
        names = {one.name: one for one in told.spans}
        assert {"prompt m", "queue", "attempt 1", "chat m", "measure"} <= set(names)
        chat, attempt, root = names["chat m"], names["attempt 1"], names["prompt m"]
        parents = [one.parent.span_id if one.parent else None for one in (chat, attempt, names["queue"], root)]
        contexts = [one.get_span_context() for one in (attempt, root, root)]
        assert parents == [*(one.span_id for one in contexts if one is not None), None]
        trace = decode_trace(evidence(lease))
        span = trace.span("answer")
        assert span is not None
        assert ((chat.end_time or 0) - (chat.start_time or 0)) == span.end_ns - span.start_ns
        assert chat.start_time == otel._ns(trace.origin) + span.start_ns
        assert (chat.kind, root.kind) == (SpanKind.CLIENT, SpanKind.SERVER)
        assert [event.name for event in chat.events] == ["first_token"]
        seen = dict(chat.attributes or {})
        assert seen["gen_ai.operation.name"] == "chat"
        assert (seen["gen_ai.request.model"], seen["gen_ai.response.model"]) == ("m", receipt["model"]["name"])
        assert (seen["gen_ai.request.seed"], seen["gen_ai.response.finish_reasons"]) == (7, ("stop",))
        assert seen["gen_ai.usage.output_tokens"] == receipt["usage"]["output_tokens"]
        assert seen["joulebox.energy_j"] == receipt["energy"]["answer"]["j"]
        assert seen["joulebox.energy_grade"] == receipt["energy"]["answer"]["grade"]
        assert (root.attributes or {})["joulebox.receipt.id"] == receipt["id"]
        assert root.instrumentation_scope is not None
        assert root.instrumentation_scope.schema_url == otel.SCHEMA_URL
        assert root.resource.attributes["service.name"] == "joulebox"


async def test_no_text_is_told(tmp_path: Path) -> None:
    """Neither what was asked nor what was answered nor where it was to stop is anywhere in what is exported."""
    with collecting() as told:
        async with stage(tmp_path, listener=told) as scene:
            await scene.join()
            await answer(scene)
        everything = " ".join(one.to_json() for one in told.spans) + str(told.metrics())
        assert "joulebox.energy_j" in everything
        assert [word for word in ("secret", "hidden", "Hello", "Hel") if word in everything] == []


async def test_the_trace_of_the_request_goes_on(tmp_path: Path) -> None:
    """With a `traceparent` the prompt is part of that trace, without one or with a broken one it begins its own."""
    with collecting() as told:
        async with stage(tmp_path, listener=told) as scene:
            await scene.join()
            await answer(scene, traceparent=PARENT)
            await answer(scene, traceparent="00-zz")
            await answer(scene)
        roots = [one for one in told.spans if one.name == "prompt m"]
        contexts = [one.get_span_context() for one in roots]
        traces_ = [f"{one.trace_id:032x}" for one in contexts if one is not None]
        assert traces_[0] == PARENT.split("-")[1]
        assert len(set(traces_)) == 3
        assert roots[0].parent is not None
        assert f"{roots[0].parent.span_id:016x}" == PARENT.split("-")[2]
        assert [one.parent for one in roots[1:]] == [None, None]


async def test_what_is_not_sampled_there_is_not_told_here(tmp_path: Path) -> None:
    """A `traceparent` whose trace is not sampled has no spans of ours, and its answer still counts in the metrics."""
    with collecting() as told:
        async with stage(tmp_path, listener=told) as scene:
            await scene.join()
            await answer(scene, traceparent=PARENT[:-2] + "00")
        assert list(told.spans) == []
        assert "joulebox.energy" in told.metrics()


async def test_another_server_goes_on_with_the_trace(tmp_path: Path) -> None:
    """A prompt asked through one server and ended through another keeps the trace of its request."""
    with databases.postgres() as url, collecting() as told:
        async with (
            stage(tmp_path / "a", database_url=url) as one,
            stage(tmp_path / "b", database_url=url, listener=told) as other,
        ):
            await other.join()
            await one.http.post("/api/v1/prompts", json={"model": "m", "prompt": "hi"}, headers={"traceparent": PARENT})
            lease = await other.lease()
            assert (await other.finish(lease, done(lease, "Hel", "lo"))).status_code == 200
        context = told.span("chat m").get_span_context()
        assert context is not None
        assert f"{context.trace_id:032x}" == PARENT.split("-")[1]


async def test_attempts_that_fail_are_told_with_why(tmp_path: Path) -> None:
    """A failed attempt is a span in error beside the one that answered, and a prompt without an answer is in error."""
    with collecting() as told:
        async with stage(tmp_path, listener=told, attempts_max=2) as scene:
            await scene.join()
            problem = Problem(code="engine_died", detail="It died.")
            for outcomes in (("failed", "done"), ("failed", "failed")):
                await scene.ask()
                for outcome in outcomes:
                    lease = await scene.lease()
                    end = done(lease, "Hel", "lo")
                    failed = Finish(outcome="failed", problem=problem, retry=True)
                    await scene.finish(lease, end if outcome == "done" else failed)
        spans = told.spans
        attempts = [one for one in spans if one.name.startswith("attempt")]
        assert [one.status.status_code for one in attempts] == [
            StatusCode.ERROR,
            StatusCode.UNSET,
            StatusCode.ERROR,
            StatusCode.ERROR,
        ]
        assert (attempts[0].attributes or {})["error.type"] == "engine_died"
        assert [one.name for one in spans].count("queue") == 4
        roots = [one for one in spans if one.name == "prompt m"]
        assert [one.status.status_code for one in roots] == [StatusCode.UNSET, StatusCode.ERROR]
        assert [one.name for one in spans].count("chat m") == 1


async def test_a_prompt_cancelled_in_the_line_is_told(tmp_path: Path) -> None:
    """A prompt that nobody took is a root with the time that it waited."""
    with collecting() as told:
        async with stage(tmp_path, listener=told) as scene:
            await scene.join()
            asked = await scene.ask()
            await scene.http.delete(f"/api/v1/prompts/{asked['id']}")
        assert {one.name for one in told.spans} == {"prompt m", "queue"}
        assert (told.span("prompt m").attributes or {})["joulebox.prompt.state"] == "cancelled"


async def test_answers_are_metrics(tmp_path: Path) -> None:
    """Tokens, durations, joules and grams of an answer are in the convention's instruments and in ours."""
    with collecting() as told:
        async with stage(tmp_path, listener=told) as scene:
            await scene.join()
            _, receipt = await answer(scene)
        found = told.metrics()
        assert set(found) == set(otel.INSTRUMENTS)
        tokens = {point.attributes["gen_ai.token.type"]: point.sum for point in found["gen_ai.client.token.usage"]}
        assert tokens["output"] == receipt["usage"]["output_tokens"]
        (lasted,) = found["gen_ai.server.request.duration"]
        assert (lasted.sum, lasted.attributes["gen_ai.provider.name"]) == (receipt["times"]["duration_s"], "joulebox")
        assert tuple(lasted.explicit_bounds) == otel._REQUEST_S
        joules = {point.attributes["joulebox.figure"]: point.value for point in found["joulebox.energy"]}
        assert joules["answer"] == pytest.approx(receipt["energy"]["answer"]["j"])
        assert {point.attributes["joulebox.part"] for point in found["joulebox.co2e"]} == {"operational", "embodied"}


async def test_phases_are_inside_the_answer(tmp_path: Path) -> None:
    """Prefill and decode lie in the answer's span, loading beside it, each with the joules that the receipt tells."""
    async with stage(tmp_path) as scene:
        await scene.join()
        lease, receipt = await answer(scene)
        life = await scene.store.seeing.life(lease["job_id"])
    assert life is not None
    planned = otel.spans_of(_with_phases(life))
    attempt = planned.inner[1]
    chat = next(one for one in attempt.inner if one.name == "chat m")
    assert [one.name for one in chat.inner] == ["prefill", "decode"]
    assert {"load", "measure"} <= {one.name for one in attempt.inner}
    assert all(chat.start_ns <= one.start_ns <= one.end_ns <= chat.end_ns for one in chat.inner)
    known = receipt["energy"]["phases"]["decode"]["j"]
    assert chat.inner[1].attributes.get("joulebox.energy_j") == known


def _with_phases(life: Life) -> Life:
    """The same life with spans that a real engine's evidence has."""
    from joulebox.evidence import encode_trace

    (tried,) = life.tried
    assert tried.trace is not None
    trace = decode_trace(tried.trace)
    span = trace.span("answer")
    assert span is not None
    first_ns = trace.tokens[0].t_ns
    more = (
        Span(name="load", start_ns=0, end_ns=1_000),
        Span(name="prefill", start_ns=span.start_ns, end_ns=first_ns),
        Span(name="decode", start_ns=first_ns, end_ns=span.end_ns),
    )
    blob = encode_trace(replace(trace, spans=(*trace.spans, *more)))
    return replace(life, tried=(replace(tried, trace=blob),))


async def test_who_looks_on_does_not_disturb(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A listener that breaks is said in the log with the job, and the prompt is answered all the same."""

    class Broken:
        def tell(self, life: Life) -> None:
            raise ValueError("no")

        def close(self) -> None:
            """Nothing to do."""

    async with stage(tmp_path, listener=Broken()) as scene:
        await scene.join()
        lease, receipt = await answer(scene)
    assert receipt["prompt_id"] == lease["job_id"]
    (line,) = [one for one in caplog.records if one.name == Lives.__module__]
    assert line.about == {"job": lease["job_id"]}  # type: ignore[attr-defined]


def test_names_are_those_of_the_conventions() -> None:
    """Every `gen_ai.*` attribute and metric of the mapping is one that the conventions' own package knows."""
    attributes = {one for one in vars(gen_ai_attributes).values() if isinstance(one, str)}
    metrics = {one for one in vars(gen_ai_metrics).values() if isinstance(one, str)}
    used = {name for names in (otel.PROMPT, otel.ATTEMPT, otel.INFERENCE, otel.PHASE) for name in names}
    assert {name for name in used if name.startswith("gen_ai.")} <= attributes
    assert {name for name in otel.INSTRUMENTS if name.startswith("gen_ai.")} <= metrics
    assert {name.partition(".")[0] for name in used} == {"gen_ai", "joulebox", "error"}


@pytest.mark.parametrize(
    ("environment", "traces_", "metrics"),
    [
        ({}, [], []),
        ({"OTEL_SERVICE_NAME": "x"}, [], []),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, ["otlp"], ["otlp"]),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4318/v1/traces"}, ["otlp"], []),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_METRICS_EXPORTER": "none"}, ["otlp"], []),
        ({"OTEL_TRACES_EXPORTER": "console, otlp"}, ["console", "otlp"], []),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_SDK_DISABLED": "true"}, [], []),
    ],
)
def test_the_environment_says_where_to(environment: dict[str, str], traces_: list[str], metrics: list[str]) -> None:
    """Exporters are those that the standard variables name, and none where they name none."""
    assert (wanted(environment, "traces"), wanted(environment, "metrics")) == (traces_, metrics)


@pytest.mark.parametrize(
    "environment",
    [
        {"OTEL_TRACES_EXPORTER": "jaeger"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
    ],
)
def test_an_exporter_that_cannot_be_is_refused(environment: dict[str, str]) -> None:
    """An exporter or protocol that is not there is named in one sentence with what there is."""
    with pytest.raises(JouleboxError, match=r"cannot be used: (it takes|send)"):
        from_environment(environment)


def test_without_the_extra_a_sentence_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the SDK is not installed, a wish for it is refused with what to install."""
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace.export", None)
    with pytest.raises(JouleboxError, match=r"joulebox\[otel\]"):
        from_environment({"OTEL_TRACES_EXPORTER": "console"})


def test_nothing_is_loaded_where_nothing_is_wanted() -> None:
    """A server whose environment names no exporter imports no SDK."""
    code = (
        "import json, sys; from joulebox.server.app import build_app, _listener;"
        "from joulebox.settings import Settings;"
        "assert _listener() is None; build_app(Settings());"
        "heavy = ('opentelemetry.sdk', 'opentelemetry.exporter', 'prometheus');"
        "print(json.dumps([name for name in sys.modules if name.startswith(heavy)]))"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60, env={"PATH": ""} | _path()
    )
    assert json.loads(shown.stdout) == []


def _path() -> dict[str, str]:
    return {"PYTHONPATH": ":".join(one for one in sys.path if one)}


@pytest.mark.parametrize(
    ("header", "kept"),
    [
        (PARENT, True),
        (None, False),
        ("", False),
        (PARENT.upper(), False),
        (PARENT.replace("b7ad6b7169203331", "0" * 16), False),
    ],
)
def test_only_a_traceparent_is_kept(header: str | None, kept: bool) -> None:
    """What is not in the form of W3C Trace Context, or names no span, is as none."""
    tracing.note(header)
    assert tracing.incoming() == (header if kept else None)
