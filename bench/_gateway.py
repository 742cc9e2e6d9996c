"""What the gateway benches stand on: a home with gateway and replica processes, an echo-like model, and a BERT-like ONNX model made by hand."""

import json
import os
import random
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np

from wenfang.core.examples import Output
from wenfang.core.frames import FrameClient
from wenfang.core.home import Home
from wenfang.core.ids import sha256_hex
from wenfang.runtimes.processes import spawn
from wenfang.serve.replica import serve
from wenfang.serve.routing import Principal, RoutedModel, RoutedService, RoutingTable, replica_socket, write_table

HERE = Path(__file__).parent
WORK = HERE.parent / ".bench"
KEY = "wf_bench-key"
LABELS = [f"class{i:02d}" for i in range(15)]
VOCABULARY, LENGTH_MAX, HIDDEN, HEADS, LAYERS, INNER = 8000, 64, 256, 4, 4, 1024


def texts(n=2000, seed=7):
    """Random Chinese strings, log-normal length, mean 32 code points."""
    rng = random.Random(seed)
    return ["".join(chr(rng.randrange(0x4E00, 0x9FA5)) for _ in range(max(4, min(62, int(rng.lognormvariate(3.37, 0.42)))))) for _ in range(n)]


# ------------------------------------------------------------ the model
def write_model(path: Path) -> None:
    """4 layers, hidden 256, 4 heads, inner 1024, vocabulary 8000, 15 classes: 5.2 M parameters, random."""
    from onnx import TensorProto, helper, numpy_helper, save

    rng = np.random.default_rng(7)
    constants, nodes = [], []

    def constant(name, value):
        constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def weight(name, *shape):
        return constant(name, rng.normal(0, 0.05, shape).astype(np.float32))

    def add(op, inputs, output, **attributes):
        nodes.append(helper.make_node(op, inputs, [output], **attributes))
        return output

    def dense(x, name, a, b):
        return add("Add", [add("MatMul", [x, weight(f"{name}.w", a, b)], f"{name}.m"), weight(f"{name}.b", b)], f"{name}.o")

    def norm(x, name):
        return add("LayerNormalization", [x, constant(f"{name}.g", np.ones(HIDDEN, np.float32)), constant(f"{name}.c", np.zeros(HIDDEN, np.float32))], f"{name}.n", axis=-1)

    split, joined = constant("split", np.array([0, 0, HEADS, HIDDEN // HEADS])), constant("joined", np.array([0, 0, HIDDEN]))
    scale = constant("scale", np.float32((HIDDEN // HEADS) ** -0.5))
    tokens = add("Gather", [weight("embedding", VOCABULARY, HIDDEN), "ids"], "tokens")
    length = add("Slice", [add("Shape", ["ids"], "shape"), constant("one", np.array([1])), constant("two", np.array([2]))], "length")
    places = add("Slice", [weight("places", LENGTH_MAX, HIDDEN), constant("zero", np.array([0])), length], "used")
    x = norm(add("Add", [tokens, places], "input"), "n0")
    hole = add("Mul", [add("Sub", [constant("unit", np.float32(1)), add("Cast", ["mask"], "maskf", to=TensorProto.FLOAT)], "inverse"), constant("big", np.float32(-1e4))], "hole")
    hole = add("Unsqueeze", [hole, constant("axes", np.array([1, 2]))], "hole4")
    for i in range(LAYERS):
        parts = {}
        for part, order in (("q", (0, 2, 1, 3)), ("k", (0, 2, 3, 1)), ("v", (0, 2, 1, 3))):
            parts[part] = add("Transpose", [add("Reshape", [dense(x, f"{i}.{part}", HIDDEN, HIDDEN), split], f"{i}.{part}.s")], f"{i}.{part}.t", perm=order)
        scores = add("Add", [add("Mul", [add("MatMul", [parts["q"], parts["k"]], f"{i}.qk"), scale], f"{i}.scaled"), hole], f"{i}.held")
        mixed = add("MatMul", [add("Softmax", [scores], f"{i}.soft", axis=-1), parts["v"]], f"{i}.mix")
        mixed = add("Reshape", [add("Transpose", [mixed], f"{i}.back", perm=(0, 2, 1, 3)), joined], f"{i}.join")
        x = norm(add("Add", [x, dense(mixed, f"{i}.out", HIDDEN, HIDDEN)], f"{i}.r1"), f"{i}.n1")
        inner = dense(x, f"{i}.in", HIDDEN, INNER)
        gate = add("Add", [add("Erf", [add("Mul", [inner, constant(f"{i}.rt", np.float32(0.70710678))], f"{i}.e0")], f"{i}.e1"), "unit"], f"{i}.e2")
        gelu = add("Mul", [add("Mul", [inner, gate], f"{i}.e3"), constant(f"{i}.half", np.float32(0.5))], f"{i}.e4")
        x = norm(add("Add", [x, dense(gelu, f"{i}.down", INNER, HIDDEN)], f"{i}.r2"), f"{i}.n2")
    first = add("Gather", [x, constant("first", np.int64(0))], "cls", axis=1)
    nodes.append(helper.make_node("Identity", [dense(first, "head", HIDDEN, len(LABELS))], ["logits"]))
    shape = ["B", "T"]
    graph = helper.make_graph(
        nodes,
        "bert-like",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, shape), helper.make_tensor_value_info("mask", TensorProto.INT64, shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["B", len(LABELS)])],
        constants,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), str(path))


def model_path() -> Path:
    """The model file, made once."""
    path = WORK / "bert-like.onnx"
    if not path.exists():
        write_model(path)
    return path


class BertLike:
    """The model behind ONNX Runtime: one thread, spinning off, a character tokeniser."""

    task = "classification"
    labels_ = LABELS

    def __init__(self):
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = ort.InferenceSession(str(model_path()), options, providers=["CPUExecutionProvider"])

    def logits(self, batch):
        """B strings → (B, 15)."""
        rows = [[1, *(ord(c) % (VOCABULARY - 3) + 3 for c in text[: LENGTH_MAX - 2]), 2] for text in batch]
        ids = np.zeros((len(rows), max(map(len, rows))), np.int64)
        mask = np.zeros_like(ids)
        for i, row in enumerate(rows):
            ids[i, : len(row)], mask[i, : len(row)] = row, 1
        return self.session.run(None, {"ids": ids, "mask": mask})[0]

    def predict(self, batch, *, top_k=1):
        """One answer for each text."""
        z = self.logits(batch)
        e = np.exp(z - z.max(axis=1, keepdims=True))
        e /= e.sum(axis=1, keepdims=True)
        best = e.argmax(axis=1)
        return [Output(label=LABELS[b], score=float(e[i, b])) for i, b in enumerate(best)]


class Echo:
    """Answers at once: what is left is the gateway's."""

    task = "classification"
    labels_ = LABELS

    def predict(self, batch, *, top_k=1):
        """One constant answer for each text."""
        return [Output(label="class00", score=0.5) for _ in batch]


def replica(arguments):
    """Entry of a replica process."""
    serve(BertLike() if arguments["kind"] == "bert" else Echo(), arguments)


# ------------------------------------------------------------ the processes
class World:
    """A home with one gateway and replicas of one service ``bench``; closed like a file."""

    def __init__(self, kind: str, replicas: int, settings=None):
        os.environ["PYTHONPATH"] = str(HERE.parent)
        self.root = Path(tempfile.mkdtemp(prefix="wfb"))
        home = Home(self.root).prepare()
        (self.root / "wenfang.toml").write_text("[serve]\n" + "".join(f"{k} = {json.dumps(v)}\n" for k, v in (settings or {}).items()))
        sockets = [str(replica_socket(home.run, "mv_bench", i)) for i in range(replicas)]
        start = time.perf_counter()
        self.replicas = [spawn("bench._gateway:replica", {"kind": kind, "socket": s, "name": "bench:1"}, self.root / f"replica{i}.log") for i, s in enumerate(sockets)]
        keys = {sha256_hex(KEY.encode()): Principal("ky", ["service:call"])}
        write_table(home.run / "routes.json", RoutingTable(1, {"bench": RoutedService("pj", "mv_bench")}, {"mv_bench": RoutedModel("bench:1", "classification", sockets)}, keys))
        self.gateway = spawn("wenfang.doors.gateway:main", {"home": str(self.root), "index": 0, "host": "127.0.0.1", "port": 0}, self.root / "gateway.log")
        self.channel = home.run / "gateway-0.sock"
        while True:
            stats = self.stats()
            if stats and stats["port"] and all(p["ready"] == replicas for p in stats["pools"].values()):
                break
            if time.perf_counter() - start > 60 or any(c.popen.poll() is not None for c in (self.gateway, *self.replicas)):
                raise SystemExit("\n".join(p.read_text() for p in self.root.glob("*.log")))
            time.sleep(0.02)
        self.started_s = time.perf_counter() - start
        self.port = stats["port"]

    def stats(self):
        """What the gateway says of itself."""
        if not self.channel.exists():
            return None
        client = FrameClient(self.channel)
        try:
            return client.call("stats")
        finally:
            client.close()

    def cpu_s(self, child) -> float:
        """Processor time of one process so far."""
        fields = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory_bytes(self) -> int:
        """PSS of all its processes."""
        total = 0
        for child in (self.gateway, *self.replicas):
            rollup = Path(f"/proc/{child.pid}/smaps_rollup").read_text()
            total += int(rollup.partition("\nPss:")[2].split()[0]) * 1024
        return total

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for child in (self.gateway, *self.replicas):
            child.close(3.0)
        shutil.rmtree(self.root, ignore_errors=True)
