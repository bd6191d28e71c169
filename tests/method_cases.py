"""Evidence of a machine nobody owns, one case for each way the method goes: what `test_method.py` makes receipts of.

Powers follow from a seed by sums and products alone, so that every machine makes the same readings.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from joulebox.model import (
    Budget,
    CalibrationRef,
    CarbonFactors,
    Channel,
    DatedIntensity,
    EarlierAttempt,
    IdleRecord,
    IdleSpread,
    MetersFit,
    NeighboursSeen,
    NodeControl,
    PhasePowers,
    ProgramLoad,
    Quality,
    ReadingKind,
    Remark,
    Sampling,
    Series,
    Span,
    TokenTime,
    Trace,
    Usage,
    WaterFactors,
)
from traces import S, channel, factors, trace

CELL_S = 0.01
START_S, END_S = 30.0, 36.0


@dataclass(frozen=True)
class Case:
    """A run with all that its receipt is made of."""

    trace: Trace
    factors: CarbonFactors
    earlier: tuple[EarlierAttempt, ...] = ()


class Machine:
    """Draws `idle_w` and noise, `read_w` more in prefill, `write_w` more in decode; a tail dies away after."""

    def __init__(
        self, seed: int, idle_w: float = 20.0, read_w: float = 40.0, write_w: float = 25.0, **more: float
    ) -> None:
        chance, slow_w, tail_w = random.Random(seed), 0.0, 0.0
        start_s, end_s = more.get("start_s", START_S), more.get("end_s", END_S)
        first_s, noise_w = start_s + (end_s - start_s) / 4, more.get("noise_w", 0.5)
        self.powers_w: list[float] = []
        self.totals_j = [0.0]
        for cell in range(round((end_s + 10.0) / CELL_S)):
            t_s = cell * CELL_S
            slow_w = 0.99 * slow_w + noise_w * (chance.random() - 0.5)
            work_w = read_w if start_s <= t_s < first_s else write_w if first_s <= t_s < end_s else 0.0
            tail_w = 0.3 * work_w if work_w else tail_w * (1 - CELL_S / more.get("tail_s", 0.5))
            after_w = more.get("after_w", 0.0) if t_s >= end_s else 0.0
            self.powers_w.append(idle_w + slow_w + (work_w or tail_w) + after_w)
            self.totals_j.append(self.totals_j[-1] + self.powers_w[-1] * CELL_S)

    def j(self, t_s: float) -> float:
        cell = min(max(int(t_s / CELL_S), 0), len(self.powers_w) - 1)
        return self.totals_j[cell] + (t_s - cell * CELL_S) * self.powers_w[cell] if t_s > 0 else 0.0

    def seen(self, one: Channel, until_s: float, every_s: float = 0.1, late_s: float | None = None) -> Series:
        """What a meter shows at each reading, its true lag `late_s` where that is not the declared one."""
        chance, lag_s = random.Random(len(one.name)), one.lag_s if late_s is None else late_s
        times = [n * every_s + 0.004 * chance.random() for n in range(round(until_s / every_s) + 1)]
        raw = [self._shown(one, int((t_s - lag_s + 0.003) / one.tick_s) * one.tick_s) for t_s in times]
        return Series(channel=one, t_ns=tuple(round(t_s * S) for t_s in times), raw=tuple(raw))

    def _shown(self, one: Channel, t_s: float) -> int:
        share = 1.0 if one.scope in {"wall", "platform", "machine"} else 0.6 if one.scope == "cpu" else 0.1
        if one.sampling is Sampling.COUNTER:
            raw = int(share * self.j(t_s) / one.step)
            return raw % one.wrap_raw if one.wrap_raw else raw
        if one.sampling is Sampling.MEAN:
            return round(share * (self.j(t_s) - self.j(t_s - one.tick_s)) / one.tick_s / one.step)
        return round(share * self.powers_w[max(int(t_s / CELL_S), 0)] / one.step)


def plug(sampling: Sampling = Sampling.MEAN, tick_s: float = 1.0, **changes: Any) -> Channel:
    """A power meter at the wall."""
    fields: dict[str, Any] = {
        "meter": "shelly:plug",
        "kind": ReadingKind.POWER_W,
        "sampling": sampling,
        "step": 0.1,
        "tick_s": tick_s,
        "gain_u_ratio": 0.02,
        "offset_u": 0.2,
    }
    return channel(**({"name": "power", "scope": "wall"} | fields | changes))


PACKAGE = channel(gain_u_ratio=0.05, wrap_raw=262_143_328)
MEMORY = channel("package-0/dram", "dram", gain_u_ratio=0.08)
FIT = MetersFit(
    whole=("shelly:plug power",),
    parts=("powercap:test package-0", "powercap:test package-0/dram"),
    rest_w=2.0,
    slope=1.35,
    u_slope=0.02,
    centre_w=25.0,
    u_centre_w=0.3,
    low_w=13.0,
    high_w=45.0,
)


def without(one: Series, *holes_s: tuple[float, float]) -> Series:
    """The series with its readings between some moments missing."""
    kept = [n for n, t in enumerate(one.t_ns) if not any(a <= t / S <= b for a, b in holes_s)]
    return replace(one, t_ns=tuple(one.t_ns[n] for n in kept), raw=tuple(one.raw[n] for n in kept))


def held(one: Series, from_s: float, until_s: float) -> Series:
    """The series with one value shown between two moments."""
    raw, stood = list(one.raw), None
    for n, t_ns in enumerate(one.t_ns):
        if from_s <= t_ns / S <= until_s:
            stood = raw[n] if stood is None else stood
            raw[n] = stood
    return replace(one, raw=tuple(raw))


def run(*series: Series, start_s: float = START_S, end_s: float = END_S, after_s: float = 3.0, **changes: Any) -> Trace:
    """A run whose machine is free again `after_s` after the answer."""
    more = {"released_ns": round((end_s + after_s) * S), "leased_ns": round((start_s - 1.5) * S)}
    return trace(*series, start_s=start_s, end_s=end_s, **(more | changes))


def _counters() -> dict[str, Case]:
    one, until_s = Machine(1), END_S + 4
    both = (one.seen(PACKAGE, until_s), one.seen(MEMORY, until_s))
    walled = tuple(replace(each, channel=replace(each.channel, at_wall=True, gain_u_ratio=0.01)) for each in both)
    gpu = channel("energy", "gpu0", meter="nvml:0", step=1e-3, tick_s=0.02, lag_s=0.03, gain_u_ratio=0.05)
    coarse = channel("energy", "gpu0", meter="nvml:0", step=1e-3, tick_s=0.1, lag_s=0.02, gain_u_ratio=0.05)
    many: dict[str, Any] = {"spans": (*run(*both).spans, Span(name="load", start_ns=3 * S, end_ns=6 * S))}
    failed = run(*both, spans=(), tokens=(), leased_ns=8 * S, released_ns=12 * S)
    reset = replace(both[0], raw=tuple(raw if n < 330 else raw // 7 for n, raw in enumerate(both[0].raw)))
    return {
        "counters of processor and memory": Case(run(*both, missing=("gpu0", "wall")), factors()),
        "counters calibrated at the wall": Case(run(*walled), factors()),
        "a load, and attempts before": Case(
            run(*both, **many),
            factors(),
            (EarlierAttempt(number=1, trace=failed), EarlierAttempt(number=2, trace=None)),
        ),
        "a card's counter that ticks": Case(run(*both, one.seen(gpu, until_s, 0.01)), factors()),
        "a card's slow counter": Case(run(*both, one.seen(coarse, until_s, 0.02)), factors()),
        "a counter that lost ticks": Case(run(held(one.seen(coarse, until_s, 0.02), 33.0, 33.42)), factors()),
        "a counter that began anew": Case(run(reset, both[1]), factors()),
        "readings that lack": Case(run(without(both[0], (29.0, 30.4), (33.0, 34.3)), both[1]), factors()),
        "a counter seldom read": Case(run(one.seen(replace(PACKAGE, wrap_raw=65_000_000), until_s, 0.5)), factors()),
        "other work just before": Case(
            run(*both, spans=(Span(name="idle", start_ns=round(29.4 * S), end_ns=30 * S), *run(*both).spans[1:])),
            factors(),
        ),
        "no token in the answer": Case(run(*both, tokens=()), factors()),
    }


def _slow() -> dict[str, Case]:
    one, until_s = Machine(2, tail_s=0.8), END_S + 4
    looks, fast = plug(Sampling.SNAPSHOT), plug(tick_s=0.1, step=0.01)
    counters = (one.seen(PACKAGE, until_s), one.seen(MEMORY, until_s))
    spreads = tuple(IdleSpread(guard_s=2.0, length_s=2.0**n, rms_j=2.0 * 1.6**n, windows=40 - 8 * n) for n in range(5))
    kept = CalibrationRef(
        id="c2",
        at="2026-11-20T08:00:00+00:00",
        fits=(FIT,),
        splits=(PhasePowers(model="sha256:0", scope="wall", ratio=1.6, u_ratio=0.2, answers=9),),
        idle=(IdleRecord(meter="shelly:plug", name="power", spreads=spreads),),
    )
    delayed, brief = plug(lag_s=0.4), Machine(11, end_s=32.4)
    ended = Machine(3, after_w=-6.0, end_s=33.0)
    return {
        "a plug": Case(run(one.seen(plug(), until_s)), factors()),
        "a plug and counters, calibrated": Case(run(one.seen(plug(), until_s), *counters, calibration=kept), factors()),
        "a lone plug whose model is known": Case(run(one.seen(delayed, until_s), calibration=kept), factors()),
        "what counters tell of a brief answer": Case(
            run(
                *(brief.seen(each, 37.0) for each in (plug(), PACKAGE, MEMORY)),
                end_s=32.4,
                calibration=kept,
            ),
            factors(),
        ),
        "what counters do not tell of one": Case(
            run(brief.seen(delayed, 37.0), brief.seen(plug(name="other"), 37.0), end_s=32.4, calibration=kept),
            factors(),
        ),
        "a plug that looks": Case(run(one.seen(looks, until_s)), factors()),
        "a plug that looks, calibrated": Case(run(one.seen(looks, until_s), calibration=kept), factors()),
        "a plug read once a tick": Case(run(one.seen(plug(), until_s, 1.0)), factors()),
        "a wall meter of ten a second": Case(run(one.seen(fast, until_s, 0.03)), factors()),
        "a wall meter that lost ticks": Case(run(held(one.seen(fast, until_s, 0.03), 31.0, 31.28)), factors()),
        "too short for a plug that looks": Case(
            run(Machine(4, end_s=31.2).seen(looks, 36.0), end_s=31.2, after_s=3.0), factors()
        ),
        "a plug that stands": Case(run(held(one.seen(plug(), until_s), 29.0, 35.0), *counters), factors()),
        "a plug that is late": Case(run(one.seen(plug(), until_s, late_s=1.3)), factors()),
        "a plug that was not read": Case(run(without(one.seen(plug(), until_s), (31.0, 34.5))), factors()),
        "idling less afterwards": Case(
            run(ended.seen(fast, 41.0, 0.03), end_s=33.0, after_s=6.0, calibration=None), factors()
        ),
        "a few readings before it": Case(
            run(without(one.seen(fast, until_s, 0.03), (0.0, 29.2)), calibration=None), factors()
        ),
    }


def _many() -> dict[str, Case]:
    one, other, until_s = Machine(5), Machine(6, idle_w=55.0, read_w=0.0, write_w=0.0, noise_w=0.05), END_S + 4
    counters = (one.seen(PACKAGE, until_s), one.seen(MEMORY, until_s))
    bmc = plug(meter="redfish:bmc", scope="platform", name="system", tick_s=1.0, lag_s=0.5)
    supplies = [plug(name=name, tick_s=0.5) for name in ("left", "right ")]
    wrong = plug(gain_u_ratio=0.005, offset_u=0.0)
    kept = CalibrationRef(id="c3", at="2026-11-20T08:00:00+00:00", fits=(replace(FIT, rest_w=9.0),), stale="new kernel")
    twice = plug(meter="tasmota:plug", tick_s=0.5, gain_u_ratio=0.001, step=0.01)
    doubled, less = one.seen(twice, until_s, 0.05), one.seen(wrong, until_s)
    less = replace(less, raw=tuple(raw // 2 for raw in less.raw))
    return {
        "two supplies and a management controller": Case(
            run(*(one.seen(each, until_s, 0.05) for each in supplies), one.seen(bmc, until_s)), factors()
        ),
        "another machine's plug": Case(run(other.seen(plug(), until_s), *counters), factors()),
        "two plugs that disagree": Case(
            run(one.seen(plug(), until_s), replace(doubled, raw=tuple(2 * raw for raw in doubled.raw))), factors()
        ),
        "one plug of two at another machine": Case(
            run(one.seen(plug(), until_s), other.seen(replace(twice, gain_u_ratio=0.2), until_s, 0.05)), factors()
        ),
        "a quick plug at another machine": Case(
            run(one.seen(plug(), until_s), other.seen(twice, until_s, 0.05)), factors()
        ),
        "off the line at rest": Case(
            run(
                one.seen(wrong, until_s),
                *counters,
                calibration=replace(kept, fits=(replace(FIT, rest_w=14.5, slope=1.0, centre_w=34.0),), stale=None),
            ),
            factors(),
        ),
        "off the line": Case(run(one.seen(wrong, until_s), *counters, calibration=kept), factors()),
        "parts that take more than the whole": Case(run(less, *counters, calibration=None), factors()),
    }


def _busy_building() -> NeighboursSeen:
    return NeighboursSeen(
        window_s=8.0,
        own_s=12.0,
        server_s=0.5,
        foreign=(ProgramLoad(name="backup", cpu_s=0.9), ProgramLoad(name="cron", cpu_s=0.01)),
        foreign_s=0.95,
        unexplained_s=0.3,
        steal_s=0.06,
        disk_bytes=90_000_000,
        network_bytes=9_000_000,
        throttled=2,
    )


def _rest() -> dict[str, Case]:
    one, until_s = Machine(7), END_S + 4
    busy = channel("busy", "machine", meter="model:", kind=ReadingKind.BUSY_RATIO, step=0.01, tick_s=0.01)
    work = Machine(8, idle_w=0.02, read_w=1.9, write_w=1.5, noise_w=0.004)
    heat = channel("cpu", "cpu", kind=ReadingKind.TEMPERATURE_C, sampling=Sampling.SNAPSHOT, step=0.5, tick_s=1.0)
    warm = Series(channel=heat, t_ns=tuple(n * S for n in range(40)), raw=tuple(80 + n for n in range(40)))
    alone = Series(channel=replace(heat, name="gone"), t_ns=(S,), raw=(90,))
    both = (one.seen(PACKAGE, until_s), one.seen(MEMORY, until_s))
    grid = factors()
    known: tuple[tuple[int, float, Quality], ...] = (
        (5, 300.0, "measured"),
        (31, 200.0, "forecast"),
        (34, 500.0, "estimated"),
    )
    later = tuple(
        DatedIntensity(
            start=f"2026-11-23T07:00:{at:02}+00:00",
            until="2026-11-23T08:00:00+00:00",
            intensity=replace(grid.intensity, g_per_kwh=g, low=g / 2, high=2 * g, quality=quality, source=f"feed {at}"),
        )
        for at, g, quality in known
    )
    rich = factors(
        later=later,
        pue=1.3,
        resource_share=0.5,
        water=WaterFactors(on_site_l_per_kwh=1.1, electricity_l_per_kwh=3.0, source="test"),
    )
    marks = tuple(Remark(code="meter_gap", detail=f"hole {n}", t_ns=31 * S) for n in range(5))
    control = NodeControl(state="drifted", since="2026-11-01T00:00:00+00:00", runs=12, off_ratio=0.061)
    quiet = Machine(9, read_w=0.1, write_w=0.05, noise_w=3.0)
    return {
        "no meter but the model": Case(
            run(
                work.seen(busy, until_s), warm, alone, usage=Usage(input_tokens=9, cached_tokens=None, output_tokens=1)
            ),
            grid,
        ),
        "no meter": Case(run(), grid),
        "a grid that changes, water, a busy building": Case(
            run(*both, warm, neighbours=_busy_building(), remarks=marks, control=control, queued_s=2.5), rich
        ),
        "more than its budget": Case(
            run(
                *both,
                budget=Budget(max_energy_j=50.0),
                usage=Usage(input_tokens=40, cached_tokens=30, output_tokens=None),
                purpose="control",
            ),
            replace(
                rich, later=later[:1], water=WaterFactors(on_site_l_per_kwh=None, electricity_l_per_kwh=2.0, source="t")
            ),
        ),
        "work without a model": Case(
            run(*both, model=None, engine=None, seed=None, tokens=(), neighbours=_busy_building(), purpose="work"), grid
        ),
        "next to nothing": Case(run(quiet.seen(PACKAGE, until_s), quiet.seen(MEMORY, until_s)), grid),
        "one token at the end": Case(run(*both, tokens=(TokenTime(t_ns=round(END_S * S), n=9),)), grid),
    }


def cases() -> Mapping[str, Case]:
    """All of them by name."""
    return _counters() | _slow() | _many() | _rest()
