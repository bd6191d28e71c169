"""The thermal gate: an answer begins in the same band of temperature every time, so that answers can be compared.

A warm machine leaks more, spins its fans faster and slows down sooner. Where the hottest sensor of CPU and GPU lies
above the band, the node waits, a bounded time, and tells how long it will take: an exponential is fitted to the
readings since the machine has been idle. A processor below the band is warmed up, once and a bounded time, where nobody
watches; a machine that is too cold after all is marked.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import exp, log
from typing import Final, NamedTuple

from joulebox.clock import Clock
from joulebox.model import Channel, ReadingKind, Remark, Series
from joulebox.node.calibration import Load
from joulebox.node.recorder import Recorder
from joulebox.protocol import TemperatureBand
from joulebox.settings import Settings
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
PULSE_S: Final = 3.0
REST_S: Final = 1.0
"""A chip is hot while it works and cold a second later: how warm the machine is shows in the rests between pulses."""
ABOVE_C: Final = 1.0
"""A warm-up ends so much above the band's lower end: a guard follows, in which the machine cools."""
TAU_MIN_S, TAU_MAX_S = 4.0, 400.0
"""Time constants of what is cooled by air: a small heat sink to a large case."""
_TAU_STEPS: Final = 24

Tell = Callable[[str, float, float, float | None], None]
"""Told: sensor, its temperature, the target, and in how many seconds it will be there (`None`: cannot be said)."""
Limits = Mapping[str, float]
"""Degrees Celsius by scope: `cpu`, `gpu`, `gpu1`. Of several names that a sensor's scope begins with, the longest."""
Readings = Sequence[tuple[float, float]]
"""Seconds and degrees Celsius, oldest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StartBand:
    """In which temperatures an answer may begin, and how long cooling and warming up may take. What is not named has no
    limit."""

    min_c: Limits = field(default_factory=dict)
    max_c: Limits = field(default_factory=dict)
    wait_max_s: float = 300.0
    warm_max_s: float = 60.0

    @property
    def bands(self) -> tuple[TemperatureBand, ...]:
        """The limits as the server is told of them."""
        scopes = dict.fromkeys((*self.min_c, *self.max_c))
        return tuple(TemperatureBand(scope=one, min_c=self.min_c.get(one), max_c=self.max_c.get(one)) for one in scopes)


def start_band(settings: Settings) -> StartBand:
    """The band that the settings name."""
    return StartBand(
        min_c=settings.start_min_c,
        max_c=settings.start_max_c,
        wait_max_s=settings.settle_max_s,
        warm_max_s=settings.warm_up_max_s,
    )


class _Sensor(NamedTuple):
    name: str
    scope: str
    now_c: float
    readings: Readings


def warm_up(
    recorder: Recorder, clock: Clock, band: StartBand, load: Load, tell: Tell, cancelled: Callable[[], bool]
) -> bool:
    """Work until the processor is as warm as the band wants it, at most `warm_max_s`; whether there was any work.

    Only the processor can be warmed up so; a cold GPU stays cold.
    """
    limit_ns = clock.now_ns() + nanoseconds(band.warm_max_s)
    worked = False
    while cold := [(one, min_c) for one, min_c in _cold(recorder, clock, band, ABOVE_C * worked) if _is_cpu(one)]:
        now_ns = clock.now_ns()
        if now_ns >= limit_ns or cancelled():
            break
        tell(cold[0][0].name, round(cold[0][0].now_c, 1), cold[0][1], None)
        worked = True
        with load(1.0):
            clock.sleep_until(min(now_ns + nanoseconds(PULSE_S), limit_ns))
        clock.sleep_until(clock.now_ns() + nanoseconds(REST_S))
    return worked


def cool(
    recorder: Recorder,
    clock: Clock,
    band: StartBand,
    quiet_since_ns: int,
    tell: Tell,
    cancelled: Callable[[], bool],
) -> list[Remark]:
    """Wait until every sensor is in its band, at most `wait_max_s`; what the receipt has to say if one is not.

    Nothing is told while less than a guard is left: it has to be quiet.
    """
    start_ns = clock.now_ns()
    limit_ns = start_ns + nanoseconds(band.wait_max_s)
    telling = _Telling(clock, tell, recorder.guard_s)
    remarks = []
    while hot := _hot(recorder, clock.now_ns(), quiet_since_ns, band):
        (sensor, max_c), now_ns = hot, clock.now_ns()
        if now_ns >= limit_ns or cancelled():
            waited = f"after {seconds(now_ns - start_ns):.0f} s of waiting"
            detail = f"{sensor.name} at {sensor.now_c:.1f} °C, above {max_c:g} °C {waited}"
            remarks.append(Remark(code="too_hot", detail=detail, t_ns=now_ns))
            break
        telling(sensor, max_c)
        clock.sleep_until(min(now_ns + nanoseconds(LOOK_S), limit_ns))
    for sensor, min_c in _cold(recorder, clock, band):
        detail = f"{sensor.name} at {sensor.now_c:.1f} °C, below {min_c:g} °C"
        remarks.append(Remark(code="too_cold", detail=detail, t_ns=clock.now_ns()))
    return remarks


def _hot(recorder: Recorder, now_ns: int, quiet_since_ns: int, band: StartBand) -> tuple[_Sensor, float] | None:
    """The sensor furthest above its band."""
    hottest = _hottest(recorder, now_ns, quiet_since_ns, band.max_c)
    above = [(sensor, max_c) for sensor, max_c in hottest if sensor.now_c > max_c]
    return max(above, key=lambda one: one[0].now_c - one[1], default=None)


def _cold(recorder: Recorder, clock: Clock, band: StartBand, more_c: float = 0.0) -> list[tuple[_Sensor, float]]:
    """What lies below its band, or less than `more_c` above its lower end where the band is wide enough for that."""
    now_ns = clock.now_ns()
    found = []
    for sensor, min_c in _hottest(recorder, now_ns, now_ns, band.min_c):
        max_c = limit_c(band.max_c, sensor.scope)
        wanted_c = min_c + (more_c if max_c is None else min(more_c, (max_c - min_c) / 2))
        if sensor.now_c < wanted_c:
            found.append((sensor, min_c))
    return found


def _is_cpu(sensor: _Sensor) -> bool:
    return sensor.scope.startswith("cpu")


def limit_c(limits: Limits, scope: str) -> float | None:
    """The limit for a sensor of this scope."""
    name = _named(limits, scope)
    return None if name is None else limits[name]


def _named(limits: Limits, scope: str) -> str | None:
    return max((name for name in limits if scope.startswith(name)), key=len, default=None)


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


def _hottest(recorder: Recorder, now_ns: int, quiet_since_ns: int, limits: Limits) -> list[tuple[_Sensor, float]]:
    """For each limit the hottest of its sensors, with what it said since the machine has been idle."""
    if not limits:
        return []
    origin_ns = now_ns - nanoseconds(RECORD_S)
    found: dict[str, _Sensor] = {}
    for series in recorder.series(origin_ns, now_ns):
        name = _named(limits, series.channel.scope)
        if name is None or not sensors([series.channel]):
            continue
        sensor = _sensor(series, now_ns - origin_ns, quiet_since_ns - origin_ns)
        if sensor is not None and (name not in found or sensor.now_c > found[name].now_c):
            found[name] = sensor
    return [(sensor, limits[name]) for name, sensor in found.items()]


def _sensor(series: Series, now_ns: int, quiet_since_ns: int) -> _Sensor | None:
    if not series.t_ns or now_ns - series.t_ns[-1] > nanoseconds(STALE_S):
        return None
    step = series.channel.step
    pairs = zip(series.t_ns, series.raw, strict=True)
    readings = [(seconds(t_ns), raw * step) for t_ns, raw in pairs if t_ns >= quiet_since_ns]
    return _Sensor(series.channel.name, series.channel.scope, series.raw[-1] * step, readings)


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
