"""Traces reach a collector over OTLP, also the last ones; a collector that is away holds nothing up."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from dataplane import DataPlane, free_port, until
from wenfang.doors.gateway.exporting import as_otlp

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


class Collector:
    def __init__(self, port=0):
        self.spans, self.paths = [], set()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                outer.paths.add((self.path, self.headers["content-type"]))
                for resource in body["resourceSpans"]:
                    for scope in resource["scopeSpans"]:
                        outer.spans += scope["spans"]
                self.send_response(200)
                self.send_header("content-length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,))
        self.thread.start()

    def close(self):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


def test_a_collector_hears_of_traces_also_of_the_last():
    port = free_port()
    plane = DataPlane(settings={"trace_share": 0.0, "otlp_url": f"http://127.0.0.1:{port}/otlp"})
    collector = None
    try:
        headers = {"traceparent": PARENT, "tracestate": "a=1"}
        assert plane.ask("POST", "/predict/intent", {"inputs": ["lost"]}, headers)[0] == 200
        until(lambda: "takes no traces" in plane.log("gateway-0"), what="the line in the log")  # nobody listens: dropped, told once
        collector = Collector(port)
        assert plane.ask("POST", "/predict/intent", {"inputs": ["今天"]}, {**headers, "x-request-id": "mine"})[0] == 200
        until(lambda: collector.spans, what="spans")
        assert collector.paths == {("/otlp/v1/traces", "application/json")}
        root, *parts = collector.spans
        assert (root["traceId"], root["parentSpanId"], root["name"], root["kind"], root["traceState"], root["status"]) == (TRACE, "00f067aa0ba902b7", "predict", 2, "a=1", {})
        assert {"key": "wenfang.request_id", "value": {"stringValue": "mine"}} in root["attributes"]
        assert {"key": "http.response.status_code", "value": {"intValue": "200"}} in root["attributes"]
        assert [p["name"] for p in parts] == ["queue", "model", "write"]
        assert all(p["parentSpanId"] == root["spanId"] and int(root["startTimeUnixNano"]) <= int(p["startTimeUnixNano"]) <= int(p["endTimeUnixNano"]) for p in parts)
        n = len(collector.spans)
        assert plane.ask("POST", "/predict/intent", {"inputs": ["RAISE"]}, {**headers, "x-request-id": "last"})[0] == 500
        plane.close()
        failed = [s for s in collector.spans[n:] if s["kind"] == 2]
        assert [s["status"] for s in failed] == [{"code": 2}]
        assert plane.child.popen.poll() is not None
    finally:
        plane.close()
        if collector is not None:
            collector.close()


@pytest.mark.parametrize("status", [200, 503])
def test_the_shape_of_a_span(status):
    trace = {
        "trace_id": TRACE,
        "started_at": 1.5,
        "ms": 2.0,
        "status": status,
        "service": "s",
        "spans": [{"span_id": "a" * 16, "parent_id": "", "name": "predict", "start_ms": 0.0, "ms": 2.0}],
    }
    (span,) = as_otlp([trace], "0")["resourceSpans"][0]["scopeSpans"][0]["spans"]
    assert (span["startTimeUnixNano"], span["endTimeUnixNano"], "parentSpanId" in span) == ("1500000000", "1502000000", False)
    assert span["status"] == ({"code": 2} if status == 503 else {})
