"""Processor time of the gateway for one request beyond the model: ``python -m bench gateway_cost``.

Echo-like replicas, key check and metrics on, one short text a request, keep-alive. Gate: at most 0.4 ms at concurrency 16.
"""

import json

from bench import load
from bench._bert_like import texts
from bench._gateway import KEY, World


def main(seconds=4.0, replicas=1):
    requests = [load.request_bytes("/predict/bench", json.dumps({"inputs": [t]}, ensure_ascii=False).encode(), key=KEY) for t in texts(500)]
    infer = [
        load.request_bytes(
            "/v2/models/bench/infer", json.dumps({"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": [t]}]}, ensure_ascii=False).encode(), key=KEY
        )
        for t in texts(500)
    ]
    with World("echo", replicas) as world:
        print(f"{'protocol':10} {'c':>3} {'req/s':>8} {'p50 ms':>7} {'p99 ms':>7} {'gateway CPU ms':>14} {'replica CPU ms':>14} {'client CPU ms':>13}  statuses")
        for name, asked in (("predict", requests), ("inference", infer)):
            for concurrency in (1, 16, 64):
                load.run(world.port, asked, concurrency=concurrency, seconds=0.5, warm_s=0)
                before, before_replicas = world.cpu_s(world.gateway), sum(map(world.cpu_s, world.replicas))
                found = load.run(world.port, asked, concurrency=concurrency, seconds=seconds, warm_s=0)
                n = len(found.latencies_s)
                gateway, model = world.cpu_s(world.gateway) - before, sum(map(world.cpu_s, world.replicas)) - before_replicas
                print(
                    f"{name:10} {concurrency:3} {found.per_s:8.0f} {found.ms(0.5):7.2f} {found.ms(0.99):7.2f} {1000 * gateway / n:14.4f} {1000 * model / n:14.4f} "
                    f"{1000 * found.client_cpu_s / n:13.4f}  {found.statuses}"
                )


if __name__ == "__main__":
    main()
