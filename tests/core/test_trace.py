"""``traceparent`` and ``tracestate`` as the recommendation has them."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wenfang.core.ids import new_id
from wenfang.core.trace import begun, continued, read_state

TRACE, SPAN = b"4bf92f3577b34da6a3ce929d0e0e4736", b"00f067aa0ba902b7"
GOOD = b"00-" + TRACE + b"-" + SPAN + b"-01"


@pytest.mark.parametrize(
    ("header", "flags"),
    [
        (GOOD, 1),
        (GOOD[:-2] + b"00", 0),
        (GOOD[:-2] + b"ff", 3),  # unknown flags are not passed on
        (b"01" + GOOD[2:], 1),
        (b"cc" + GOOD[2:] + b"-what-the-future-holds", 1),
        (b" " + GOOD + b"\t", 1),
    ],
)
def test_valid_parents_are_continued(header, flags):
    found = continued(header)
    assert (found.trace_id, found.parent_id, found.flags) == (TRACE.decode(), SPAN.decode(), flags)
    assert re.fullmatch("[0-9a-f]{16}", found.span_id)
    assert found.span_id != found.parent_id
    assert found.parent() == f"00-{found.trace_id}-{found.span_id}-{flags:02x}"


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"00",
        GOOD[:-1],
        GOOD + b"-more",  # version 00 has nothing behind its flags
        GOOD + b"0",
        b"01" + GOOD[2:] + b"x",
        b"ff" + GOOD[2:],
        GOOD.upper(),
        GOOD.replace(b"-", b"_"),
        b"00-" + b"0" * 32 + b"-" + SPAN + b"-01",
        b"00-" + TRACE + b"-" + b"0" * 16 + b"-01",
        GOOD.replace(b"4bf9", b"4bg9"),
        GOOD + b", " + GOOD,  # the header stood twice
        "００".encode() + GOOD[2:],
    ],
)
def test_invalid_parents_are_not(header):
    assert continued(header, b"a=1") is None


@given(st.binary(max_size=80))
def test_no_header_breaks_it(header):
    found = continued(header, header)
    assert found is None or continued(found.parent().encode()).trace_id == found.trace_id


@pytest.mark.parametrize(
    ("state", "kept"),
    [
        (b"rojo=00f067aa0ba902b7,congo=t61rcWkgMzE", "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"),
        (b"a=1 ,\tb=2", "a=1,b=2"),
        (b"a=1,,b=2,", "a=1,b=2"),
        (b"fw529a3039@dt=FfAn2b", "fw529a3039@dt=FfAn2b"),
        (b"a=with space", "a=with space"),
        (b"", ""),
        (b"a", ""),
        (b"A=1", ""),
        (b"a=1,a=2", ""),
        (b"a=", ""),
        (b"a=b=c", ""),
        ("a=值".encode(), ""),
        (b",".join(b"k%d=v" % i for i in range(32)), ",".join(f"k{i}=v" for i in range(32))),
        (b",".join(b"k%d=v" % i for i in range(33)), ""),
    ],
)
def test_states_are_passed_on_where_they_are_valid(state, kept):
    assert read_state(state) == kept


def test_long_states_lose_long_entries_first_then_the_oldest():
    long = b"long=" + b"x" * 200
    short = b",".join(b"k%02d=%s" % (i, b"v" * 20) for i in range(20))
    kept = read_state(long + b"," + short)
    assert len(kept) <= 512
    assert kept.startswith("k00=")
    assert "long" not in kept
    assert len(kept) > 480


def test_a_trace_that_begins_here_has_the_bits_of_its_request():
    request = new_id("rq")
    assert begun(request).trace_id == begun(request).trace_id
    assert begun(request).span_id != begun(request).span_id
    assert begun(request).trace_id != begun(new_id("rq")).trace_id
    assert begun("my-own").trace_id != begun("my-own").trace_id
    assert begun(request).sampled
    assert continued(begun(request).parent().encode()) is not None
