"""Which requests are traced, what is kept of them, and how much."""

from wenfang.serve.tracing import MARKS_MAX, Tracer

PARENT = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0%d"


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def test_a_share_is_traced():
    tracer = Tracer(10, 0.25, Clock())
    assert [tracer.begin({}, "", 0.0) is not None for _ in range(9)] == [True, False, False, False] * 2 + [True]
    assert all(Tracer(10, 0.0, Clock()).begin({}, "", 0.0) is None for _ in range(100))
    assert all(Tracer(0, 1.0, Clock()).begin({}, "", 0.0) is None for _ in range(100))
    assert all(Tracer(10, 1.0, Clock()).begin({}, "", 0.0) is not None for _ in range(100))


def test_a_callers_trace_is_carried_and_kept_where_the_caller_keeps_it():
    tracer = Tracer(10, 0.0, Clock())
    for sampled in (1, 0):
        traced = tracer.begin({b"traceparent": PARENT % sampled, b"tracestate": b"a=1"}, "rq_1", 99.0)
        assert traced.trace.state == "a=1"
        tracer.end(traced, 200, service="s", request_id="rq_1")
    (told,) = tracer.told(10, service="s")
    assert (told["trace_id"], told["spans"][0]["parent_id"], told["ms"], told["status"]) == ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", 1000.0, 200)
    assert tracer.told(10, service="other") == tracer.told(10, service="s", request_id="rq_2") == []


def test_a_bad_parent_is_replaced():
    traced = Tracer(10, 0.0, Clock()).begin({b"traceparent": b"00-x", b"tracestate": b"a=1"}, "rq_01jd3kexample0123456789abc", 0.0)
    assert (traced.trace.parent_id, traced.trace.state, len(traced.trace.trace_id)) == ("", "", 32)


def test_the_latest_are_kept_newest_first():
    clock = Clock()
    tracer = Tracer(3, 1.0, clock)
    for i in range(5):
        tracer.end(tracer.begin({}, "", clock.now), 200, service="s", request_id=str(i))
    assert [t["request_id"] for t in tracer.told(10, service="s")] == ["4", "3", "2"]
    assert [t["request_id"] for t in tracer.told(1, service="s")] == ["4"]


def test_spans_say_what_waited_and_what_the_model_took():
    clock = Clock()
    tracer = Tracer(3, 1.0, clock)
    traced = tracer.begin({}, "", 100.0)
    traced.name = "predict"
    traced.mark(100.001, 100.003, 100.013, 8.0, 4)
    step = traced.child("tag", 100.013)
    step.mark(100.013, 100.014, 100.015, 1.0, 1)
    step.ended = 100.016
    step.facts["error"] = "serve.replica-died"
    traced.answered, clock.now = 100.016, 100.017
    tracer.end(traced, 200, service="s")
    (told,) = tracer.told(1)
    spans = {(s["name"], s["parent_id"]): s for s in told["spans"]}
    root, tag = traced.trace.span_id, step.trace.span_id
    assert (spans["queue", root]["start_ms"], spans["queue", root]["ms"]) == (1.0, 2.0)
    assert (spans["model", root]["start_ms"], spans["model", root]["ms"], spans["model", root]["texts"]) == (5.0, 8.0, 4)
    assert (spans["write", root]["start_ms"], spans["write", root]["ms"]) == (16.0, 1.0)
    assert (spans["tag", root]["span_id"], spans["tag", root]["error"]) == (tag, "serve.replica-died")
    assert spans["model", tag]["ms"] == 1.0
    assert step.trace.trace_id == traced.trace.trace_id
    assert len({s["span_id"] for s in told["spans"]}) == len(told["spans"])


def test_batches_of_a_huge_request_are_counted_not_kept():
    tracer = Tracer(3, 1.0, Clock())
    traced = tracer.begin({}, "", 100.0)
    for _ in range(1000):
        traced.mark(100.0, 100.0, 100.0, 0.1, 1)
    tracer.end(traced, 200)
    (told,) = tracer.told(1)
    assert len(told["spans"]) == 1 + 2 * MARKS_MAX
    assert told["spans"][-1]["more_batches"] == 1000 - MARKS_MAX
