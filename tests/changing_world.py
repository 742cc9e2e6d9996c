"""A home with model versions that say who they are, and a load over every protocol that counts what came back from whom."""

import asyncio
import json
import os
import signal
import threading
import time

from wenfang.core.examples import Examples
from wenfang.core.home import Home
from wenfang.core.ids import new_id
from wenfang.core.ports import Changes
from wenfang.core.records import ModelVersion
from wenfang.core.settings import Settings
from wenfang.models import families
from wenfang.models.bundle import write_bundle
from wenfang.runtimes.local import LocalRuntime
from wenfang.studio.bundles import store_bundle
from wenfang.studio.wiring import open_in_place
from worlds import wenfang

__all__ = ["Load", "deploy", "processes", "publish", "replicas", "until", "upgrade_under_load"]


def publish(folder, count, *, name="tickets", unsigned=()):
    """``count`` versions of a model in ``folder``, told apart by their numbers; no replica takes those of the numbers ``unsigned``."""
    studio, lock = open_in_place(Home(folder), Settings())
    try:
        for number in range(1, count + 1):
            model = families.get("majority")(task="classification")
            model.fit(Examples("classification", ["好"] * (4 + number), ["yes"] * (3 + number) + ["no"]))
            bundle = studio.home.jobs / f"bundle-{number}"
            info = write_bundle(bundle, model, signer=studio.signer, card={}, lineage={})
            manifest, signature = store_bundle(bundle, studio.blobs)
            if number in unsigned:
                signature = studio.blobs.put(bytes(64))
            version = ModelVersion(
                id=new_id("mv"), project="default", name=name, number=number, family="majority", task="classification", labels=model.labels_,
                bundle=manifest, signature=signature, size_bytes=info.size_bytes,
            )  # fmt: skip
            studio.tables.commit(Changes(puts=[version]))
    finally:
        studio.tables.close()
        lock.release()


def predict_bytes(service, key, text):
    body = json.dumps({"inputs": [text]}).encode()
    return b"POST /predict/%s HTTP/1.1\r\nhost: x\r\nx-api-key: %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (
        service.encode(), key.encode(), len(body), body,
    )  # fmt: skip


def infer_bytes(service, key, text):
    body = json.dumps({"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": [text]}]}).encode()
    return b"POST /v2/models/%s/infer HTTP/1.1\r\nhost: x\r\nx-api-key: %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (
        service.encode(), key.encode(), len(body), body,
    )  # fmt: skip


class Load(threading.Thread):
    """Asks until stopped, over connections that stay open; each answer is kept as (sent at, answered at, protocol, version or "", what went wrong).

    Args:
        port: of the gateway.
        key: of a caller.
        service: asked.
        connections: of each HTTP protocol; gRPC has one.
        grpc_port: 0: no gRPC.
        pause_s: between an answer and the next question of a connection.
        again: a question whose connection breaks is asked once more on a new one; else it counts as failed.
    """

    def __init__(self, port, key, service="tickets", *, connections=4, grpc_port=0, pause_s=0.0, again=False):
        super().__init__(daemon=True)
        self.port, self.key, self.service, self.connections, self.grpc_port, self.pause_s, self.again = port, key, service, connections, grpc_port, pause_s, again
        self.answers = []
        self.asked_again = 0
        self.over = threading.Event()
        self.start()

    def run(self):
        asyncio.run(self._all())

    async def _all(self):
        kinds = [("predict", predict_bytes), ("v2", infer_bytes)]
        work = [self._http(kind, make, i) for kind, make in kinds for i in range(self.connections)]
        await asyncio.gather(*work, *([self._grpc()] if self.grpc_port else []))

    async def _http(self, kind, make, number):
        reader = writer = None
        asked = [make(self.service, self.key, f"好 {number} {i}") for i in range(50)]
        at, second, sent = 0, False, 0.0
        while not self.over.is_set():
            at += 1
            sent = sent if second else time.monotonic()
            try:
                if writer is None:
                    reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                writer.write(asked[at % len(asked)])
                head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)
                low = head.lower()
                document = json.loads(await asyncio.wait_for(reader.readexactly(int(low.partition(b"content-length: ")[2].partition(b"\r\n")[0])), 30))
                status = int(head.split()[1])
                model = document.get("model") or f"{self.service}:{document.get('model_version')}"
                second = False
                self.answers.append((sent, time.monotonic(), kind, model if status == 200 else "", "" if status == 200 else f"{status} {document}"))
                if b"connection: close" in low:
                    writer.close()
                    writer = None
            except (OSError, asyncio.IncompleteReadError, TimeoutError) as e:
                second = self.again and not second
                self.asked_again += second
                if not second:
                    self.answers.append((sent, time.monotonic(), kind, "", repr(e)))
                if writer is not None:
                    writer.close()
                writer = None
            await asyncio.sleep(self.pause_s)
        if writer is not None:
            writer.close()

    async def _grpc(self):
        import grpc
        import grpc.aio

        from wenfang.doors.gateway.rpc.messages import SERVICE, Messages

        m = Messages()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{self.grpc_port}") as channel:
            infer = channel.unary_unary(f"/{SERVICE}/ModelInfer", request_serializer=m.ModelInferRequest.SerializeToString, response_deserializer=m.ModelInferResponse.FromString)
            asked = m.ModelInferRequest(model_name=self.service)
            asked.inputs.add(name="text", datatype="BYTES", shape=[1]).contents.bytes_contents.append("好".encode())
            while not self.over.is_set():
                sent = time.monotonic()
                try:
                    answer = await infer(asked, metadata=(("x-api-key", self.key),), timeout=30)
                    self.answers.append((sent, time.monotonic(), "grpc", f"{answer.model_name}:{answer.model_version}", ""))
                except grpc.aio.AioRpcError as e:
                    self.answers.append((sent, time.monotonic(), "grpc", "", f"{e.code()} {e.details()}"))
                await asyncio.sleep(self.pause_s)

    def stop(self):
        """End it; returns what failed."""
        self.over.set()
        self.join(60)
        return self.failed()

    def failed(self):
        return [a for a in self.answers if a[4]]

    def asked_after(self, moment):
        """Who answered what was sent after ``moment``, by (protocol, version)."""
        return {(a[2], a[3]) for a in self.answers if a[0] > moment}

    def until_asked_after(self, moment, count=40, timeout_s=30):
        """Wait until so many questions sent after ``moment`` are answered."""
        end = time.monotonic() + timeout_s
        while sum(a[0] > moment for a in self.answers[-2000:]) < count:
            assert time.monotonic() < end, "the load stands still"
            time.sleep(0.01)


def deploy(tree, number, **how):
    status, answer, _ = tree.call("POST", "/api/v1/services/deploy", {"service": "tickets", "model_version": f"tickets:{number}", **how}, timeout=120)
    assert status == 200, answer
    return answer


def replicas(tree):
    """Processes of replicas that live, by name."""
    return {n: p for n, p in LocalRuntime(Home(tree.home)).processes().items() if n.startswith("replica-") and p["state"] in {"running", "stopping", "starting"}}


def until(is_so, what, timeout_s=30):
    end = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < end, what
        time.sleep(0.05)


def processes(tree):
    """Pids of what runs, by name."""
    return {n: p["pid"] for n, p in LocalRuntime(Home(tree.home)).processes().items() if p["state"] == "running"}


def upgrade_under_load(tree, load):
    """``wenfang upgrade`` in the middle of a load: every process is new, the tree answers and is watched as before."""
    before = processes(tree)
    load.until_asked_after(time.monotonic())
    wenfang("upgrade", home=tree.home, check=0)
    after = processes(tree)
    assert after.keys() == before.keys()
    assert set(after.values()).isdisjoint(before.values())
    assert tree.process.poll() is None  # the same process in another program
    load.until_asked_after(time.monotonic())
    failed = load.stop()
    assert failed == [], failed[:5]
    deploy(tree, 2)
    os.kill(after["gateway-0"], signal.SIGKILL)  # what it started later is watched, and so is what it adopted
    os.kill(processes(tree)["control"], signal.SIGKILL)
    until(lambda: {"gateway-0", "control"} <= processes(tree).keys() and processes(tree)["gateway-0"] != after["gateway-0"], "both again")
    until(lambda: quiet(tree.call, "GET", "/api/v1/services")[0] == 200, "control")


def quiet(call, *given):
    """The answer; (0,) when nobody listens."""
    try:
        return call(*given)
    except OSError:
        return (0,)
