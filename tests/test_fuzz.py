"""Every parser of what comes from outside takes any bytes: it reads them or says what is wrong, and nothing else."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuzz.targets import TARGETS

PIECES = st.one_of(
    st.binary(min_size=1, max_size=9),
    st.sampled_from(
        [b"null", b"-1", b"1e999", b"[]", b"{}", b'""', b"true", b"9" * 30, b"\xff\xff\xff\xff", b"[" * 2_000]
    ),
)
EDITS = st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 8), PIECES), max_size=4)


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_are_read(name: str) -> None:
    """The inputs that fuzzing begins with reach each parser without a find."""
    for seed in TARGETS[name].seeds:
        TARGETS[name](seed)


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_bytes(name: str, data: st.DataObject) -> None:
    """Bytes made up, and right ones with pieces exchanged, end in a value or a declared error."""
    target = TARGETS[name]
    found = bytearray(data.draw(st.one_of(st.sampled_from(target.seeds), st.binary(max_size=80))))
    for place, width, piece in data.draw(EDITS):
        at = place % (len(found) + 1)
        found[at : at + width] = piece
    target(bytes(found))
