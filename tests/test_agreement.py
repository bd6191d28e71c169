"""Meters of one machine that must agree: the line between plug and counters, and what does not fit it."""

from dataclasses import replace

import pytest

from agreeing import PLUGS, Lab, Plug, Zones
from joulebox.agreement import POINTS_MIN, expected_w, fitted, pairs
from joulebox.model import ReadingKind, Sampling
from joulebox.node.together import at_a_glance, compare
from joulebox.rig.physics import Machine
from joulebox.rig.wall import Wall
from traces import channel


@pytest.mark.parametrize("name", PLUGS)
def test_the_line_between_counters_and_plug_is_found(name: str) -> None:
    """What the board takes and what the supply loses is found from a load in steps, behind any plug and gains."""
    for seed in range(4):
        lab = Lab(seed, PLUGS[name])
        (found,) = compare([lab.zones, lab.plug], lab.clock, lab.load)
        assert (found.code, found.fit is None) == ("agrees", False), found.sentence
        assert found.fit is not None
        own, gains = lab.wall.parameters, lab.plug.gain / lab.zones.gain
        assert found.fit.slope == pytest.approx((1 + own.loss_ratio) * gains, rel=0.03)
        true_w = lab.plug.gain * ((lab.zones_idle_w + own.rest_w) * (1 + own.loss_ratio) + own.loss_w)
        at_w, u_w = expected_w(found.fit, lab.zones.gain * lab.zones_idle_w)
        assert at_w == pytest.approx(true_w, abs=u_w)


@pytest.mark.parametrize("name", PLUGS)
def test_a_plug_of_another_machine_is_found(name: str) -> None:
    """A plug that measures another machine, quiet meanwhile, does not follow the work: swapped, with both numbers."""
    for seed in range(4):
        lab = Lab(seed, PLUGS[name])
        other = Plug(Wall(Machine(seed + 100)), lab.clock, PLUGS[name], 1.0)
        (found,) = compare([lab.zones, other], lab.clock, lab.load)
        assert (found.code, found.fit) == ("swapped", None)
        assert "plug plug (wall) does not follow the work" in found.sentence


def test_exchanged_counters_are_found() -> None:
    """Memory that rises by more than the processor while only cores work carries the processor's name."""
    lab = Lab(3, PLUGS["10 Hz wall meter"])
    zones = Zones(lab.machine, lab.clock, 1.0, exchanged=True)
    codes = [one.code for one in compare([zones, lab.plug], lab.clock, lab.load)]
    assert codes == ["agrees", "swapped"]
    assert "exchanged" in compare([zones, lab.plug], lab.clock, lab.load)[1].sentence


@pytest.mark.parametrize(("gain", "code"), [(1.0, "agrees"), (1.008, "agrees"), (1.1, "closure"), (0.85, "closure")])
def test_two_meters_of_one_plug(gain: float, code: str) -> None:
    """Two meters at one plug may differ by what both say of themselves, and by no more."""
    lab = Lab(4, PLUGS["10 Hz wall meter"])
    lab.plug.gain = 1.0
    second = Plug(lab.wall, lab.clock, PLUGS["10 Hz wall meter"], gain, address="other:rig")
    (found,) = compare([lab.plug, second], lab.clock, lab.load)
    assert (found.code, found.fit) == (code, None)


def test_a_slope_that_cannot_be_is_told() -> None:
    """Counters that rise by more than the plug, beyond what both may err, contradict it: no line is kept."""
    lab = Lab(5, PLUGS["10 Hz wall meter"])
    lab.plug.gain = 0.6
    (found,) = compare([lab.zones, lab.plug], lab.clock, lab.load)
    assert (found.code, found.fit) == ("closure", None)
    assert "One of the two is wrong" in found.sentence


def test_a_machine_that_shows_no_work_tells_nothing() -> None:
    """Where neither side follows the work nothing is concluded."""
    lab = Lab(6, PLUGS["10 Hz wall meter"])
    idle = Lab(6, PLUGS["10 Hz wall meter"])
    (found,) = compare([lab.zones, lab.plug], lab.clock, idle.load)
    assert (found.code, found.fit) == ("unknown", None)


def test_which_meters_must_agree() -> None:
    """Plug against counters, plug against board, board against counters, two ways to know one thing; parts of parts
    and lone meters against nothing."""
    cpu, dram = channel(), channel("package-0/dram", "dram")
    core = channel("package-0/core", "cpu", part_of="cpu")
    plug = channel("power", "wall", meter="shelly:a", kind=ReadingKind.POWER_W, sampling=Sampling.SNAPSHOT, tick_s=1.0)
    bmc = channel("power", "platform", meter="redfish:a", kind=ReadingKind.POWER_W, tick_s=1.0)
    perf = replace(cpu, meter="perf:", tick_s=0.002)
    assert pairs([cpu, dram, core]) == []
    assert pairs([plug]) == []
    found = {(pair.whole, pair.parts, pair.same) for pair in pairs([plug, bmc, cpu, dram, core, perf])}
    assert found == {
        ((plug,), (cpu, dram), False),
        ((bmc,), (cpu, dram), False),
        ((plug,), (bmc,), False),
        ((perf,), (cpu,), True),
    }


def test_no_line_without_enough_to_draw_it_through() -> None:
    """Too few points, or parts that never moved, fit every line and so none."""
    plug = channel("power", "wall", meter="shelly:a", kind=ReadingKind.POWER_W, sampling=Sampling.SNAPSHOT, tick_s=1.0)
    (pair,) = pairs([plug, channel()])
    points = [(10.0 + n, 20.0 + 1.1 * n) for n in range(POINTS_MIN)]
    assert fitted(pair, points) is not None
    assert fitted(pair, points[1:]) is None
    assert fitted(pair, [(10.0, whole_w) for _, whole_w in points]) is None


def test_a_glance_at_the_meters() -> None:
    """Mean powers read one after another make sense or not, roughly: by the calibrated line, by physics alone without
    it, and two of one thing by what both claim."""
    lab = Lab(9, PLUGS["10 Hz wall meter"])
    (found,) = compare([lab.zones, lab.plug], lab.clock, lab.load)
    assert found.fit is not None
    cpu, dram = lab.zones.channels()
    (plug,) = lab.plug.channels()
    expect_w, _ = expected_w(found.fit, 7.5)
    for whole_w, by_line, bare in (
        (expect_w, "agrees", "agrees"),
        (expect_w + 40, "closure", "agrees"),
        (2.0, "closure", "closure"),
    ):
        watts = {cpu: 6.0, dram: 1.5, plug: whole_w}
        assert [one.code for one in at_a_glance(watts, (found.fit,))] == [by_line]
        assert [one.code for one in at_a_glance(watts, ())] == [bare]
    other = replace(plug, meter="other:rig")
    assert [one.code for one in at_a_glance({plug: 50.0, other: 51.0}, ())] == ["agrees"]
    (apart,) = at_a_glance({plug: 50.0, other: 80.0}, ())
    assert apart.code == "closure"
    assert "another machine" in apart.sentence
