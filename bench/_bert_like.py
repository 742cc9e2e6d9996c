"""A BERT-like ONNX classifier made by hand, random weights: for speed only. Needs numpy, onnxruntime and (once, to write it) onnx."""

import random
from pathlib import Path

import numpy as np

WORK = Path(__file__).parent.parent / ".bench"
LABELS = [f"class{i:02d}" for i in range(15)]
VOCABULARY, LENGTH_MAX, HIDDEN, HEADS, LAYERS, INNER = 8000, 64, 256, 4, 4, 1024


def texts(n=2000, seed=7):
    """Random Chinese strings, log-normal length, mean 32 code points."""
    rng = random.Random(seed)
    return ["".join(chr(rng.randrange(0x4E00, 0x9FA5)) for _ in range(max(4, min(62, int(rng.lognormvariate(3.37, 0.42)))))) for _ in range(n)]


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

    def answers(self, batch):
        """B strings → B pairs of label and score."""
        z = self.logits(batch)
        e = np.exp(z - z.max(axis=1, keepdims=True))
        e /= e.sum(axis=1, keepdims=True)
        best = e.argmax(axis=1)
        return [(LABELS[b], float(e[i, b])) for i, b in enumerate(best)]
