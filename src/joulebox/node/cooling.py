"""The thermal gate: an answer begins in the same band of temperature every time, so that answers can be compared.

A warm machine leaks more, spins its fans faster and slows down sooner. Where the hottest sensor of CPU and GPU lies
above the band, the node waits, a bounded time, and tells how long it will take: an exponential is fitted to the
readings since the machine has been idle. A machine that is too cold is only marked: there is no warm-up.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import exp, log
from typing import Final, NamedTuple

from joulebox.clock import Clock
from joulebox.model import Channel, ReadingKind, Remark, Series
from joulebox.node.recorder import Recorder
from joulebox.units import nanoseconds, seconds

LOOK_S: Final = 0.5
RECORD_S: Final = 60.0
"""The fit looks back so far at most."""
STALE_S: Final = 5.0
"""A sensor that has been silent for so long tells nothing."""
TELL_S: Final = 1.0
TELL_RATIO: Final = 0.2
"""A prediction is told again when it is off by more than this share."""
FIT_SPAN_S: Final = 2.0
FIT_POINTS: Final = 40
"""Readings are averaged into so many points: coarse sensors gain digits, and the fit costs a millisecond."""
TAU_MIN_S, TAU_MAX_S = 4.0, 400.0
"""Time constants of what is cooled by air: a small heat sink to a large case."""
_TAU_STEPS: Final = 24

Tell = Callable[[str, float, float, float | None], None]
"""Told: sensor, its temperature, the target, and in how many seconds it will be there (`None`: cannot be said)."""
Readings = Sequence[tuple[float, float]]
"""Seconds and degrees Celsius, oldest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StartBand:
    """In which temperatures an answer may begin, and how long cooling may take. `None`: no limit."""

    min_c: float | None = None
    max_c: float | None = None
    wait_max_s: float = 300.0


class _Sensor(NamedTuple):
    name: str
    now_c: float
    readings: Readings


def cool(
    recorder: Recorder,
    clock: Clock,
    band: StartBand,
    quiet_since_ns: int,
    tell: Tell,
    cancelled: Callable[[], bool],
) -> Remark | None:
    """Wait until the hottest sensor is in the band, at most `wait_max_s`; what the receipt has to say if it is not.

    Nothing is told while less than a guard is left: it has to be quiet.
    """
    start_ns = clock.now_ns()
    limit_ns = start_ns + nanoseconds(band.wait_max_s)
    telling = _Telling(clock, tell, recorder.guard_s)
    hottest = _hottest(recorder, start_ns, quiet_since_ns)
    while band.max_c is not None and hottest is not None and hottest.now_c > band.max_c:
        now_ns = clock.now_ns()
        if now_ns >= limit_ns or cancelled():
            waited_s = seconds(now_ns - start_ns)
            detail = (
                f"{hottest.name} at {hottest.now_c:.1f} °C, above {band.max_c:g} °C after {waited_s:.0f} s of waiting"
            )
            return Remark(code="too_hot", detail=detail, t_ns=now_ns)
        telling(hottest, band.max_c)
        clock.sleep_until(min(now_ns + nanoseconds(LOOK_S), limit_ns))
        hottest = _hottest(recorder, clock.now_ns(), quiet_since_ns)
    if band.min_c is not None and hottest is not None and hottest.now_c < band.min_c:
        detail = f"{hottest.name} at {hottest.now_c:.1f} °C, below {band.min_c:g} °C"
        return Remark(code="too_cold", detail=detail, t_ns=clock.now_ns())
    return None


def sensors(channels: Sequence[Channel]) -> list[Channel]:
    """The channels the gate goes by: temperatures of CPU and GPU, not those of a plug or a room."""
    return [one for one in channels if one.kind is ReadingKind.TEMPERATURE_C and one.scope.startswith(("cpu", "gpu"))]


class _Telling:
    """Tells a prediction the first time and whenever it has changed, at most once a second."""

    def __init__(self, clock: Clock, tell: Tell, quiet_s: float) -> None:
        self._clock, self._tell, self._quiet_s = clock, tell, quiet_s
        self._told_ns: int | None = None
        self._told_s: float | None = None

    def __call__(self, hottest: _Sensor, target_c: float) -> None:
        now_ns = self._clock.now_ns()
        expected_s = predict_cooling_s(hottest.readings, target_c)
        if self._told_ns is not None:
            since_s = seconds(now_ns - self._told_ns)
            if since_s < TELL_S or not self._changed(expected_s, since_s):
                return
        self._told_ns, self._told_s = now_ns, expected_s
        told_s = None if expected_s is None else round(expected_s, 1)
        self._tell(hottest.name, round(hottest.now_c, 1), target_c, told_s)

    def _changed(self, expected_s: float | None, since_s: float) -> bool:
        if expected_s is None or self._told_s is None:
            return expected_s is not self._told_s
        return expected_s > self._quiet_s and abs(expected_s - (self._told_s - since_s)) > TELL_RATIO * expected_s


def _hottest(recorder: Recorder, now_ns: int, quiet_since_ns: int) -> _Sensor | None:
    """The hottest sensor of CPU and GPU with what it said since the machine has been idle."""
    origin_ns = now_ns - nanoseconds(RECORD_S)
    found = (
        _sensor(series, now_ns - origin_ns, quiet_since_ns - origin_ns)
        for series in recorder.series(origin_ns, now_ns)
        if sensors([series.channel])
    )
    return max((sensor for sensor in found if sensor is not None), key=lambda one: one.now_c, default=None)


def _sensor(series: Series, now_ns: int, quiet_since_ns: int) -> _Sensor | None:
    if not series.t_ns or now_ns - series.t_ns[-1] > nanoseconds(STALE_S):
        return None
    step = series.channel.step
    pairs = zip(series.t_ns, series.raw, strict=True)
    readings = [(seconds(t_ns), raw * step) for t_ns, raw in pairs if t_ns >= quiet_since_ns]
    return _Sensor(series.channel.name, series.raw[-1] * step, readings)


def predict_cooling_s(readings: Readings, target_c: float) -> float | None:
    """In how many seconds after the last reading a cooling machine will be at `target_c`.

    Fits `c(t) = final + above * exp(-t / tau)` by least squares to the later two thirds: in the beginning clocks and
    fans come down, too, and the hot spots on the chip even out. `None` where that cannot be said: too few readings, or
    the machine is not cooling, or comes to rest above the target.
    """
    if len(readings) < 3 or readings[-1][0] - readings[0][0] < FIT_SPAN_S:
        return None
    points = _points(readings[len(readings) // 3 :])
    ratio = (TAU_MAX_S / TAU_MIN_S) ** (1 / _TAU_STEPS)
    tau_s = _best_tau_s(points, [TAU_MIN_S * ratio**step for step in range(_TAU_STEPS + 1)])
    fine = [tau_s * ratio ** (step / 4) for step in range(-4, 5)]
    fit = _fit(points, _best_tau_s(points, fine))
    end_c = fit.final_c + fit.above_c * exp(-(readings[-1][0] - points[0][0]) / fit.tau_s)
    if end_c <= target_c:
        return 0.0
    if fit.above_c <= 0 or fit.final_c >= target_c:
        return None
    return fit.tau_s * log((end_c - fit.final_c) / (target_c - fit.final_c))


class _Fit(NamedTuple):
    final_c: float
    above_c: float
    tau_s: float
    squares: float


def _best_tau_s(points: Readings, taus_s: Sequence[float]) -> float:
    return min((_fit(points, tau_s) for tau_s in taus_s), key=lambda fit: fit.squares).tau_s


def _fit(points: Readings, tau_s: float) -> _Fit:
    """The straight line of degrees over `exp(-t / tau)`."""
    start_s = points[0][0]
    faded = [exp(-(t_s - start_s) / tau_s) for t_s, _ in points]
    mean_x, mean_c = sum(faded) / len(points), sum(c for _, c in points) / len(points)
    spread = sum((x - mean_x) ** 2 for x in faded)
    above_c = sum((x - mean_x) * (c - mean_c) for x, (_, c) in zip(faded, points, strict=True)) / spread
    final_c = mean_c - above_c * mean_x
    squares = sum((c - final_c - above_c * x) ** 2 for x, (_, c) in zip(faded, points, strict=True))
    return _Fit(final_c, above_c, tau_s, squares)


def _points(readings: Readings) -> Readings:
    """The readings, averaged into at most `FIT_POINTS`."""
    size = -(-len(readings) // FIT_POINTS)
    groups = [readings[at : at + size] for at in range(0, len(readings), size)]
    return [(sum(t_s for t_s, _ in one) / len(one), sum(c for _, c in one) / len(one)) for one in groups]
