"""Waiting in front of servers, by formula: what is known exactly (M/M/k) and the usual approximation of the rest (M/G/k). Pure arithmetic."""

from __future__ import annotations

import math

__all__ = ["erlang_c", "wait_mean", "wait_quantile"]


def erlang_c(servers: int, load: float) -> float:
    """Probability that who arrives must wait: Poisson arrivals, exponential service, k servers.

    Args:
        servers: k.
        load: arrivals × mean service, in servers; less than k.

    Source: Erlang 1917; by the recursion of Erlang B, which neither over- nor underflows.

    >>> round(erlang_c(1, 0.5), 6), round(erlang_c(2, 1.0), 6)
    (0.5, 0.333333)
    """
    if load >= servers:
        return 1.0
    blocked = 1.0
    for k in range(1, servers + 1):
        blocked = load * blocked / (k + load * blocked)
    return blocked / (1 - load / servers * (1 - blocked))


def wait_mean(rate: float, service: float, cv2: float, servers: int) -> float:
    """Mean wait before service, in the unit of ``service``; infinite where more comes in than goes out.

    Args:
        rate: arrivals in one unit of time.
        service: mean time of one.
        cv2: squared coefficient of variation of the service time; 1 is exponential, 0 constant.
        servers: k.

    Source: Allen and Cunneen (Allen 1990, section 5.3): the exact wait of M/M/k times (1 + cv²) / 2; exact for k = 1.
    """
    load = rate * service
    if load >= servers:
        return math.inf
    return erlang_c(servers, load) * service / (servers - load) * (1 + cv2) / 2


def wait_quantile(share: float, rate: float, service: float, *, cv2: float, servers: int) -> float:
    """The wait that a share of the arrivals does not exceed, taking the wait of those who wait as exponential (exact for M/M/k).

    >>> round(wait_quantile(0.99, 0.5, 1.0, cv2=1.0, servers=1), 4)
    7.824
    """
    mean = wait_mean(rate, service, cv2, servers)
    if math.isinf(mean):
        return math.inf
    waiting = erlang_c(servers, rate * service)
    if 1 - share >= waiting:
        return 0.0
    return mean / waiting * math.log(waiting / (1 - share))
