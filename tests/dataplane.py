"""A small data plane for tests: real supervisor, gateway and replica processes on loopback, with a model whose answers are known."""

import asyncio
import http.client
import json
import os
import shutil
import signal
import socket
import struct
import tempfile
import time
from pathlib import Path

import msgspec

from wenfang.core.conversation import conversation
from wenfang.core.errors import Invalid, WenfangError
from wenfang.core.examples import Output, Span
from wenfang.core.frames import FrameClient
from wenfang.core.home import Home
from wenfang.core.ids import sha256_hex
from wenfang.runtimes.local import LocalRuntime, Process, supervise
from wenfang.runtimes.processes import spawn
from wenfang.serve.replica import serve, serve_within
from wenfang.serve.routing import Principal, RoutedGraph, RoutedModel, RoutedService, RoutingTable, replica_socket, write_table

TESTS = Path(__file__).parent
KEY = "wf_test-key-of-a-caller"
AUDITOR = "wf_test-key-of-an-auditor"
STRANGER = "wf_test-key-of-another-project"
EXPIRED = "wf_test-key-of-yesterday"


class KnownModel:
    """Classification: the label is ``tag`` + first character, the score 1/(1 + length). Tagging: every digit is a ``NUM`` span."""

    def __init__(self, arguments):
        self.tag = arguments.get("tag", "")
        self.task = arguments.get("task", "classification")
        self.wait_s = arguments.get("wait_ms", 0) / 1000
        self.labels_ = ["a", "b"]
        self.batches = arguments.get("batches")
        self.token_s = arguments.get("token_ms", 0) / 1000
        self.joins = arguments.get("joins", 0)
        """Texts that are written together; 0: a batch after another."""

    def match(self, texts, texts_b, *, top_k=1):
        return [Output(label="same" if a == b else "other", score=1.0) for a, b in zip(texts, texts_b, strict=True)]

    def generate(self, texts, options, *, emit=None):
        """Says the last message again, a character a token; ``OPTIONS`` is answered by what was asked for."""
        answers = [written_answer(t, o) for t, o in zip(texts, options, strict=True)]
        for at in range(max(len(text) for text, _ in answers)):
            if self.token_s and any(o.max_tokens != 8 for o in options):  # not while it is measured at load
                time.sleep(self.token_s)
            if self.batches:
                with open(self.batches, "a", encoding="utf-8") as f:
                    f.write(f"{at}\n")
            for i, (text, _) in enumerate(answers):
                if at == 3 and "RAISE" in texts[i]:
                    raise ValueError("the text is in this message")
                if at == 3 and "KILL" in texts[i]:
                    os.kill(os.getpid(), signal.SIGKILL)
                if at == 3 and "HANG" in texts[i]:
                    time.sleep(60)
                if emit is not None and at < len(text):
                    emit(i, text[at])
        lengths = [len(conversation(t)[-1].content) for t in texts]
        return [
            Output(text=text, finish=finish, tokens_in=n, tokens_out=len(text), logprobs=(-0.5,) * len(text) if o.logprobs else None)
            for (text, finish), n, o in zip(answers, lengths, options, strict=True)
        ]

    def joint(self):
        return KnownJoint(self) if self.joins else None

    def predict(self, texts, *, top_k=1):
        if self.task == "embedding":
            return [Output(vector=struct.pack("<3f", len(t), 0.5, -1.0), tokens_in=len(t)) for t in texts]
        if self.wait_s:
            time.sleep(self.wait_s)
        if self.batches:
            with open(self.batches, "a", encoding="utf-8") as f:
                f.write(f"{len(texts)}\n")
        if any(t == "KILL" for t in texts):
            os.kill(os.getpid(), signal.SIGKILL)
        if any(t == "RAISE" for t in texts):
            raise ValueError("the text is in this message")
        if "HUGE" in texts:
            bytearray(1 << 30)
        if any(t.startswith("HANG") for t in texts):
            time.sleep(60)
        return [self._one(t, top_k) for t in texts]

    def _one(self, text, top_k):
        if self.task == "tagging":
            return Output(spans=tuple(Span(i, i + 1, "NUM") for i, c in enumerate(text) if c.isdigit()), score=0.5)
        score = 1 / (1 + len(text))
        return Output(label=self.tag + text[:1], score=score, scores={"x": score, "y": score / 2, "z": score / 4} if top_k > 1 else None)


def written_answer(text, options):
    """What ``KnownModel`` writes, and why it ends."""
    said = conversation(text)[-1].content
    if said == "OPTIONS":
        return msgspec.json.encode(options).decode(), "stop"
    if options.json_schema is not None:
        said = json.dumps({"said": said}, ensure_ascii=False)
    ends = [said.find(s) for s in options.stop if s in said]
    said = said[: min(ends)] if ends else said
    return (said, "stop") if options.max_tokens is None or len(said) <= options.max_tokens else (said[: options.max_tokens], "length")


class KnownJoint:
    """``KnownModel.generate`` with texts that begin and end between steps; its log says how many stood in each step."""

    def __init__(self, model):
        self.model = model
        self.open = {}
        self.next = 0

    @property
    def full(self):
        return len(self.open) >= self.model.joins

    def add(self, text, asked, tell):
        if "REFUSE" in text:
            raise Invalid("generation.schema-unspellable")
        answer, finish = written_answer(text, asked)
        self.next += 1
        self.open[self.next] = [text, answer, finish, tell, 0]
        return self.next

    def drop(self, number):
        self.open.pop(number, None)

    def step(self):
        time.sleep(self.model.token_s)
        if self.model.batches:
            with open(self.model.batches, "a", encoding="utf-8") as f:
                f.write(f"joint {len(self.open)}\n")
        done = []
        for number, entry in list(self.open.items()):
            text, answer, finish, tell, at = entry
            if at == 3 and "RAISE" in text:
                raise ValueError("the text is in this message")
            if at == 0 and "EARLY" in text:
                raise ValueError("the text is in this message")
            if at == 3 and "KILL" in text:
                os.kill(os.getpid(), signal.SIGKILL)
            if at < len(answer):
                tell(answer[at])
                entry[4] += 1
            if entry[4] >= len(answer):
                done.append((number, Output(text=answer, finish=finish, tokens_in=len(text), tokens_out=len(answer))))
                del self.open[number]
        return done


def heavy(arguments):
    """A ``KnownModel`` that takes memory."""
    model = KnownModel(arguments)
    model.weights = [b"x" * (1 << 20) for _ in range(arguments.get("load_mb", 0))]
    if leak_kb := arguments.get("leak_kb"):
        model.leaked, predict = [], model.predict

        def leaking(texts, *, top_k=1):
            model.leaked += [b"x" * (leak_kb << 10) for _ in texts]
            return predict(texts, top_k=top_k)

        model.predict = leaking
    return model


def replica(arguments):
    """Entry of a replica process around ``KnownModel``, or around a server of others; ``load_mb``: memory it needs, ``leak_kb``: of every text, for ever."""
    if "base_url" in arguments:
        from wenfang.models.families.upstream import Upstream, UpstreamHyper

        model = Upstream(UpstreamHyper(base_url=arguments["base_url"], model="m", retries=0), task=arguments["task"])
    elif "memory_bytes" in arguments:
        serve_within(lambda: heavy(arguments), {"budget_s": 0.05, **arguments})
        return
    else:
        model = heavy(arguments)
    serve(model, {"budget_s": 0.05, **arguments})


def tree(arguments):
    """Entry of a supervisor."""
    supervise(Home(Path(arguments["home"])), [Process(p["name"], p["entry"], p["arguments"], p.get("restart", True)) for p in arguments["processes"]])


def sleeper(arguments):
    """A process that does nothing; writes its pid and, when told to stop, when that was."""
    note = Path(arguments["note"])
    if arguments.get("refuse"):
        raise_refusal()
    if arguments.get("exit") is not None:
        with note.open("a") as f:
            f.write(f"{time.time()}\n")
        os._exit(arguments["exit"])

    def stop(*_):
        if arguments.get("stubborn"):
            return
        with Path(arguments["order"]).open("a") as f:
            f.write(f"{arguments['name']}\n")
        os._exit(0)

    signal.signal(signal.SIGTERM, stop)
    note.write_text(str(os.getpid()))
    print("hello from the sleeper", flush=True)
    while True:
        time.sleep(0.05)


def raise_refusal():
    from wenfang.core.errors import Conflict

    raise Conflict("gateway.port-in-use", host="127.0.0.1", port=1)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def until(condition, timeout_s=20.0, what="condition"):
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError(f"not within {timeout_s} s: {what}")


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


class Tree:
    """A home with a running supervisor."""

    def __init__(self, processes=(), settings=""):
        os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys([str(TESTS), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]))
        self.root = Path(tempfile.mkdtemp(prefix="wf"))
        self.home = Home(self.root).prepare()
        if settings:
            (self.root / "wenfang.toml").write_text(settings)
        self.runtime = LocalRuntime(self.home)
        self.start(processes)

    def start(self, processes):
        (self.home.run / "supervisor.sock").unlink(missing_ok=True)
        self.child = spawn("dataplane:tree", {"home": str(self.root), "processes": list(processes)}, self.root / "logs" / "supervisor.log")
        until(lambda: (self.home.run / "supervisor.sock").exists() or self.child.popen.poll() is not None, what="supervisor")

    def pid(self, name):
        return until(lambda: self.runtime.processes().get(name, {}).get("pid"), what=f"pid of {name}")

    def close(self):
        self.child.close(30.0)
        shutil.rmtree(self.root, ignore_errors=True)


class DataPlane(Tree):
    """A gateway, replicas and a routing table.

    Args:
        models: model id → (version, task, replicas, more arguments of the replica).
        services: service → (project, model id).
        graphs: service → the graph that it answers with instead; its task is that of its model.
        settings: keys of [serve].
    """

    def __init__(self, models=None, services=None, settings=None, gateways=1, graphs=None):
        self.models = models or {"mv_first": ("first:1", "classification", 1, {})}
        self.services = services or {"intent": ("pj_1", next(iter(self.models)))}
        self.graphs = graphs or {}
        self.epoch = 0
        self.rates = {}
        """"key", "service" or "project" → what KEY, every service or pj_1 may ask."""
        self.port = free_port()
        toml = "[serve]\n" + "".join(f"{k} = {json.dumps(v)}\n" for k, v in {"gateways": gateways, "grpc_port": 0, "cache_bytes": 0, **(settings or {})}.items())
        super().__init__((), toml)
        self.write_routes()
        for model in self.models:
            self.start_replicas(model)
        for i in range(gateways):
            self.runtime.ensure(f"gateway-{i}", "wenfang.doors.gateway:main", {"home": str(self.root), "index": i, "host": "127.0.0.1", "port": self.port}, restart=True)
            until(lambda i=i: (self.home.run / f"gateway-{i}.sock").exists() and self.call("stats", i)["port"] and self.call("stats", i)["ready"], what=f"gateway {i}")
        until(lambda: self.get("/readyz")[0] == 200, what="readiness")

    def log(self, name):
        path = self.home.logs / f"{name}.log"
        return path.read_text() if path.exists() else ""

    def start_replicas(self, model):
        version, task, n, more = self.models[model]
        for i in range(n):
            arguments = {
                "socket": str(replica_socket(self.home.run, model, i)),
                "task": task,
                "name": version,
                "supervisor": str(self.home.run / "supervisor.sock"),
                "process": f"replica-{model}-{i}",
                **more,
            }
            self.runtime.ensure(f"replica-{model}-{i}", "dataplane:replica", arguments, restart=True)

    def table(self):
        models = {m: RoutedModel(v, task, [str(replica_socket(self.home.run, m, i)) for i in range(n)]) for m, (v, task, n, _) in self.models.items()}
        keys = {
            sha256_hex(KEY.encode()): Principal("ky_1", ["service:call"], "pj_1", rate=self.rates.get("key")),
            sha256_hex(AUDITOR.encode()): Principal("ky_2", ["audit:read"]),
            sha256_hex(STRANGER.encode()): Principal("ky_3", ["service:call"], "pj_2"),
            sha256_hex(EXPIRED.encode()): Principal("ky_4", ["service:call"], expires_at=time.time() - 60),
        }
        return RoutingTable(
            self.epoch,
            {s: RoutedService(p, m, self.rates.get("service"), graph=f"gr_{s}" if s in self.graphs else "") for s, (p, m) in self.services.items()},
            models,
            keys,
            {"pj_1": r} if (r := self.rates.get("project")) else {},
            {f"gr_{s}": RoutedGraph(f"{s}-graph:1", models[self.services[s][1]].task, [], graph) for s, graph in self.graphs.items()},
        )

    def write_routes(self):
        self.epoch += 1
        write_table(self.home.run / "routes.json", self.table())

    def call(self, name, index=0, **arguments):
        client = FrameClient(self.home.run / f"gateway-{index}.sock", 30.0)
        try:
            return client.call(name, **arguments)
        finally:
            client.close()

    # ------------------------------------------------------------ HTTP
    def ask(self, method, path, body=None, headers=None, key=KEY):
        """(status, headers, body) of one request; status 0: nobody listens."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        given = {**({"Authorization": f"Bearer {key}"} if key else {}), **(headers or {})}
        if isinstance(body, (dict, list)):
            body = json.dumps(body)
            given.setdefault("Content-Type", "application/json")
        try:
            connection.request(method, path, body, given)
            answer = connection.getresponse()
            return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
        except ConnectionRefusedError:
            return 0, {}, b""
        finally:
            connection.close()

    def get(self, path, **more):
        status, _, body = self.ask("GET", path, **more)
        return status, body

    def predict(self, inputs, service="intent", parameters=None, **more):
        """(status, document)."""
        status, _, body = self.ask("POST", f"/predict/{service}", {"inputs": inputs, **({"parameters": parameters} if parameters else {})}, **more)
        return status, json.loads(body)

    def raw(self, data=b"", timeout_s=20.0):
        """A plain socket with ``data`` sent."""
        sock = socket.create_connection(("127.0.0.1", self.port), timeout=timeout_s)
        sock.sendall(data)
        return sock

    def load(self, *, concurrency=16, seconds=None, until_set=None, texts=("今天天气很好",), service="intent"):
        """Statuses (0: connection broke), models that answered and wrong answers of a keep-alive load; stops after ``seconds`` or when ``until_set`` is."""
        return asyncio.run(self._load(concurrency, seconds, until_set, texts, service))

    async def _load(self, concurrency, seconds, until_set, texts, service):
        figures = {"statuses": {}, "models": {}, "wrong": 0, "n": 0}
        end = time.monotonic() + (seconds or 1e9)

        async def worker(w):
            reader = writer = None
            while time.monotonic() < end and not (until_set and until_set.is_set()):
                if writer is None:
                    reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                text = texts[(figures["n"] + w) % len(texts)]
                figures["n"] += 1
                status, document = await post(reader, writer, f"/predict/{service}", {"inputs": [text]})
                figures["statuses"][status] = figures["statuses"].get(status, 0) + 1
                if status == 200:
                    figures["models"][document["model"]] = figures["models"].get(document["model"], 0) + 1
                    figures["wrong"] += not document["outputs"][0]["label"].endswith(text[:1]) or abs(document["outputs"][0]["score"] - 1 / (1 + len(text))) > 1e-6
                else:
                    figures.setdefault("documents", []).append(document)
                if status == 0:
                    writer.close()
                    writer = None
            if writer is not None:
                writer.close()

        await asyncio.gather(*(worker(w) for w in range(concurrency)))
        return figures


async def post(reader, writer, path, document):
    """One POST on an open connection; status 0 when it breaks."""
    body = json.dumps(document).encode()
    try:
        writer.write(
            b"POST %s HTTP/1.1\r\nhost: x\r\nx-api-key: %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (path.encode(), KEY.encode(), len(body), body)
        )
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        return int(head.split()[1]), json.loads(await reader.readexactly(length))
    except (OSError, asyncio.IncompleteReadError) as e:
        return 0, repr(e)


def answer_of(sock):
    """Everything the server says until it closes, split into (status, headers, body) answers."""
    data = b""
    try:
        while piece := sock.recv(1 << 16):
            data += piece
    except ConnectionResetError:
        pass
    finally:
        sock.close()
    return parsed(data)


def parsed(data):
    """The answers in ``data``."""
    answers = []
    while data:
        head, _, data = data.partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        headers = {k.lower(): v for k, _, v in (line.partition(b": ") for line in lines[1:])}
        n = int(headers.get(b"content-length", b"0"))
        answers.append((int(lines[0].split()[1]), headers, data[:n]))
        data = data[n:]
    return answers


__all__ = ["AUDITOR", "EXPIRED", "KEY", "STRANGER", "DataPlane", "Tree", "WenfangError", "alive", "answer_of", "free_port", "parsed", "post", "until"]
