"""Three times more than it can answer: ``python -m bench overload``. Goodput beside the peak, p99 of what was accepted beside the p99 where 95 % of the peak begins.

First closed loops of rising concurrency find peak and knee; then requests arrive at random times, whatever is answered (an open loop),
at three times the peak. What is refused says 429 at once and counts as nothing.
"""

import asyncio
import json
import random
import statistics
import time

import uvloop

from bench import load
from bench._bert_like import texts
from bench._gateway import KEY, World


class _Arrivals:
    """An open loop over as many keep-alive connections as are busy at once."""

    def __init__(self, port, requests):
        self.port, self.requests = port, requests
        self.idle, self.waits_s, self.statuses = [], {}, {}

    async def _one(self, data):
        start = time.perf_counter()
        reader, writer = self.idle.pop() if self.idle else await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(data)
        head = await reader.readuntil(b"\r\n\r\n")
        at = head.lower().find(b"content-length:")
        await reader.readexactly(int(head[at + 15 : head.find(b"\r", at)]))
        self.idle.append((reader, writer))
        status = int(head[9:12])
        self.statuses[status] = self.statuses.get(status, 0) + 1
        self.waits_s.setdefault(status, []).append(time.perf_counter() - start)

    async def run(self, per_s, seconds, settle_s):
        """Statuses and waits after the first ``settle_s``."""
        rng, tasks = random.Random(5), set()
        begun = at = time.perf_counter()
        counted = begun + settle_s
        while at < begun + settle_s + seconds:
            at += rng.expovariate(per_s)
            if (wait_s := at - time.perf_counter()) > 0:
                await asyncio.sleep(wait_s)
            if counted and time.perf_counter() >= counted:
                counted = 0
                self.statuses.clear()
                self.waits_s.clear()
            task = asyncio.ensure_future(self._one(rng.choice(self.requests)))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        found = dict(self.statuses), {k: list(v) for k, v in self.waits_s.items()}
        await asyncio.gather(*tasks)
        for _, writer in self.idle:
            writer.close()
        return found


def main(seconds=6.0, times=3.0, replicas=2):
    batch = texts()
    requests = [load.request_bytes("/predict/bench", json.dumps({"inputs": [t]}, ensure_ascii=False).encode(), key=KEY) for t in batch]
    with World("bert", replicas) as world:
        load.run(world.port, requests, concurrency=16, seconds=2.0, warm_s=0)
        rows = []
        for concurrency in (8, 16, 24, 32, 48, 64):
            found = load.run(world.port, requests, concurrency=concurrency, seconds=seconds, warm_s=0)
            rows.append((concurrency, found.per_s, found.ms(0.99)))
            print(f"closed, c={concurrency:<3} {found.per_s:7.1f}/s  p99 {found.ms(0.99):6.1f} ms  {found.statuses}", flush=True)
        peak = max(per_s for _, per_s, _ in rows)
        knee = next(row for row in rows if row[1] >= 0.95 * peak)
        print(f"peak {peak:.1f}/s; 95 % of it from c={knee[0]}, p99 {knee[2]:.1f} ms")
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            statuses, waits = runner.run(_Arrivals(world.port, requests).run(times * peak, 2 * seconds, 2.0))
        goodput = statuses.get(200, 0) / (2 * seconds)
        ordered = sorted(waits.get(200, [0.0]))
        p99 = 1000 * ordered[int(0.99 * len(ordered))]
        refused = sorted(waits.get(429, [0.0]))
        print(f"open, {times:g} x peak: {statuses}")
        print(
            f"goodput {goodput:.1f}/s = {goodput / peak:.2f} of peak; accepted p50 {1000 * statistics.median(ordered):.1f} p99 {p99:.1f} ms = {p99 / knee[2]:.2f} of the knee's; refusals p50 {1000 * statistics.median(refused):.1f} ms"
        )
        print(world.stats()["pools"]["mv_bench"])


if __name__ == "__main__":
    main()
