"""Kills -9 in turn under load: a replica, a gateway, the control process, a job: what failed and how long anybody waited.

BENCH_SECONDS (600), BENCH_EVERY_S (3): one kill every so often. A connection that a killed gateway took with it is opened again and its
question asked once more, as every load balancer and client library does; a question that then is not answered has failed.
"""

import itertools
import os
import signal
import time

from bench._live_tree import Load, deploy, number, processes, studio
from wenfang.core.frames import FrameClient

KINDS = ("replica", "gateway", "control", "job")


def main():
    """Print the figures."""
    seconds, every_s = number("BENCH_SECONDS", 600), number("BENCH_EVERY_S", 3)
    settings = {"serve": {"gateways": 2, "replicas": 2, "cache_bytes": 0}, "jobs": {"attempts": 10}}
    with studio(versions=1, settings=settings) as tree:
        deploy(tree, 1)
        rows = tree.home.parent / "rows.jsonl"
        rows.write_text("".join(f'{{"text": "好 {i}"}}\n' for i in range(200_000)))
        load = Load(tree.port, tree.KEY, connections=8, again=True)
        until, kills, recovered = time.monotonic() + seconds, dict.fromkeys(KINDS, 0), {kind: [] for kind in KINDS}
        for kind in itertools.cycle(KINDS):
            if time.monotonic() > until:
                break
            if kind == "job" and not any(n.startswith("job-") for n in processes(tree)):
                tree.call("POST", "/api/v1/services/tickets/batch", {"file": str(rows), "output": str(rows.with_suffix(f".{kills['job']}.out.jsonl"))})
                time.sleep(1.0)
            names = sorted(n for n in processes(tree) if n.startswith(kind))
            if not names:
                continue
            name = names[kills[kind] % len(names)]
            began, pid = time.monotonic(), processes(tree)[name]
            os.kill(pid, signal.SIGKILL)
            kills[kind] += 1
            while time.monotonic() - began < 30 and not back(tree, name, pid):
                time.sleep(0.02)
            recovered[kind].append(time.monotonic() - began)
            time.sleep(max(0.0, every_s - (time.monotonic() - began)))
        failed = load.stop()
    print(f"{seconds} s, {len(load.answers)} requests over predict and v2, {load.asked_again} asked again after their connection broke: {len(failed)} failed")
    for _, _, kind, _, what in failed[:5]:
        print(f"  {kind}: {what[:200]}")
    for kind in KINDS:
        if kills[kind]:
            print(
                f"  {kind:8} killed {kills[kind]:3} times; answers again after {max(recovered[kind]):.2f} s at most, {sorted(recovered[kind])[len(recovered[kind]) // 2]:.2f} s in the middle"
            )
    print(f"  longest wait of a request {1000 * max(a[1] - a[0] for a in load.answers):.0f} ms")
    return len(failed)


def back(tree, name, pid):
    """Whether the process has a successor that answers."""
    now = processes(tree).get(name)
    if now in {None, pid}:
        return name.startswith("job-") and not any(n.startswith("job-") for n in processes(tree))
    if name == "control":
        return tree.call("GET", "/control/alive")[0] == 200
    if name.startswith("gateway"):
        return stats(tree, name).get("ready", False)
    if name.startswith("replica"):
        return all(pool["ready"] == pool["replicas"] for pool in stats(tree, "gateway-0").get("pools", {}).values())
    return True


def stats(tree, gateway):
    """What a gateway says of itself; nothing if it does not answer."""
    try:
        client = FrameClient(tree.home / "run" / f"{gateway}.sock", 2.0)
        try:
            found = client.call("stats")
            return found if found["port"] else {}
        finally:
            client.close()
    except Exception:  # noqa: BLE001 it is being started
        return {}


if __name__ == "__main__":
    main()
