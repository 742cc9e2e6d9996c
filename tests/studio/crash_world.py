"""Runs one act again and again, killing itself at every (or every n-th) counted point, and looks at what is left. Run by test_crash_points.py.

Everything heavy is imported once; each attempt is a fork of its own over a copy of the same home, so hundreds of crashes take seconds.
Prints one JSON line: {"points": …, "faults": […], "acknowledged": …}.
"""

import json
import os
import shutil
import signal
import sys
from pathlib import Path

import wenfang.core.durable as durable
from wenfang.core.examples import Examples
from wenfang.core.home import Home
from wenfang.core.ids import new_id
from wenfang.core.ports import Changes, Quiet
from wenfang.core.records import Dataset, DatasetVersion, ModelVersion, Service
from wenfang.core.settings import Settings
from wenfang.data.importing import import_splits  # noqa: F401 imported before the forks
from wenfang.data.version import load_examples
from wenfang.guard.roles import LOCAL
from wenfang.models import families
from wenfang.models.bundle import open_bundle, write_bundle
from wenfang.serve.routing import RoutingTable, read_table, write_table
from wenfang.studio import operations
from wenfang.studio.bundles import store_bundle, unpack_bundle
from wenfang.studio.wiring import open_in_place

OPS = operations()
ROWS = [(f"退款什么时候到账 {i}", "退款") if i % 2 else (f"快递到哪里了 {i}", "物流") for i in range(40)]


def run(studio, operation, /, **fields):
    op = OPS[operation]
    return studio.run(op, LOCAL, op.request.model_validate(fields), progress=Quiet())


def publish(studio, label="a"):
    """What the end of a selection does: a signed bundle, its blobs, its record, the champion pointer."""
    model = families.get("majority")(task="classification")
    model.fit(Examples("classification", [t for t, _ in ROWS], [label + y for _, y in ROWS]))
    folder = studio.home.jobs / f"bundle-{label}"
    shutil.rmtree(folder, ignore_errors=True)
    info = write_bundle(folder, model, signer=studio.signer, card={}, lineage={})
    manifest, signature = store_bundle(folder, studio.blobs)
    number = 1 + max((m.number for m in studio.find(ModelVersion, name="tickets")), default=0)
    version = ModelVersion(
        id=new_id("mv"),
        project="default",
        name="tickets",
        number=number,
        family="majority",
        task="classification",
        labels=model.labels_,
        bundle=manifest,
        signature=signature,
        size_bytes=info.size_bytes,
    )
    studio.tables.commit(Changes(puts=[version]))
    return version


def act_import(studio, home):
    run(studio, "dataset.import", train=str(home.root.parent / "tickets.csv"), name="tickets")


def act_publish(studio, home):
    publish(studio, "b")


def act_switch(studio, home):
    run(studio, "service.deploy", service="tickets", model_version="tickets:2", allow_breaking=True)  # its labels are others, to be told apart
    table = read_table(home.run / "routes.json")
    write_table(home.run / "routes.json", RoutingTable(epoch=table.epoch + 1))


def check(studio, home, act, acknowledged):
    """Faults: anything half, anything acknowledged that is gone."""
    faults = []
    if not run(studio, "audit.verify").ok:
        faults.append("audit chain broken")
    versions = studio.find(DatasetVersion)
    for version in versions:
        if len(load_examples(version.manifest, studio.blobs)) != len(ROWS) or studio.tables.get(Dataset, version.dataset) is None:
            faults.append("half a dataset version")
    models = studio.find(ModelVersion)
    for model in models:
        open_bundle(unpack_bundle(model, studio.blobs, home.cache), verifier=studio.verifier)
    service = studio.find(Service)[0]
    target = studio.tables.pointer("service", service.id).target
    if target not in {m.id for m in models}:
        faults.append("service points nowhere")
    epoch = read_table(home.run / "routes.json").epoch
    if acknowledged:
        there = {"import": len(versions) == 1, "publish": len(models) == 3, "switch": next(m for m in models if m.id == target).number == 2 and epoch == 2}
        if not there[act]:
            faults.append(f"acknowledged {act} lost")
    elif act == "switch" and epoch not in {1, 2}:
        faults.append(f"epoch {epoch}")
    ACTS[act](studio, home)  # and it can be done again
    return faults


ACTS = {"import": act_import, "publish": act_publish, "switch": act_switch}


def forked(home, work):
    """Run ``work(studio)`` in a fork; returns (how it ended, what it wrote to the pipe)."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        code = 1
        try:
            studio, lock = open_in_place(home, Settings())
            os.write(writing, (json.dumps(work(studio)) + "\n").encode())
            studio.tables.close()
            lock.release()
            code = 0
        except BaseException as e:  # noqa: BLE001 the parent is told
            os.write(writing, (json.dumps([f"{type(e).__name__}: {e}"]) + "\n").encode())
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading) as f:
        text = f.read()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), text


def main(folder, act, every="1"):
    folder, every = Path(folder), int(every)
    base = Home(folder / "base")

    def prepare(studio):
        publish(studio)
        publish(studio, "c")
        run(studio, "service.deploy", service="tickets", model_version="tickets:1")
        write_table(base.run / "routes.json", RoutingTable(epoch=1))
        return []

    code, said = forked(base, prepare)
    assert code == 0, said
    log = folder / "points"

    def attempt(home, at):
        def work(studio):
            durable._count = 0
            os.environ["WENFANG_CRASH_LOG"] = str(log)
            if at is not None:
                os.environ["WENFANG_CRASH_AT"] = str(at)
            ACTS[act](studio, home)
            return ["acknowledged"]

        return forked(home, work)

    scratch = Home(folder / "scratch")
    shutil.copytree(base.root, scratch.root)
    code, said = attempt(scratch, None)
    assert code == 0, said
    points = log.read_text().splitlines()
    faults, acknowledged = [], 0
    ahead = sorted({*range(1, len(points) + 2, every), len(points), len(points) + 1})
    while ahead:
        at = ahead.pop(0)
        home = Home(folder / "h")
        shutil.rmtree(home.root, ignore_errors=True)
        shutil.copytree(base.root, home.root)
        code, said = attempt(home, at)
        told = "acknowledged" in said
        acknowledged += told
        if at > len(points) and code == -signal.SIGKILL and at < len(points) + 8:
            ahead.append(at + 1)  # a signature's blob may want a folder of its own: there was one point more this time
        elif code != (0 if at > len(points) else -signal.SIGKILL):
            faults.append(f"point {at}: ended with {code}: {said}")
        code, said = forked(home, lambda studio, home=home, told=told: check(studio, home, act, told))
        found = json.loads(said)
        faults += [f"point {at} ({points[at - 1] if at <= len(points) else 'none'}): {x}" for x in found]
    print(json.dumps({"points": len(points), "faults": faults, "acknowledged": acknowledged}, ensure_ascii=False))


if __name__ == "__main__":
    main(*sys.argv[1:])
