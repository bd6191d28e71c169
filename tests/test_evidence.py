"""A trace as bytes: everything comes back, and nothing else is taken for a trace."""

import json
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from joulebox.evidence import decode_trace, encode_trace
from joulebox.model import Series
from traces import channel, series, trace, work

GOOD = encode_trace(trace(series(channel(), work(10.0, 50.0, 30.0, 32.0), 34.0)))


@given(st.lists(st.tuples(st.integers(1, 10**12), st.integers(-(2**40), 2**40)), max_size=50))
def test_round_trip(steps: list[tuple[int, int]]) -> None:
    """Any readings in any order of values come back the same."""
    t_ns, raw, t, value = [], [], 0, 0
    for wait, change in steps:
        t, value = t + wait, value + change
        t_ns.append(t)
        raw.append(value)
    run = trace(Series(channel=channel(), t_ns=tuple(t_ns), raw=tuple(raw)))
    assert decode_trace(encode_trace(run)) == run


def test_small() -> None:
    """A minute of four channels at 10 Hz takes less than 8 kB."""
    channels = [series(channel(f"package-{i}"), work(10.0, 50.0, 30.0, 32.0), 60.0) for i in range(4)]
    assert len(encode_trace(trace(*channels))) < 8_000


@settings(max_examples=300)
@given(st.data())
def test_damage_is_refused(data: st.DataObject) -> None:
    """Bytes that were cut, changed or made up are refused with a sentence or read as a whole trace: never a crash."""
    blob = bytearray(GOOD)
    kind = data.draw(st.sampled_from(["cut", "flip", "random"]))
    if kind == "cut":
        blob = blob[: data.draw(st.integers(0, len(blob) - 1))]
    elif kind == "flip":
        for _ in range(data.draw(st.integers(1, 4))):
            blob[data.draw(st.integers(0, len(blob) - 1))] = data.draw(st.integers(0, 255))
    else:
        blob = bytearray(b"JBT1" + data.draw(st.binary(max_size=200)))
    try:
        decode_trace(bytes(blob))
    except ValueError as error:
        assert str(error)


def test_readings_that_do_not_unpack_are_refused() -> None:
    """Readings that are no zlib stream are damaged, and the sentence says so."""
    size = int.from_bytes(GOOD[4:8], "big")
    with pytest.raises(ValueError, match="readings are damaged"):
        decode_trace(GOOD[: 8 + size] + b"\xff" + GOOD[9 + size :])


def test_times_must_increase() -> None:
    """Readings whose times stand still are refused: a meter cannot read twice at once."""
    bad = Series(channel=channel(), t_ns=(5, 5), raw=(1, 2))
    with pytest.raises(ValueError, match="do not increase"):
        decode_trace(encode_trace(trace(bad)))


@pytest.mark.parametrize(
    ("whole", "told"),
    [
        ({"trace": 1}, "wrong form"),
        ({"trace": {}}, "names no channels"),
        ({"trace": {}, "channels": [], "counts": 1}, "names no channels"),
        ({"counts": [1, 1]}, "do not fit"),
        ({"counts": [-1]}, "do not fit"),
        ({"counts": [1.0]}, "do not fit"),
    ],
)
def test_a_header_that_says_something_else_is_refused(whole: dict[str, Any], told: str) -> None:
    """What is no header, or tells of other readings than its channels have, is refused with what is wrong."""
    size = int.from_bytes(GOOD[4:8], "big")
    head = json.dumps(whole if "trace" in whole else json.loads(GOOD[8 : 8 + size]) | whole).encode()
    with pytest.raises(ValueError, match=told):
        decode_trace(GOOD[:4] + len(head).to_bytes(4, "big") + head + GOOD[8 + size :])


def test_evidence_is_the_same_on_machines_of_either_byte_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that begins numbers with their highest byte turns them round on the way out and on the way in."""
    own = [series(channel(), work(10.0, 50.0, 30.0, 32.0), 34.0)]
    there = encode_trace(trace(*own))
    monkeypatch.setattr(sys, "byteorder", {"little": "big", "big": "little"}[sys.byteorder])
    turned = encode_trace(trace(*own))
    assert turned != there
    assert decode_trace(turned) == trace(*own)


@pytest.mark.parametrize("number", [b"Infinity", b"NaN", b"1e999"])
def test_numbers_are_finite(number: bytes) -> None:
    """A number that no receipt can be reckoned from is refused where the evidence comes in."""
    size = int.from_bytes(GOOD[4:8], "big")
    head = GOOD[8 : 8 + size].replace(b'"queued_s":0.0', b'"queued_s":' + number)
    with pytest.raises(ValueError, match="not finite"):
        decode_trace(GOOD[:4] + len(head).to_bytes(4, "big") + head + GOOD[8 + size :])
