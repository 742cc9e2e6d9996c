"""The same question answered without a simulation: M/G/k with batches at their mean size. Kept to be compared with; the plan does not use it."""

from __future__ import annotations

import statistics

from wenfang.stats.queueing import wait_mean, wait_quantile

from .simulate import Policy, Traffic
from .times import HostModel, ServiceTimes

__all__ = ["by_formula"]


def by_formula(times: ServiceTimes, host: HostModel, traffic: Traffic, *, policy: Policy, share: float) -> float:
    """A quantile of the response time in milliseconds; infinite where the formula sees no end of the queue.

    The mean batch is the fixed point of "what waits for one replica goes together". The cores are shared in proportion.

    Source: Allen and Cunneen's approximation, see ``stats.queueing``.
    """
    per_ms = traffic.rate_per_s * traffic.texts_each / 1000
    lengths = sorted(traffic.lengths)
    scatter = [r * times.batch_ms([n]) for n in lengths[:: max(1, len(lengths) // 40)] for r in times.spread[:: max(1, len(times.spread) // 200)]]
    cv2 = statistics.pvariance(scatter) / statistics.fmean(scatter) ** 2
    mean_length = round(statistics.fmean(lengths))
    gateway_ms = host.request_ms + host.batch_ms
    demand = min(1.0, per_ms * times.batch_ms([mean_length]) / policy.replicas) * policy.replicas * times.cpu_share + per_ms * (gateway_ms + host.client_ms)
    speed = host.speed(max(1.0, demand))
    batch, each = 1.0, 0.0
    for _ in range(50):
        low = int(batch)
        cost = times.batch_ms([mean_length] * low)
        cost += (batch - low) * (times.batch_ms([mean_length] * (low + 1)) - cost)
        each = cost / batch / speed
        wait = wait_mean(per_ms, each, cv2, policy.replicas)
        grown = policy.curve.batch_max if wait == float("inf") else 1 + per_ms * wait / policy.replicas
        batch = 0.5 * batch + 0.5 * max(1.0, min(float(policy.curve.batch_max), grown))
    waits = wait_quantile(share, per_ms, each, cv2=cv2, servers=policy.replicas)
    own = sorted(scatter)[int(share * (len(scatter) - 1))] / speed  # of who meets nobody
    return max(own, waits + batch * each) + gateway_ms + host.client_ms + host.path_ms
