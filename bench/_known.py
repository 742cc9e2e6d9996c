"""What ``answers`` and ``soak`` stand on: a served model whose answer to each of its texts is known beforehand, and a load that looks at every answer."""

import asyncio
import json
import random
import time
from pathlib import Path

import uvloop

from bench import load
from bench._gateway import KEY, World

TOLERANCE = 1e-4
CHARACTERS = "的一是不了人我在有他这中大来上国个到说们为子和你地出道也时年得就那要下以生会自着去之过家学对可里后小么心多天而能好都然没日于起还发成事只作当想看文无开手十用主行方又如前所本见经头面公同三已老从动两长知民样现分将外但身些与高意进把法此实回二理美点月明其种声全工己话儿者向情部正名定女问力机给等几很业最间新什打便位因重被走电四第门相次东政海口使教西再平真听世气信北少关并内加化由却代军产入先山五太水万市眼体别处总才场师书比住员九笑性通目华报立马命张活难神数件安表原车白应路期叫死常提感金何更反合放做系计或司利受光王果亲界及今京务制解各任至清物台象记边共风战干接它许八特觉望直服毛林题建南度统色字请交爱让认算论百吃义科怎元社术结六功指思非流每青管夫连远资队跟带花快条院变联言权往展该领传近留红治决周保达办运武半候七必城父强步完革深区即求品士转量空甚众技轻程告江语英基派满式李息写呢识极令黄德收脸钱党倒未持取设始版双历越史商千片容研像找友孩站广改议形委早房音火际则首单据导影失拿网香似斯专石若兵弟谁校读志飞观争究包组造落视济喜离虽坏兴切片"


def texts_of(n, seed=7, least=4, most=40):
    """``n`` different texts of common characters."""
    rng = random.Random(seed)
    found = {}
    while len(found) < n:
        found["".join(rng.choices(CHARACTERS, k=rng.randint(least, most)))] = None
    return list(found)


def trained(kind, labels=12):
    """A small model of random texts: what it learns does not matter, that its answers differ does."""
    from wenfang.core.examples import Examples
    from wenfang.models import families

    rng = random.Random(3)
    texts = texts_of(1200, seed=1)
    train = Examples("classification", texts, [f"类{rng.randrange(labels):02}" for _ in texts])
    if kind == "linear":
        return families.get("linear")(task="classification", seed=1).fit(train)
    small = {
        "hidden": 64,
        "heads": 4,
        "ff": 128,
        "layers": 2,
        "ngram_buckets": 256,
        "min_count": 1,
        "learning_rate": 0.003,
        "threads": 1,
        "width": "fp32",
        "precision": "fp32",
        "epochs": 2,
    }
    family = families.get("transformer")
    return family(family.Hyper(**small), task="classification", seed=1).fit(train, train.take(range(100)))


class KnownWorld(World):
    """A gateway and replicas of one model; ``requests`` and ``known`` go together.

    Args:
        kind: linear, transformer.
        replicas: processes.
        n: different texts.
        settings: of [serve]; on a busy machine 64 connections are an overload, and nothing shall be refused for it.
    """

    def __init__(self, kind, replicas=1, n=2000, settings=None):
        import tempfile

        from wenfang.guard.keys import Ed25519Signer
        from wenfang.models.bundle import write_bundle

        self.spare = tempfile.TemporaryDirectory(prefix="wfk")
        folder = Path(self.spare.name)
        model = trained(kind)
        write_bundle(folder / "bundle", model, signer=Ed25519Signer(folder / "keys"), card={}, lineage={})
        self.texts = texts_of(n)
        self.known = [(o.label, o.score) for text in self.texts for o in model.predict([text])]  # each alone: never in company
        self.requests = [load.request_bytes("/predict/bench", json.dumps({"inputs": [t]}, ensure_ascii=False).encode(), key=KEY) for t in self.texts]
        more = {"bundle": str(folder / "bundle"), "keys": str(folder / "keys"), "batch_max": 8}
        super().__init__(kind, replicas, {"wait_s": 0.0, **(settings or {})}, entry="wenfang.serve.replica:main", **more)

    def __exit__(self, *_):
        super().__exit__()
        self.spare.cleanup()

    def ask(self, n, concurrency=64, every=None, look=lambda done: None):
        """``n`` requests; returns what was found. ``look(done)`` is called after each ``every``."""
        found = {"requests": 0, "mismatches": [], "statuses": {}, "largest": 0.0, "seconds": 0.0}

        async def run():
            loop = asyncio.get_running_loop()
            start = time.perf_counter()
            state = {"left": n, "at": 0}
            done = [loop.create_future() for _ in range(concurrency)]
            for d in done:
                await loop.create_connection(lambda d=d: _Checker(self, state, found, d, every, look), "127.0.0.1", self.port)
            await asyncio.gather(*done)
            found["seconds"] = time.perf_counter() - start

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run())
        return found


class _Checker(asyncio.Protocol):
    """Asks, and compares each answer with the one that was known."""

    def __init__(self, world, state, found, done, every, look):
        self.world, self.state, self.found, self.done, self.every, self.look = world, state, found, done, every, look
        self.inbox = b""

    def connection_made(self, transport):
        self.transport = transport
        self.ask()

    def ask(self):
        state = self.state
        if not state["left"]:
            self.transport.close()
            return
        state["left"] -= 1
        state["at"] = (state["at"] * 48271 + 11) % 2147483647  # no order that batches could repeat
        self.which = state["at"] % len(self.world.requests)
        self.transport.write(self.world.requests[self.which])

    def data_received(self, data):
        self.inbox += data
        end = self.inbox.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self.inbox[:end].lower()
        at = head.find(b"content-length:")
        stop = head.find(b"\r", at)
        size = int(head[at + 15 : stop if stop > 0 else None])
        if len(self.inbox) < end + 4 + size:
            return
        status, body = int(self.inbox[9:12]), self.inbox[end + 4 : end + 4 + size]
        self.inbox = b""
        found = self.found
        found["requests"] += 1
        found["statuses"][status] = found["statuses"].get(status, 0) + 1
        if status == 200:
            (answer,) = json.loads(body)["outputs"]
            label, score = self.world.known[self.which]
            off = abs(answer["score"] - score)
            found["largest"] = max(found["largest"], off if answer["label"] == label else 1.0)
            if answer["label"] != label or off > TOLERANCE:
                found["mismatches"].append((self.world.texts[self.which], (label, score), answer))
        if self.every and found["requests"] % self.every == 0:
            self.look(found["requests"])
        self.ask()

    def connection_lost(self, exc):
        if exc is not None:
            self.found["statuses"][0] = self.found["statuses"].get(0, 0) + 1
        if not self.done.done():
            self.done.set_result(None)
