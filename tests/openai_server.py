"""A small server that speaks the OpenAI protocol: what it says is known, and it can be told to fail."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class KnownServer:
    """``base_url``; ``asked`` holds (path, headers, body) of every request; ``failing`` holds statuses to answer next; without ``schemas`` a wanted one is refused."""

    def __init__(self):
        self.asked = []
        self.failing = []
        self.schemas = True
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def do_GET(self):
                outer.asked.append((self.path, dict(self.headers), None))
                self.answer({"data": [{"id": "only-one"}]})

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                outer.asked.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
                if outer.failing and (status := outer.failing.pop(0)):
                    self.answer({"error": {"message": "secret words"}}, status)
                elif not outer.schemas and "response_format" in body:
                    self.answer({"error": {"message": "unknown field response_format"}}, 400)
                elif self.path.endswith("/embeddings"):
                    self.answer({"data": [{"index": i, "embedding": [3.0, 4.0 * len(t)]} for i, t in enumerate(body["input"])][::-1]})
                elif body.get("stream"):
                    self.stream(said(body))
                else:
                    text = said(body)
                    usage = {"prompt_tokens": 7, "completion_tokens": len(text)}
                    self.answer({"choices": [{"message": {"content": text}, "finish_reason": "stop"}], "usage": usage})

            def answer(self, document, status=200):
                data = json.dumps(document).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def stream(self, text):
                self.send_response(200)
                self.end_headers()
                for c in text:
                    self.event({"choices": [{"delta": {"content": c}}]})
                self.event({"choices": [{"delta": {}, "finish_reason": "stop"}]})
                self.event({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": len(text)}})
                self.wfile.write(b"data: [DONE]\n\n")

            def event(self, document):
                self.wfile.write(b"data: %s\n\n" % json.dumps(document).encode())

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,))
        self.thread.start()
        self.base_url = f"http://127.0.0.1:{self.server.server_port}/v1"

    def close(self):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


def said(body):
    last, told = body["messages"][-1]["content"], body["messages"][0]["content"]
    known = {"好": "good", "坏": "bad"}
    if "?" in last and told.startswith(("Find", "Say", "The user")):
        return "I could not say"
    if told.startswith("Find the spans"):
        return json.dumps({"spans": [{"text": c, "label": known[c]} for c in last if c in known]})
    if told.startswith("Say which"):
        return json.dumps({"labels": [known[c] for c in known if c in last]})
    if "how alike" in told:
        a, b = (line[3:] for line in last.split("\n"))
        return json.dumps({"grade": 1.0 if a == b else 0.25})
    if "how they stand" in told:
        a, b = (line[3:] for line in last.split("\n"))
        return "same" if a == b else "other"
    if body["messages"][0]["content"].startswith("Classify"):
        return "“Good”." if "好" in last else "bad" if "坏" in last else "I could not say"
    return last[::-1]
