"""A home with a model whose service follows its load, and callers that count what went wrong."""

import asyncio
import json
import threading
import time

from wenfang.core.examples import Examples
from wenfang.core.home import Home
from wenfang.core.ids import new_id
from wenfang.core.ports import Changes
from wenfang.core.records import ModelVersion, Pointer, Service
from wenfang.core.scaling import Scaling
from wenfang.core.settings import Settings
from wenfang.models import families
from wenfang.models.bundle import write_bundle
from wenfang.runtimes.local import LocalRuntime
from wenfang.studio.bundles import store_bundle
from wenfang.studio.wiring import open_in_place
from worlds import separable


def publish(folder, scaling, *, name="tickets", family="linear", model=None):
    """A service whose model version is there before any process is."""
    studio, lock = open_in_place(Home(folder), Settings())
    try:
        if model is None:
            model = families.get(family)(task="classification")
            texts, labels = zip(*separable(60), strict=True)
            model.fit(Examples("classification", list(texts), list(labels)))
        bundle = studio.home.jobs / "bundle"
        info = write_bundle(bundle, model, signer=studio.signer, card={}, lineage={})
        manifest, signature = store_bundle(bundle, studio.blobs)
        version = ModelVersion(
            id=new_id("mv"), project="default", name=name, number=1, family=family, task="classification", labels=model.labels_,
            bundle=manifest, signature=signature, size_bytes=info.size_bytes,
        )  # fmt: skip
        service = Service(id=new_id("sv"), project="default", name=name, replicas=1, scaling=Scaling.model_validate(scaling))
        studio.tables.commit(Changes(puts=[version, service], pointers=[Pointer(kind="service", key=service.id, target=version.id)]))
        return version.id
    finally:
        studio.tables.close()
        lock.release()


def replicas(home):
    """Processes of replicas that run."""
    return {n: p["pid"] for n, p in LocalRuntime(Home(home)).processes().items() if n.startswith("replica-") and p["state"] == "running"}


def until(what, timeout_s=60.0):
    """Wait for something to be true; returns it."""
    end = time.monotonic() + timeout_s
    while not (found := what()):
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.05)
    return found


class Callers(threading.Thread):
    """Ask one text each, again and again, until stopped; statuses are counted and waits kept."""

    def __init__(self, port, key, service="tickets", *, n=4, pause_s=0.0):
        super().__init__(daemon=True)
        self.port, self.key, self.service, self.n, self.pause_s = port, key, service, n, pause_s
        self.statuses, self.waits_s = {}, []
        self.over = threading.Event()
        self.start()

    def run(self):
        asyncio.run(self._all())

    async def _all(self):
        await asyncio.gather(*(self._one(i) for i in range(self.n)))

    async def _one(self, number):
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        at = 0
        while not self.over.is_set():
            at += 1
            body = json.dumps({"inputs": [f"退款什么时候到账 {number} {at}"]}).encode()
            start = time.monotonic()
            head = b"POST /predict/%s HTTP/1.1\r\nhost: x\r\nx-api-key: %s\r\ncontent-length: %d\r\n\r\n" % (self.service.encode(), self.key.encode(), len(body))
            writer.write(head + body)
            answer = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(answer.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]))
            status = int(answer.split()[1])
            self.statuses[status] = self.statuses.get(status, 0) + 1
            self.waits_s.append(time.monotonic() - start)
            await asyncio.sleep(self.pause_s)
        writer.close()

    def stop(self):
        self.over.set()
        self.join(30)
        return self.statuses
