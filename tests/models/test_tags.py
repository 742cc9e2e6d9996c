from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wenfang.core.errors import Invalid
from wenfang.core.examples import Span
from wenfang.models.tags import TagSet

TAGS = TagSet(("LOC", "PER"))


@st.composite
def spans_of_a_text(draw):
    length = draw(st.integers(0, 30))
    cuts = sorted(draw(st.sets(st.integers(0, length), max_size=10)))
    spans = tuple(Span(a, b, draw(st.sampled_from(TAGS.labels))) for a, b in pairwise(cuts) if draw(st.booleans()))
    return spans, length


@given(spans_of_a_text())
def test_spans_survive_the_round_trip_on_a_legal_path(case):
    spans, length = case
    tags = TAGS.encode(spans, length)
    assert TAGS.decode(tags) == spans
    if length:
        assert TAGS.legal_start[tags[0]]
        assert TAGS.legal_end[tags[-1]]
        assert TAGS.legal[tags[:-1], tags[1:]].all()


@given(st.lists(st.integers(0, len(TAGS) - 1), max_size=20))
def test_any_tags_decode_to_spans_inside_the_text(tags):
    spans = TAGS.decode(tags)
    covered = [i for s in spans for i in range(s.start, s.end)]
    assert covered == sorted(set(covered)) == [i for i, t in enumerate(tags) if t]


def test_names_and_sizes():
    assert TAGS.names == ("O", "B-LOC", "I-LOC", "E-LOC", "S-LOC", "B-PER", "I-PER", "E-PER", "S-PER")
    assert len(TAGS) == 9
    assert TAGS.legal.shape == (9, 9)
    assert TAGS.names[int(np.flatnonzero(TAGS.legal[1])[0])] == "I-LOC"


@pytest.mark.parametrize("spans", [[Span(0, 5, "LOC")], [Span(1, 1, "LOC")], [Span(-1, 1, "LOC")], [Span(0, 2, "LOC"), Span(1, 3, "PER")]])
def test_spans_that_do_not_fit_are_refused(spans):
    with pytest.raises(Invalid, match=r"model\.bad-span"):
        TAGS.encode(spans, 4)


def test_unknown_label_is_refused():
    with pytest.raises(Invalid, match=r"model\.unknown-label"):
        TAGS.encode([Span(0, 1, "ORG")], 4)
