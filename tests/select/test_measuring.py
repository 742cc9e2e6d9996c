"""Latency, journal and plots."""

import random
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from selection_world import InProcess, Oracle, OracleHyper, examples

from wenfang.core.examples import Output
from wenfang.select.journal import Journal, fingerprint
from wenfang.select.latency import measure, measure_again, percentile, size_of
from wenfang.select.plots import Bar, Point, Series, bars, heat_map, lines, reliability, scatter_log
from wenfang.select.svg import log_ticks, short, text_width, ticks


def bundle_of(tmp_path, hyper):
    host = InProcess(Oracle)
    host.write(tmp_path / "b", Oracle(hyper, task="classification").fit(examples(10)), {})
    return host, tmp_path / "b"


def test_latency_is_that_of_the_replica(tmp_path):
    host, bundle = bundle_of(tmp_path, OracleHyper(delay_ms=2, size_bytes=5000))
    found = measure(host, bundle, examples(700), limit_s=3)
    assert 2 <= found.p50_ms < 12
    assert found.p50_ms <= found.p99_ms
    assert found.memory_bytes == 1_005_000
    assert 100 <= found.texts <= 500
    assert host.running == 0
    assert size_of(bundle) > 5000


def test_short_of_time_fewer_rounds_are_measured(tmp_path):
    host, bundle = bundle_of(tmp_path, OracleHyper(delay_ms=3))
    found = measure(host, bundle, examples(1), limit_s=0.2)
    assert (found.texts, found.rounds) == (100, 1)


def test_all_rounds_when_there_is_time(tmp_path):
    host, bundle = bundle_of(tmp_path, OracleHyper())
    found = measure(host, bundle, examples(2))
    assert (found.texts, found.rounds) == (500, 3)


class Disturbed(InProcess):
    """A machine on which something else runs while the first replica is measured."""

    def start(self, bundle):
        replica = super().start(bundle)
        answer, first, asked = replica.predict, len(self.started) == 1, iter(range(10**6))
        replica.predict = lambda texts: (time.sleep(0.01) if first and next(asked) % 20 == 0 else None, answer(texts))[1]
        return replica


def test_a_tail_above_the_limit_is_looked_at_twice(tmp_path):
    _, bundle = bundle_of(tmp_path, OracleHyper())
    host = Disturbed(Oracle)
    assert measure_again(host, bundle, examples(1), max_p99_ms=9.0).p99_ms < 9
    assert len(host.started) == 2
    slow, bundle = bundle_of(tmp_path / "slow", OracleHyper(delay_ms=3))
    measure_again(slow, bundle, examples(1), max_p99_ms=1.0, limit_s=0.2)
    assert len(slow.started) == 1, "a model that is slow in the median is not measured twice"


@given(st.lists(st.floats(0, 100), min_size=1, max_size=50))
def test_percentile_is_a_value_that_occurs(values):
    assert percentile(values, 1.0) == max(values)
    assert percentile(values, 0.5) in values


def test_a_journal_remembers_and_counts_time(tmp_path):
    now = [0.0]
    first = Journal(tmp_path / "w", "r1", clock=lambda: now[0])
    now[0] = 5.0
    first.add("run", x=1)
    first.keep_answers("a", [Output(label="甲", score=0.5)])
    now[0] = 100.0
    again = Journal(tmp_path / "w", "r1", clock=lambda: now[0])
    assert again.resumed
    assert again.spent_s() == 5.0
    assert again.find("run")[0]["x"] == 1
    assert again.answers("a") == [Output(label="甲", score=0.5)]
    other = Journal(tmp_path / "w", "r2")
    assert not other.resumed
    assert not (tmp_path / "w" / "answers").exists()


def test_the_fingerprint_knows_data_and_request():
    a, b = examples(10), examples(10, start=1)
    prints = {fingerprint({"seed": s}, d) for s in (0, 1) for d in (a, b)}
    assert len(prints) == 4
    assert fingerprint({"seed": 0}, examples(10)) in prints
    odd = examples(10)
    odd.texts[0] = "\ud800"
    assert fingerprint({"seed": 0}, odd) not in prints


@given(st.floats(0, 1), st.floats(0.0001, 1))
def test_ticks_cover_their_range(low, span):
    found = ticks(low, low + span)
    assert found[0] <= low + 1e-9
    assert found[-1] >= low + span - 1e-9
    assert 2 <= len(found) <= 13


@given(st.floats(1e-3, 1e3), st.floats(1.0, 1e4))
def test_log_ticks_cover_their_range(low, factor):
    found = log_ticks(low, low * factor)
    assert found[0] <= low * (1 + 1e-9)
    assert found[-1] >= low * factor * (1 - 1e-9)
    assert len(found) <= 14


@given(st.text(max_size=40))
def test_cut_labels_fit(text):
    assert text_width(short(text, 60.0)) <= 60.0


def boxes(svg):
    """The rectangles of the labels beside the points."""
    found = []
    for x, y, cls, anchor, label in re.findall(r'<text x="([\d.]+)" y="([\d.]+)" class="([^"]*)" text-anchor="(\w+)">([^<]*)</text>', svg):
        if "halo" in cls and anchor == "start":
            found.append((float(x), float(y) - 11, float(x) + text_width(label), float(y) + 4))
    return found


@pytest.mark.parametrize("seed", range(20))
def test_labels_of_the_plot_do_not_overlap(seed):
    rng = random.Random(seed)
    points = []
    for i in range(14):
        score = rng.uniform(0.85, 0.95)
        points.append(Point(f"预训练模型{i}-很长的名字", rng.uniform(0.2, 9), score, score - 0.01, score + 0.01, "chosen" if i == 0 else "other"))
    found = boxes(scatter_log(points, title="t", x_title="x", y_title="y", limit=5, limit_label="上限"))
    assert len(found) >= 5
    for i, a in enumerate(found):
        for b in found[i + 1 :]:
            assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


def test_plots_of_odd_figures():
    one = Point("<a>", 0.5, 1.0, 1.0, 1.0, "chosen")
    assert "&lt;a&gt;" in scatter_log([one], title="", x_title="", y_title="")
    floor = scatter_log([one, Point("floor", 0.1, 0.1, 0.09, 0.11, "other")], title="", x_title="", y_title="")
    assert "↓ floor 10.0" in floor
    assert "<svg" in lines(Series("a", [(0.0, 0.5), (0.0, 0.5)]), y_range=None, percent=False, x_title="", y_title="")
    assert "\x07" not in bars([Bar("\x07\ud800", 0.0, 0), Bar("between", None, 0)], title="", value_title="", count_title="")
    assert "<svg" in heat_map(["a"], [[0]], title="", row_title="", column_title="")
    assert "<svg" in reliability([], title="", x_title="", y_title="")
