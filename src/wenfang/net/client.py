"""JSON over HTTP to one server: time-outs, retries with jitter, a breaker, server-sent events; never follows a redirect.

Knows nothing of what the server does. What it is sent and answers never stands in an error.
"""

from __future__ import annotations

import ipaddress
import math
import random
import socket
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from wenfang.core.errors import Broken, Busy, Denied, Invalid
from wenfang.core.trace import Trace

from .breaker import Breaker

if TYPE_CHECKING:
    import httpx

__all__ = ["Client", "check_address"]

AGAIN = frozenset({408, 429, 500, 502, 503, 504})
WAIT_MAX_S = 10.0


def check_address(url: str, *, private: bool = False) -> None:
    """Whether ``url`` may be asked.

    Args:
        url: http or https, without user and password.
        private: an administrator named this very address: it may be of this machine or network.

    Raises:
        Invalid: `net.bad-url`.
        Denied: `net.address-refused`: it leads to this machine, this network or nowhere.
        Busy: `net.unreachable`: its name is not known.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as e:
        raise Invalid("net.bad-url", reason=str(e)) from e
    if parts.scheme not in {"http", "https"} or not host:
        raise Invalid("net.bad-url", reason="it must begin with http:// or https:// and name a host")
    if parts.username is not None or parts.password is not None:
        raise Invalid("net.bad-url", reason="a user or password does not belong there")
    if private:
        return
    try:
        found = socket.getaddrinfo(host, port or 443, type=socket.SOCK_STREAM)
    except OSError as e:
        raise Busy("net.unreachable", host=host, reason="its name is not known", retry_after_s=30.0) from e
    for *_, address in found:
        if not ipaddress.ip_address(str(address[0]).partition("%")[0]).is_global:
            raise Denied("net.address-refused", host=host)


class Client:
    """Thread-safe; one for each server.

    Args:
        base_url: everything asked lies under it; must have been named by an administrator, or ``private`` is False.
        headers: of every request.
        timeout_s: for connecting, and for each silence.
        retries: after the first attempt, of what failed without an answer or with one that says "later".
        private: see ``check_address``.
        proxy: of this client; the environment's is not looked at.

    Raises:
        Invalid, Denied, Busy: as ``check_address``.
    """

    def __init__(
        self, base_url: str, *, headers: Mapping[str, str] | None = None, timeout_s: float = 30.0, retries: int = 2, private: bool = False, proxy: str | None = None
    ) -> None:
        import httpx

        check_address(base_url, private=private)
        self.host = urlsplit(base_url).netloc
        self.retries = retries
        self.timeout_s = timeout_s
        self.breaker = Breaker()
        self._base = base_url.rstrip("/")
        self._http = httpx.Client(headers=dict(headers or {}), timeout=timeout_s, proxy=proxy, trust_env=False, follow_redirects=False)

    def ask(self, method: str, path: str, body: Any = None, *, until: float | None = None, trace: Trace | None = None) -> Any:
        """The JSON a path answers.

        Args:
            method: of HTTP.
            path: below the base URL.
            body: JSON.
            until: on ``time.monotonic()``: nobody waits longer, attempts and pauses together; None: as long as each silence and attempt may last.
            trace: the server is told that this is part of it.

        Raises:
            Busy: `net.no-time`, and what ``events`` raises.
        """
        import httpx

        with self._answered(method, path, body, stream=until is not None, until=until, trace=trace) as response:
            try:
                return msgspec.json.decode(response.content if until is None else self._read(response, until))
            except msgspec.DecodeError as e:
                raise Broken("net.bad-answer", host=self.host, reason="it is not JSON") from e
            except httpx.HTTPError as e:
                self.breaker.failed()
                raise self._lost(e, until) from e

    def _read(self, response: httpx.Response, until: float) -> bytes:
        """The whole answer, from a server that may let it drip."""
        parts: list[bytes] = []
        for part in response.iter_bytes():
            parts.append(part)
            if time.monotonic() > until:
                raise self._no_time()
        return b"".join(parts)

    def _no_time(self) -> Busy:
        return Busy("net.no-time", host=self.host, retry_after_s=5.0)

    def _lost(self, e: Exception, until: float | None) -> Busy:
        if until is not None and time.monotonic() >= until - 0.05:
            return self._no_time()
        return Busy("net.unreachable", host=self.host, reason=type(e).__name__, retry_after_s=5.0)

    def events(self, path: str, body: Any, *, trace: Trace | None = None) -> Generator[bytes]:
        """The data of each server-sent event of an answer, as they come. Is not tried again once the answer has begun.

        Raises:
            Busy: `net.resting`, `net.unreachable`, `net.overloaded`: with ``retry_after_s``.
            Broken: `net.refused`, `net.bad-answer`.
        """
        import httpx

        with self._answered("POST", path, body, stream=True, trace=trace) as response:
            try:
                for line in response.iter_lines():
                    if line.startswith("data:"):
                        yield line[5:].strip().encode()
            except httpx.HTTPError as e:
                self.breaker.failed()
                raise Busy("net.unreachable", host=self.host, reason=type(e).__name__, retry_after_s=5.0) from e

    @contextmanager
    def _answered(self, method: str, path: str, body: Any, *, stream: bool, until: float | None = None, trace: Trace | None = None) -> Generator[httpx.Response]:
        content = None if body is None else msgspec.json.encode(body)
        headers = {"content-type": "application/json", **(trace.headers() if trace is not None else {})}
        response = self._until_answered(method, self._base + path, content, headers, stream=stream, until=until)
        try:
            if response.status_code != 200:
                raise Broken("net.refused", host=self.host, path=path, got=response.status_code)
            yield response
        finally:
            response.close()

    def _until_answered(self, method: str, url: str, content: bytes | None, headers: dict[str, str], *, stream: bool, until: float | None) -> httpx.Response:
        import httpx

        for attempt in range(self.retries + 1):
            if wait_s := self.breaker.wait_s():
                raise Busy("net.resting", host=self.host, retry_after_s=round(wait_s, 1))
            left_s = math.inf if until is None else until - time.monotonic()
            if left_s <= 0:
                raise self._no_time()
            last, pause_s = attempt == self.retries, min(WAIT_MAX_S, 0.25 * 2**attempt) * random.uniform(0.5, 1.0)
            try:
                request = self._http.build_request(method, url, content=content, headers=headers, timeout=min(self.timeout_s, left_s))
                response = self._http.send(request, stream=stream)
            except httpx.HTTPError as e:
                self.breaker.failed()
                if last or (until is not None and time.monotonic() + pause_s >= until):
                    raise self._lost(e, until) from e
                time.sleep(pause_s)
                continue
            if response.status_code not in AGAIN:
                self.breaker.succeeded()
                return response
            told_s = _retry_after_s(response.headers.get("retry-after"))
            response.close()
            (self.breaker.succeeded if response.status_code == 429 else self.breaker.failed)()
            if last or (told_s or 0.0) > WAIT_MAX_S or (until is not None and time.monotonic() + max(pause_s, told_s or 0.0) >= until):
                raise Busy("net.overloaded", host=self.host, got=response.status_code, retry_after_s=told_s or 5.0)
            time.sleep(max(pause_s, told_s or 0.0))
        raise AssertionError("the last attempt returns or raises")

    def close(self) -> None:
        """Hang up."""
        self._http.close()


def _retry_after_s(value: str | None) -> float | None:
    return float(value) if value is not None and value.isdecimal() and len(value) < 6 else None
