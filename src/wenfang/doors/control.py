"""The control plane over HTTP: one route for each operation, on a Unix socket behind the gateway.

A request the gateway forwards carries ``x-wenfang-forwarded`` and must bring a key. A request without it came straight through
the socket, which only the operating-system user of the home can open: that is the ``local`` principal.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import os
import signal
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from wenfang.core.discreet import begin_log
from wenfang.core.durable import disk_error
from wenfang.core.errors import Broken, Invalid, NotFound, Unauthenticated, WenfangError
from wenfang.core.home import Home
from wenfang.core.ids import new_id
from wenfang.core.operation import Operation
from wenfang.core.settings import load_settings
from wenfang.core.version import __version__
from wenfang.guard.keyring import Keyring
from wenfang.guard.roles import LOCAL, Actor, require
from wenfang.studio import operations
from wenfang.studio.app import Studio
from wenfang.studio.queue import queue_job
from wenfang.studio.wiring import open_control

from .hot_paths import HOT_PATHS
from .openapi import docs_page, openapi_document

__all__ = ["create_app", "main"]

BODY_MAX_BYTES = 8 << 20
DRAIN_MAX_BYTES = 64 << 20
STATUS = {"http.body-too-large": 413, "http.wrong-content-type": 415}
"""Where HTTP has a finer word than the class of the error."""
log = logging.getLogger("wenfang.control")
Endpoint = Callable[[Request], Awaitable[Response]]


def create_app(studio: Studio) -> Starlette:
    """The web application over ``studio``."""
    table = operations()
    keyring = Keyring(studio.tables)
    routes: list[Route] = []
    for op in table.values():
        method, path = op.http.split()
        endpoint = _upload(op, studio, keyring) if op.name == "dataset.upload" else _endpoint(op, studio, keyring)
        routes.append(Route(path, _guarded(endpoint), methods=[method], name=op.name))
    document = openapi_document(table.values(), __version__, HOT_PATHS)

    async def openapi(raw: Request) -> Response:
        await asyncio.to_thread(principal, raw, keyring)
        return JSONResponse(document)

    async def asyncapi(raw: Request) -> Response:
        actor = await asyncio.to_thread(principal, raw, keyring)
        op = table["service.asyncapi"]
        request = _validated(op, dict(raw.query_params))
        answer = await asyncio.to_thread(partial(studio.run, op, actor, request, request_id=raw.state.request_id))
        return Response(answer.document, media_type="application/json")

    async def front(_: Request) -> Response:
        return RedirectResponse("docs")  # until a console stands here

    async def docs(raw: Request) -> Response:
        await asyncio.to_thread(principal, raw, keyring)
        return HTMLResponse(docs_page(document), headers={"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"})

    async def alive(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def unknown(raw: Request) -> Response:
        raise NotFound("http.no-such-path", path=raw.url.path[:200])

    routes += [
        Route("/", front),
        Route("/openapi.json", _guarded(openapi)),
        Route("/asyncapi.json", _guarded(asyncapi)),
        Route("/docs", _guarded(docs)),
        Route("/control/alive", alive),
        Route("/{rest:path}", _guarded(unknown), methods=["GET", "POST", "PUT", "DELETE", "PATCH"]),
    ]
    routes.sort(key=lambda r: ("{" in r.path, r.path.startswith("/{rest")))  # literal paths before parameters, the rest last
    return Starlette(routes=routes)


def principal(raw: Request, keyring: Keyring) -> Actor:
    """Who is asking.

    Raises:
        Unauthenticated: `auth.no-key`, `auth.bad-key`.
    """
    if "x-wenfang-forwarded" not in raw.headers:
        return LOCAL
    scheme, _, value = raw.headers.get("authorization", "").partition(" ")
    match scheme.lower():
        case "bearer":
            key = value.strip()
        case "basic":
            key = _basic_password(value)
        case _:
            key = raw.headers.get("x-api-key", "")
    if not key:
        raise Unauthenticated("auth.no-key")
    return keyring.authenticate(key)


def _basic_password(value: str) -> str:
    """The password of HTTP Basic: how a person's browser sends a key (the user name does not matter)."""
    try:
        return base64.b64decode(value, validate=True).decode().partition(":")[2]
    except ValueError:
        return ""


async def _drain(raw: Request) -> None:
    """Read what is left of a refused body, so that the answer is not lost with a connection closed in the middle of it."""
    size = 0
    try:
        async for chunk in raw.stream():
            size += len(chunk)
            if size > DRAIN_MAX_BYTES:
                return
    except (ClientDisconnect, RuntimeError):  # the client has gone, or the body was read already
        return


def _guarded(endpoint: Endpoint) -> Endpoint:
    """Every error becomes a problem document in the reader's language; every answer carries the request id."""

    async def guarded(raw: Request) -> Response:
        request_id = raw.headers.get("x-request-id") or new_id("rq")
        raw.state.request_id = request_id
        try:
            response = await endpoint(raw)
        except WenfangError as e:
            await _drain(raw)
            status = STATUS.get(e.code, e.status)
            problem = {**e.problem(raw.headers.get("accept-language", "en"), request_id), "status": status}
            response = JSONResponse(problem, status, media_type="application/problem+json")
            if "retry_after_s" in e.fields:
                response.headers["Retry-After"] = str(int(e.fields["retry_after_s"]) + 1)
            if e.status == 401:
                response.headers["WWW-Authenticate"] = 'Basic realm="Wenfang: an API key as password", charset="UTF-8"' if raw.url.path in {"/docs", "/openapi.json"} else "Bearer"
        response.headers["x-request-id"] = request_id
        return response

    return guarded


def _endpoint(op: Operation, studio: Studio, keyring: Keyring) -> Endpoint:
    method = op.http.split()[0]

    async def endpoint(raw: Request) -> Response:
        actor = await asyncio.to_thread(principal, raw, keyring)
        given = {**dict(raw.query_params), **raw.path_params} if method == "GET" else {**await _json_body(raw), **raw.path_params}
        request = _validated(op, given)
        if op.long:
            job = await asyncio.to_thread(queue_job, studio, op, actor, request, raw.state.request_id)
            return Response(job.model_dump_json(), 202, media_type="application/json", headers={"Location": f"/api/v1/jobs/{job.id}"})
        answer = await asyncio.to_thread(partial(studio.run, op, actor, request, request_id=raw.state.request_id))
        return Response(answer.model_dump_json(), media_type="application/json")

    return endpoint


def _upload(op: Operation, studio: Studio, keyring: Keyring) -> Endpoint:
    async def endpoint(raw: Request) -> Response:
        actor = await asyncio.to_thread(principal, raw, keyring)
        query = dict(raw.query_params)
        name = Path(query.get("file_name", "")).name
        if name in {"", ".", ".."} or len(name.encode(errors="replace")) > 200 or not name.isprintable():
            raise Invalid("http.bad-file-name")
        await asyncio.to_thread(require, actor, op.permission, query.get("project", "default"))  # before a byte is kept
        declared = raw.headers.get("content-length")
        blob, size = await _receive(raw, studio, studio.settings.serve.upload_max_bytes)
        if declared is not None and int(declared) != size:
            raise Invalid("http.body-cut-short", got_bytes=size, expected_bytes=int(declared))
        request = _validated(op, {"file_name": name, "blob": blob, "size_bytes": size, **{k: v for k, v in query.items() if k == "project"}})
        answer = await asyncio.to_thread(partial(studio.run, op, actor, request, request_id=raw.state.request_id))
        return Response(answer.model_dump_json(), media_type="application/json")

    return endpoint


async def _receive(raw: Request, studio: Studio, limit: int) -> tuple[str, int]:
    """Stream the body into a blob: memory stays bounded, a broken connection leaves nothing behind."""
    size = 0
    try:
        with tempfile.NamedTemporaryFile(dir=studio.home.jobs, prefix=".upload-") as spool:
            async for chunk in raw.stream():
                size += len(chunk)
                if size > limit:
                    raise Invalid("http.body-too-large", max_bytes=limit)
                await asyncio.to_thread(spool.write, chunk)
            spool.flush()
            return await asyncio.to_thread(studio.blobs.put_file, Path(spool.name)), size
    except ClientDisconnect as e:
        raise Invalid("http.body-cut-short", got_bytes=size, expected_bytes="?") from e
    except OSError as e:
        raise disk_error(e, studio.home.jobs) from e


async def _json_body(raw: Request) -> dict[str, Any]:
    body = b""
    async for chunk in raw.stream():
        body += chunk
        if len(body) > BODY_MAX_BYTES:
            raise Invalid("http.body-too-large", max_bytes=BODY_MAX_BYTES)
    if not body:
        return {}
    kind = raw.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Invalid("http.wrong-content-type", got=kind[:80])
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as e:
        raise Invalid("http.bad-json", reason=str(e)[:200]) from e
    if not isinstance(value, dict):
        raise Invalid("http.not-an-object", got=type(value).__name__)
    return value  # pyright: ignore[reportUnknownVariableType]


def _validated(op: Operation, given: dict[str, Any]) -> Any:
    try:
        return op.request.model_validate(given)
    except ValidationError as e:
        errors = [{"field": ".".join(map(str, x["loc"])), "message": x["msg"]} for x in e.errors(include_url=False, include_input=False)]
        raise Invalid("http.bad-request", operation=op.name, errors=errors, first=f"{errors[0]['field']}: {errors[0]['message']}") from e


def main(arguments: dict[str, Any]) -> None:
    """Entry of the ``control`` process."""
    home = Home(Path(arguments["home"])).prepare()
    begin_log()
    control = open_control(home, load_settings(home.root))
    path = home.control_socket
    path.unlink(missing_ok=True)
    os.umask(0o077)
    server = uvicorn.Server(uvicorn.Config(create_app(control.studio), uds=str(path), log_level="warning", access_log=False, lifespan="off", timeout_graceful_shutdown=10))

    def follow() -> None:
        while not server.started:  # routes mean "ready" to a gateway: first listen, then write them
            time.sleep(0.01)
        control.start()

    def linger(*_: object) -> None:
        """Do nothing: uvicorn ends by itself."""

    signal.signal(signal.SIGTERM, linger)  # uvicorn raises it again when it is done; the default would end us before we close
    threading.Thread(target=follow, name="reconcile", daemon=True).start()
    try:
        server.run()
    finally:
        path.unlink(missing_ok=True)
        control.close()
    if not server.started:
        raise Broken("process.not-answering", socket=path.name, reason="could not listen")
