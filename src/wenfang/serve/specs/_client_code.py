"""Code of the Python client that is the same for every service, as text. ``tests/serve/test_specs.py`` lints it, checks its types and runs it."""

from __future__ import annotations

__all__ = ["ASYNC_STREAM", "CLIENTS", "ERRORS", "PIECE", "PUBLIC", "READING", "STREAM", "STREAM_READING"]

PUBLIC = [
    "AsyncClient", "BusyError", "Client", "DeniedError", "InvalidRequestError", "NoAnswerError", "NotFoundError", "ServiceError", "UnauthenticatedError", "UnavailableError",
]  # fmt: skip
PIECE = '''

@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of the text that answers one question.

    Attributes:
        index: Of the question.
        piece: What comes next.

    """

    index: int
    piece: str
'''
ERRORS = '''

class ServiceError(Exception):
    """The service did not answer as it should; its subclasses say why.

    Attributes:
        status: HTTP status; 0: nothing came back that can be read.
        code: Stable name of what went wrong.
        detail: What happened, for people.
        hint: What to do next.
        request_id: Of the request, for logs.
        retry_after_s: When to come back, in seconds; None: not said.

    """

    def __init__(self, status: int, told: Mapping[str, Any]) -> None:
        """Keep what the service told."""
        self.status = status
        self.code = str(told.get("code", ""))
        self.detail = str(told.get("detail", ""))
        self.hint = str(told.get("hint", ""))
        self.request_id = str(told.get("request_id", ""))
        self.retry_after_s: float | None = told.get("retry_after_s")
        super().__init__(f"[{self.code or status}] {self.detail} {self.hint}".strip())


class InvalidRequestError(ServiceError):
    """The request is not right; the caller can mend it (400, 405, 413, 415, 422)."""


class UnauthenticatedError(ServiceError):
    """No key, or one that is not known (401)."""


class DeniedError(ServiceError):
    """The key may not call the service (403)."""


class NotFoundError(ServiceError):
    """There is no such service (404)."""


class BusyError(ServiceError):
    """A limit is reached, or there is more to do than can be done (429); come back after ``retry_after_s``."""


class UnavailableError(ServiceError):
    """No replica answers or the deadline passed (503, 504); the same request may be sent again."""


class NoAnswerError(ServiceError):
    """The connection failed, or what came back is no answer of this service."""


_OK = 200
_ERRORS: dict[int, type[ServiceError]] = {
    400: InvalidRequestError,
    401: UnauthenticatedError,
    403: DeniedError,
    404: NotFoundError,
    405: InvalidRequestError,
    413: InvalidRequestError,
    415: InvalidRequestError,
    422: InvalidRequestError,
    429: BusyError,
    503: UnavailableError,
    504: UnavailableError,
}
'''
READING = """

def _read(reply: httpx.Response) -> PredictReply:
    try:
        told: Any = reply.json()
        if reply.status_code == _OK:
            return _read_predictreply(told)
    except (ValueError, LookupError, TypeError, AttributeError) as e:
        raise NoAnswerError(reply.status_code, {"detail": f"an answer that cannot be read: {type(e).__name__}"}) from e
    raise _error(reply.status_code, told)


def _error(status: int, told: Any) -> ServiceError:
    return _ERRORS.get(status, ServiceError)(status, cast("Mapping[str, Any]", told) if isinstance(told, Mapping) else {})


def _silence(e: httpx.HTTPError) -> NoAnswerError:
    return NoAnswerError(0, {"detail": f"{type(e).__name__}: {e}"})


def _headers(api_key: str) -> dict[str, str]:
    return {"X-API-Key": api_key} if api_key else {}
"""
STREAM_READING = '''

class _Lines:
    """Lines out of bytes as they come."""

    def __init__(self) -> None:
        self.rest = b""

    def feed(self, data: bytes) -> list[Piece | PredictReply]:
        """Tell what is complete with ``data``."""
        *lines, self.rest = (self.rest + data).split(b"\\n")
        return [self.read(line) for line in lines if line]

    @staticmethod
    def read(line: bytes) -> Piece | PredictReply:
        """Read one line."""
        try:
            told: Any = json.loads(line)
            if "piece" in told:
                return Piece(told["index"], told["piece"])
            if "outputs" in told:
                return _read_predictreply(told)
            status = int(told["status"])
        except (ValueError, LookupError, TypeError, AttributeError) as e:
            raise NoAnswerError(200, {"detail": f"a line that cannot be read: {type(e).__name__}"}) from e
        raise _error(status, told)
'''
STREAM = '''

    def stream(self, inputs: %INPUTS%, parameters: Parameters | None = None) -> Iterator[Piece | PredictReply]:
        """Ask, and hear the texts while they are written: pieces, then the whole reply.

        Args:
            inputs: One question or several.
            parameters: How they shall be answered.

        Raises:
            ServiceError: Before the first piece or after any.

        """
        lines = _Lines()
        try:
            with self._http.stream("POST", PATH, json=_body(inputs, parameters, stream=True)) as reply:
                if reply.status_code != _OK:
                    reply.read()
                    _read(reply)
                for data in reply.iter_bytes():
                    yield from lines.feed(data)
        except httpx.HTTPError as e:
            raise _silence(e) from e'''
ASYNC_STREAM = '''

    async def stream(self, inputs: %INPUTS%, parameters: Parameters | None = None) -> AsyncIterator[Piece | PredictReply]:
        """Ask, and hear the texts while they are written: pieces, then the whole reply.

        Args:
            inputs: One question or several.
            parameters: How they shall be answered.

        Raises:
            ServiceError: Before the first piece or after any.

        """
        lines = _Lines()
        try:
            async with self._http.stream("POST", PATH, json=_body(inputs, parameters, stream=True)) as reply:
                if reply.status_code != _OK:
                    await reply.aread()
                    _read(reply)
                async for data in reply.aiter_bytes():
                    for told in lines.feed(data):
                        yield told
        except httpx.HTTPError as e:
            raise _silence(e) from e'''
CLIENTS = '''

class Client:
    """Asks the service. Close it, or use it in a ``with`` statement.

    Args:
        url: Of the installation.
        api_key: A key that may call the service.
        timeout_s: How long one step of a request may take.

    """

    def __init__(self, url: str = "http://127.0.0.1:8700", *, api_key: str = "", timeout_s: float = 30.0) -> None:
        """Open nothing yet."""
        self._http = httpx.Client(base_url=url, headers=_headers(api_key), timeout=timeout_s)

    def predict(self, inputs: %INPUTS%, parameters: Parameters | None = None) -> PredictReply:
        """Ask one question or several; answers come in their order.

        Args:
            inputs: One question or several.
            parameters: How they shall be answered.

        Raises:
            ServiceError: What the service refused with, or that it did not answer.

        """
        try:
            reply = self._http.post(PATH, json=_body(inputs, parameters))
        except httpx.HTTPError as e:
            raise _silence(e) from e
        return _read(reply)%STREAM%

    def close(self) -> None:
        """Let go of the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, trace: TracebackType | None) -> None:
        """Let go of the connections."""
        self.close()


class AsyncClient:
    """Asks the service from asyncio. Close it, or use it in an ``async with`` statement.

    Args:
        url: Of the installation.
        api_key: A key that may call the service.
        timeout_s: How long one step of a request may take.

    """

    def __init__(self, url: str = "http://127.0.0.1:8700", *, api_key: str = "", timeout_s: float = 30.0) -> None:
        """Open nothing yet."""
        self._http = httpx.AsyncClient(base_url=url, headers=_headers(api_key), timeout=timeout_s)

    async def predict(self, inputs: %INPUTS%, parameters: Parameters | None = None) -> PredictReply:
        """Ask one question or several; answers come in their order.

        Args:
            inputs: One question or several.
            parameters: How they shall be answered.

        Raises:
            ServiceError: What the service refused with, or that it did not answer.

        """
        try:
            reply = await self._http.post(PATH, json=_body(inputs, parameters))
        except httpx.HTTPError as e:
            raise _silence(e) from e
        return _read(reply)%ASYNC_STREAM%

    async def close(self) -> None:
        """Let go of the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        """Begin."""
        return self

    async def __aexit__(self, kind: type[BaseException] | None, e: BaseException | None, trace: TracebackType | None) -> None:
        """Let go of the connections."""
        await self.close()
'''
