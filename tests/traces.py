"""Traces made by hand for tests: an idle machine that works between `t_s` and `t_e`, seen by counters."""

from collections.abc import Callable
from datetime import UTC, datetime

from joulebox.model import (
    CalibrationRef,
    CarbonFactors,
    Channel,
    Embodied,
    EngineInfo,
    Intensity,
    ModelFile,
    Placement,
    ReadingKind,
    Sampling,
    Series,
    Span,
    TokenTime,
    Trace,
    Usage,
)

MS = 1_000_000
S = 1_000_000_000
CALIBRATION = CalibrationRef(id="c1", at="2026-11-22T08:00:00+00:00")
PLACEMENT = Placement(policy="fastest", reason="the only node", saved_g=None)


def channel(name: str = "package-0", scope: str = "cpu", **changes: object) -> Channel:
    """A counter of microjoules."""
    fields: dict[str, object] = {
        "name": name,
        "meter": "powercap:test",
        "kind": ReadingKind.ENERGY_J,
        "sampling": Sampling.COUNTER,
        "scope": scope,
        "step": 1e-6,
        "tick_s": 0.001,
    }
    return Channel(**(fields | changes))  # type: ignore[arg-type]


def series(one: Channel, total: Callable[[float], float], end_s: float, period_s: float = 0.1) -> Series:
    """Readings of a running total (in the channel's unit, of seconds) each `period_s`, from 0 to `end_s`."""
    count = round(end_s / period_s) + 1
    t_ns = tuple(round(i * period_s * S) for i in range(count))
    raw = tuple(int(total(t / S) / one.step) for t in t_ns)
    if one.wrap_raw is not None:
        raw = tuple(value % one.wrap_raw for value in raw)
    return Series(channel=one, t_ns=t_ns, raw=raw)


def work(idle_w: float, busy_w: float, start_s: float, end_s: float) -> Callable[[float], float]:
    """Joules drawn until t of a machine at `idle_w` that draws `busy_w` from `start_s` to `end_s`."""

    def total(t_s: float) -> float:
        return idle_w * t_s + (busy_w - idle_w) * min(max(t_s - start_s, 0.0), end_s - start_s)

    return total


def trace(*all_series: Series, start_s: float = 30.0, end_s: float = 32.0, **changes: object) -> Trace:
    """A run with its answer from `start_s` to `end_s`, its first token a quarter of the way, idle before."""
    first_s = start_s + (end_s - start_s) / 4
    fields: dict[str, object] = {
        "job_id": "job",
        "attempt": 1,
        "node": "n1",
        "zone": "DE",
        "origin": datetime(2026, 11, 23, 7, 0, tzinfo=UTC),
        "leased_ns": round((start_s - 0.1) * S),
        "released_ns": round((end_s + 1.1) * S),
        "spans": (
            Span(name="idle", start_ns=0, end_ns=round(start_s * S)),
            Span(name="answer", start_ns=round(start_s * S), end_ns=round(end_s * S)),
            Span(name="post", start_ns=round(end_s * S), end_ns=round((end_s + 1.1) * S)),
        ),
        "tokens": (TokenTime(t_ns=round(first_s * S), n=1), TokenTime(t_ns=round(end_s * S), n=1)),
        "series": all_series,
        "usage": Usage(input_tokens=27, cached_tokens=0, output_tokens=9),
        "finish_reason": "stop",
        "model": ModelFile(
            id="m", digest="sha256:0", quantization="Q4_1", size_bytes=1, memory_bytes=2, context_tokens=4096
        ),
        "engine": EngineInfo(name="scripted", version="1"),
        "seed": 0,
        "cores": 2,
        "memory_bytes": 8_000_000_000,
        "calibration": CALIBRATION,
    }
    return Trace(**(fields | changes))  # type: ignore[arg-type]


def factors(g_per_kwh: float = 385.0, **changes: object) -> CarbonFactors:
    """A grid and a machine."""
    fields: dict[str, object] = {
        "intensity": Intensity(
            g_per_kwh=g_per_kwh,
            low=g_per_kwh / 2,
            high=g_per_kwh * 1.5,
            zone="DE",
            at="2025",
            source="test",
            kind="average",
            factor="lifecycle",
            quality="yearly",
        ),
        "embodied": Embodied(low_kg=196.0, central_kg=301.0, high_kg=490.0, life_years=4.0, source="test"),
    }
    return CarbonFactors(**(fields | changes))  # type: ignore[arg-type]
