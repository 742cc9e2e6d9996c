"""What the gateway benches stand on: a home with gateway and replica processes, and an echo-like model."""

import json
import os
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np

from bench._bert_like import LABELS, BertLike
from wenfang.core.examples import Output
from wenfang.core.frames import FrameClient
from wenfang.core.home import Home
from wenfang.core.ids import sha256_hex
from wenfang.runtimes.processes import spawn
from wenfang.serve.replica import serve
from wenfang.serve.routing import Principal, RoutedModel, RoutedService, RoutingTable, replica_socket, write_table

HERE = Path(__file__).parent
KEY = "wf_bench-key"


class Bert(BertLike):
    """The BERT-like model as a replica wants it."""

    task = "classification"
    labels_ = LABELS

    def predict(self, batch, *, top_k=1):
        """One answer for each text."""
        return [Output(label=label, score=score) for label, score in self.answers(batch)]


class Echo:
    """Answers at once: what is left is the gateway's."""

    task = "classification"
    labels_ = LABELS

    def predict(self, batch, *, top_k=1):
        """One constant answer for each text."""
        return [Output(label="class00", score=0.5) for _ in batch]


class Writer:
    """Writes as many tokens as it may, at once."""

    task = "chat"
    labels_ = ()

    def generate(self, texts, options, *, emit=None):
        """The token ``字`` again and again."""
        n = [o.max_tokens or 32 for o in options]
        for at in range(max(n)):
            for i in range(len(texts)):
                if emit is not None and at < n[i]:
                    emit(i, "字")
        return [Output(text="字" * k, finish="length", tokens_in=len(t), tokens_out=k) for t, k in zip(texts, n, strict=True)]


def small():
    """The ``generator`` family's small decoder, 4 layers of 256 over 4,000 characters, untrained: it writes nonsense at the speed of sense, and never ends early."""
    import torch

    from wenfang.models.families.generator import Generator, GeneratorHyper
    from wenfang.models.generation.alphabet import END, Alphabet
    from wenfang.models.generation.network import Writer as Network
    from wenfang.models.generation.shape import WriterShape
    from wenfang.models.generation.writers import CharWriter

    torch.manual_seed(0)
    alphabet = Alphabet("".join(chr(0x4E00 + i) for i in range(4000)))
    shape = WriterShape(len(alphabet), 4, 0, 256, 8, 1024, 512)
    weights = {name: value.detach().numpy() for name, value in Network(shape).state_dict().items()}
    model = Generator(GeneratorHyper(layers=4, hidden=256, heads=8, ff=1024), task="chat")
    model.writer_ = CharWriter(alphabet, shape, weights, target_max=128)
    model.writer_._speech.mute = np.append(model.writer_._speech.mute, END)  # noqa: SLF001
    return model


def replica(arguments):
    """Entry of a replica process."""
    serve({"bert": Bert, "echo": Echo, "writer": Writer, "small": small}[arguments["kind"]](), arguments)


# ------------------------------------------------------------ the processes
class World:
    """A home with one gateway and replicas of one service ``bench``; closed like a file."""

    def __init__(self, kind: str, replicas: int, settings=None, *, task="classification", entry="bench._gateway:replica", **more):
        os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys([str(HERE.parent), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]))
        self.root = Path(tempfile.mkdtemp(prefix="wfb"))
        home = Home(self.root).prepare()
        (self.root / "wenfang.toml").write_text("[serve]\n" + "".join(f"{k} = {json.dumps(v)}\n" for k, v in {"cache_bytes": 0, "grpc_port": 0, **(settings or {})}.items()))
        sockets = [str(replica_socket(home.run, "mv_bench", i)) for i in range(replicas)]
        start = time.perf_counter()
        self.replicas = [spawn(entry, {"kind": kind, "socket": s, "name": "bench:1", **more}, self.root / f"replica{i}.log") for i, s in enumerate(sockets)]
        keys = {sha256_hex(KEY.encode()): Principal("ky", ["service:call"])}
        write_table(home.run / "routes.json", RoutingTable(1, {"bench": RoutedService("pj", "mv_bench")}, {"mv_bench": RoutedModel("bench:1", task, sockets)}, keys))
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
