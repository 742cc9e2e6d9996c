"""The same operations from Python: ``wf.open`` works in place or through the running process tree, ``wf.connect`` over HTTP."""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import httpx
from pydantic import ValidationError

from wenfang.core.errors import BY_STATUS, Broken, Conflict, Invalid, NotFound, WenfangError
from wenfang.core.home import Home
from wenfang.core.operation import Operation
from wenfang.core.ports import Progress, Quiet
from wenfang.core.registry import nearest
from wenfang.core.settings import load_settings
from wenfang.studio import operations

__all__ = ["Remote", "RemoteProblem", "StudioClient", "connect", "open_home"]

POLL_S = 0.3


class RemoteProblem(WenfangError):
    """An error of the other side, with its own words. Its class is also the error class of its status."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        super().__init__(str(document.get("code", "process.failed")))
        self.fields = {k: document[k] for k in ("retry_after_s", "errors") if k in document}
        self._document = document

    def detail(self, lang: str | None = None) -> str:  # noqa: ARG002 said by the other side, in the language that was asked for
        """What happened."""
        return str(self._document.get("detail", ""))

    def hint(self, lang: str | None = None) -> str:  # noqa: ARG002
        """What to do next."""
        return str(self._document.get("hint", ""))


_PROBLEMS: dict[int, type[WenfangError]] = {status: type(f"Remote{base.__name__}", (RemoteProblem, base), {}) for status, base in BY_STATUS.items()}


def raise_problem(document: Mapping[str, Any]) -> None:
    """Raise a problem document as the error it stands for."""
    raise _PROBLEMS.get(int(document.get("status", 500)), _PROBLEMS[500])(document)  # pyright: ignore[reportCallIssue, reportArgumentType]


class _Noun:
    def __init__(self, client: StudioClient, noun: str) -> None:
        self._client, self._noun = client, noun

    def __getattr__(self, verb: str) -> Callable[..., Any]:
        name = f"{self._noun}.{verb.rstrip('_')}"
        if name not in operations():
            raise NotFound("client.unknown-operation", name=name, near=nearest(name, list(operations())))

        def call(**fields: Any) -> Any:
            return self._client.call(name, **fields)

        return call


class StudioClient(ABC):
    """Operations by noun and verb: ``studio.dataset.list(project="default")``; a verb that is a Python word takes an underscore (``import_``)."""

    def __getattr__(self, noun: str) -> _Noun:
        if noun.startswith("_"):
            raise AttributeError(noun)
        return _Noun(self, noun)

    def call(self, name: str, /, *, progress: Progress | None = None, **fields: Any) -> Any:
        """Run the operation ``name`` and return its answer; long ones are waited for.

        Raises:
            WenfangError: as the operation says; Invalid: `http.bad-request`.
        """
        op = operations()[name]
        try:
            request = op.request.model_validate(fields)
        except ValidationError as e:
            errors = [{"field": ".".join(map(str, x["loc"])), "message": x["msg"]} for x in e.errors(include_url=False, include_input=False)]
            raise Invalid("http.bad-request", operation=name, errors=errors, first=f"{errors[0]['field']}: {errors[0]['message']}") from e
        return self._run(op, request, progress or Quiet())

    @abstractmethod
    def _run(self, op: Operation, request: Any, progress: Progress) -> Any: ...

    @abstractmethod
    def close(self) -> None:
        """Let go of the home or the connection."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class InPlace(StudioClient):
    """Works in this process; holds the home's lock."""

    def __init__(self, home: Home) -> None:
        from wenfang.guard.roles import LOCAL
        from wenfang.studio.wiring import open_in_place

        self._studio, self._lock = open_in_place(home, load_settings(home.root))
        self._actor = LOCAL

    def _run(self, op: Operation, request: Any, progress: Progress) -> Any:
        return self._studio.run(op, self._actor, request, progress=progress)

    def close(self) -> None:
        """Let go of the home."""
        self._studio.tables.close()
        self._lock.release()


class Remote(StudioClient):
    """Works through HTTP: a URL with a key, or the control process's Unix socket as the local user.

    Args:
        url: such as ``http://127.0.0.1:8700``.
        api_key: sent as ``Authorization: Bearer``.
        socket: instead of a network address.
        lang: language of error sentences.
    """

    def __init__(self, url: str, *, api_key: str | None = None, socket: Path | None = None, lang: str | None = None) -> None:
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        headers["Accept-Language"] = lang or os.environ.get("WENFANG_LANG") or os.environ.get("LANG") or "en"
        transport = httpx.HTTPTransport(uds=str(socket)) if socket else None
        self._local = socket is not None
        self._http = httpx.Client(base_url=url, headers=headers, transport=transport, timeout=httpx.Timeout(120.0, connect=10.0), trust_env=False)

    def _send(self, method: str, path: str, **more: Any) -> Any:
        try:
            reply = self._http.request(method, path, **more)
        except UnicodeEncodeError as e:
            raise Invalid("client.not-unicode") from e
        except httpx.HTTPError as e:
            raise Broken("client.no-answer", url=str(self._http.base_url), reason=str(e) or type(e).__name__) from e
        if reply.status_code >= 400:
            try:
                raise_problem(reply.json())
            except ValueError as e:
                raise Broken("client.not-a-studio", url=str(self._http.base_url), status=reply.status_code) from e
        return reply.json()

    def _upload(self, op: Operation, fields: dict[str, Any]) -> None:
        """Send the files a request names, and name the uploads instead; a place on the studio's machine is named by its whole path."""
        project = str(fields.get("project", "default"))
        for name, field in op.request.model_fields.items():
            extra, value = field.json_schema_extra, fields.get(name)
            if isinstance(extra, dict) and extra.get("path") and isinstance(value, str) and self._local and not value.startswith("upload:"):
                fields[name] = str(Path(value).expanduser().absolute())
            if isinstance(extra, dict) and extra.get("file") and isinstance(value, (str, list)):
                named = cast("list[str]", value) if isinstance(value, list) else [value]
                sent = [self._sent_file(v, project) for v in named]
                fields[name] = sent if isinstance(value, list) else sent[0]

    def _sent_file(self, value: str, project: str) -> str:
        """``value`` as the studio knows it: a version or upload as it is, a file by its whole path, or uploaded where the studio is elsewhere."""
        if value.startswith(("upload:", "dv_")):
            return value
        path = Path(value).expanduser()
        if self._local:
            return str(path.absolute())
        if not path.is_file():
            raise NotFound("data.no-file", path=value, reason="No such file")
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(path.stat().st_size)}
        with path.open("rb") as f:
            return "upload:" + self._send("POST", "/api/v1/uploads", params={"file_name": path.name, "project": project}, content=f, headers=headers)["id"]

    def _run(self, op: Operation, request: Any, progress: Progress) -> Any:
        fields = request.model_dump(mode="json", exclude_unset=True)
        self._upload(op, fields)
        method, path = op.http.split()
        inside = {n: fields.pop(n) for n in list(fields) if f"{{{n}}}" in path}
        sent = {"params": {k: v for k, v in fields.items() if v is not None}} if method == "GET" else {"json": fields}
        answer = self._send(method, path.format(**{k: httpx.URL("/" + str(v)).raw_path.decode()[1:] for k, v in inside.items()}), **sent)
        if op.long:
            answer = self._wait(answer["id"], progress)
        return op.answer.model_validate(answer)

    def _wait(self, job: str, progress: Progress) -> dict[str, Any]:
        """Follow a job to its end; Ctrl-C cancels it."""
        follow = _Follower(progress)
        try:
            while True:
                shown = self._send("GET", f"/api/v1/jobs/{job}")
                follow(shown["progress"])
                state = shown["job"]["state"]
                if state == "done":
                    return shown["job"]["answer"]
                if state == "failed":
                    raise_problem(shown["job"]["error"])
                if state == "cancelled":
                    raise Conflict("job.was-cancelled", id=job)
                time.sleep(POLL_S)
        except KeyboardInterrupt:
            self._send("POST", f"/api/v1/jobs/{job}/cancel")
            raise

    def close(self) -> None:
        """Hang up."""
        self._http.close()


class _Follower:
    """Turns the snapshots of a job's progress into calls on a ``Progress``."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._stage, self._done, self._notes = "", 0, 0

    def __call__(self, state: Mapping[str, Any]) -> None:
        if not state:
            return
        for key, fields in state["notes"][self._notes :]:
            self._progress.note(key, **fields)
        self._notes = len(state["notes"])
        if state["stage"] != self._stage or state["done"] < self._done:
            self._stage, self._done = state["stage"], 0
            self._progress.stage(state["stage"], state["total"], state["unit"])
        self._progress.advance(state["done"] - self._done, **state["figures"])
        self._done = state["done"]


def open_home(home: str | Path | None = None) -> StudioClient:
    """The studio of ``home`` (default ``$WENFANG_HOME`` or ``./wenfang-home``): through its process tree if one runs, else in place.

    Raises:
        Conflict: `home.in-use` when another process works in place.
    """
    root = Home(Path(home or os.environ.get("WENFANG_HOME") or "wenfang-home").expanduser().absolute())
    if root.control_socket.exists():
        client = Remote("http://wenfang", socket=root.control_socket)
        try:
            client._send("GET", "/control/alive")  # pyright: ignore[reportPrivateUsage]
            return client
        except Broken:  # a socket left by a killed tree: the lock decides
            client.close()
    return InPlace(root.prepare())


def connect(url: str, *, api_key: str | None = None, lang: str | None = None) -> Remote:
    """A studio elsewhere, over HTTP."""
    return Remote(url, api_key=api_key or os.environ.get("WENFANG_API_KEY"), lang=lang)
