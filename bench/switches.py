"""Version switches under load: how many of how many requests failed, how long a switch and a warm rollback take, what memory does.

BENCH_SWITCHES (100), BENCH_REQUESTS (50000 at least), BENCH_PAUSE_MS (between switches, 0).
"""

import statistics
import time

from bench._live_tree import Load, deploy, memory_bytes, number, processes, studio


def main():
    """Print the figures."""
    switches, requests, pause_s = number("BENCH_SWITCHES", 100), number("BENCH_REQUESTS", 50_000), number("BENCH_PAUSE_MS", 0) / 1000
    settings = {"serve": {"gateways": 2, "replicas": 1, "cache_bytes": 0}}
    strategies = ("surge", "rolling", "blue-green")
    took = {strategy: [] for strategy in (*strategies, "warm rollback")}
    stale, memory = 0, []
    with studio(versions=4, settings=settings) as tree:
        deploy(tree, 1)
        load = Load(tree.port, tree.KEY, connections=8, grpc_port=int(tree.env["WENFANG_SERVE__GRPC_PORT"]))
        present, newest, at, turn = 1, 1, 0, 0
        while at < switches or len(load.answers) < requests:
            strategy, turn = strategies[turn % 3], turn + 1
            present = newest = newest % 4 + 1  # never the one that is warm
            moments = [(time.monotonic(), strategy, present)]
            deploy(tree, present, strategy=strategy, **({} if strategy == "rolling" else {"keep_warm_s": 5.0 if strategy == "blue-green" else 0.0}))
            moments.append((time.monotonic(), "", present))
            took[strategy].append(moments[1][0] - moments[0][0])
            at += 1
            time.sleep(0.05 + pause_s)
            stale += wrong(load, moments[1][0], time.monotonic(), f"tickets:{present}")
            if strategy == "blue-green":
                began = time.monotonic()
                status, answer, _ = tree.call("POST", "/api/v1/services/tickets/rollback", {})
                ended = time.monotonic()
                took["warm rollback"].append(ended - began)
                present = int(answer["model"].rpartition(":")[2]) if status == 200 else present
                at += 1
                time.sleep(0.05)
                stale += wrong(load, ended, time.monotonic(), f"tickets:{present}")
            if at % 10 < 2:
                pids = processes(tree)
                memory.append([sum(memory_bytes(pid) for name, pid in pids.items() if name.startswith(kind)) / 1e6 for kind in ("gateway", "control")])
        failed = load.stop()
    print(f"{at} switches, {len(load.answers)} requests over predict, v2 and gRPC: {len(failed)} failed, {stale} answered by the version before after the answer")
    for _, _, kind, _, what in failed[:5]:
        print(f"  {kind}: {what[:200]}")
    for name, seconds in took.items():
        if seconds:
            print(f"  {name:14} median {1000 * statistics.median(seconds):6.0f} ms, longest {1000 * max(seconds):6.0f} ms, of {len(seconds)}")
    print(f"  longest wait of a request {1000 * max(a[1] - a[0] for a in load.answers):.0f} ms")
    fifth = max(1, len(memory) // 5)
    for i, kind in enumerate(("gateways", "control")):
        early, late = (statistics.median([m[i] for m in part]) for part in (memory[fifth : 2 * fifth] or memory, memory[-fifth:]))
        print(f"  memory of {kind}: {early:.1f} MB after a fifth, {late:.1f} MB at the end")
    return len(failed), stale


def wrong(load, since, until, version):
    """Answers to questions sent in between by another version."""
    return sum(1 for a in load.answers[-5000:] if since < a[0] < until and a[3] not in {"", version})


if __name__ == "__main__":
    main()
