"""Tables for the other processes of the tree: a Unix socket that answers framed calls, one thread a connection.

Records travel as their own JSON beside the name of their table. The folder of the socket is private to the user (0700), so is the socket.
"""

from __future__ import annotations

import contextlib
import secrets
import socket
import threading
import time
from pathlib import Path
from typing import Any

import msgspec

from wenfang.core.durable import disk_error
from wenfang.core.errors import Broken, WenfangError
from wenfang.core.frames import from_error, recv_frame, send_frame
from wenfang.core.ports import Changes
from wenfang.core.records import RECORDS, AuditEntry, Event, Pointer, Record

from .tables.base import TableStore

__all__ = ["KINDS", "TablesServer", "changes_of", "serve_tables"]

ACCEPT_PAUSE_S = 0.1
KINDS: dict[str, type[Record]] = {kind.table: kind for kind in RECORDS}


def changes_of(message: dict[str, Any]) -> Changes:
    """Changes as they travel: JSON of each record beside the name of its table."""
    return Changes(
        puts=[KINDS[table].model_validate_json(body) for table, body in message["puts"]],
        updates=[(KINDS[table].model_validate_json(body), revision) for table, body, revision in message["updates"]],
        pointers=[Pointer.model_validate_json(body) for body in message["pointers"]],
        events=[Event.model_validate_json(body) for body in message["events"]],
        audit=[AuditEntry.model_validate_json(body) for body in message["audit"]],
    )


class TablesServer:
    """Answers other processes until closed.

    Args:
        tables: the store; it stays the caller's to close.
        path: where the socket is made; a dead one there is replaced.

    Raises:
        Broken: `home.write-failed`.
    """

    def __init__(self, tables: TableStore, path: Path) -> None:
        self._tables = tables
        self.path = path
        self._connections: set[socket.socket] = set()
        self._threads: set[threading.Thread] = set()
        self._lock = threading.Lock()
        self._closing = False
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        draft = path.with_name(f".{secrets.token_hex(4)}")
        try:
            self._listener.bind(str(draft))
            draft.chmod(0o600)
            self._listener.listen(128)
            self._inode = draft.stat().st_ino
            draft.replace(path)  # whoever connects meets a socket that already listens
        except OSError as e:
            self._listener.close()
            draft.unlink(missing_ok=True)
            raise disk_error(e, path) from e
        self._accepting = threading.Thread(target=self._accept, name="tables-accept", daemon=True)
        self._accepting.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                if self._closing:
                    return
                time.sleep(ACCEPT_PAUSE_S)  # out of file descriptors: whoever knocks waits in the queue until there is one
                continue
            thread = threading.Thread(target=self._answer, args=(connection,), name="tables-answer", daemon=True)
            with self._lock:
                if self._closing:
                    connection.close()
                    return
                self._connections.add(connection)
                self._threads.add(thread)
            try:
                thread.start()
            except RuntimeError:  # out of threads: the other side calls again
                connection.close()
                with self._lock:
                    self._connections.discard(connection)
                    self._threads.discard(thread)

    def _answer(self, connection: socket.socket) -> None:
        try:
            with contextlib.suppress(EOFError, OSError):  # the other side hung up: nobody is left to tell
                while True:
                    send_frame(connection, self._reply(recv_frame(connection)))
        except (WenfangError, msgspec.MsgspecError) as e:  # a frame too large or not msgpack: say so and hang up, for nobody knows where the next begins
            with contextlib.suppress(OSError):
                send_frame(connection, {"error": from_error(e)})
        finally:
            connection.close()
            with self._lock:
                self._connections.discard(connection)
                self._threads.discard(threading.current_thread())

    def _reply(self, message: Any) -> dict[str, Any]:
        try:
            return {"answer": self._call(message)}
        except Exception as e:  # every fault of one call is that caller's answer; the connection and the others go on
            return {"error": from_error(e)}

    def _call(self, message: dict[str, Any]) -> Any:
        tables = self._tables
        match message["call"]:
            case "get":
                record = tables.get(KINDS[message["kind"]], message["id"])
                return record.model_dump_json() if record else None
            case "find":
                kind, where = KINDS[message["kind"]], message["where"]
                found = tables.find(kind, where=where, limit=message["limit"], after=message["after"], newest_first=message["newest_first"])
                return [r.model_dump_json() for r in found]
            case "pointer":
                pointer = tables.pointer(message["kind"], message["key"])
                return pointer.model_dump_json() if pointer else None
            case "pointers":
                return [p.model_dump_json() for p in tables.pointers(message["kind"], message["key"])]
            case "commit":
                return tables.commit(changes_of(message), once=message["once"])
            case "events":
                return [e.model_dump_json() for e in tables.events(message["after"], message["limit"])]
            case "audit":
                return [e.model_dump_json() for e in tables.audit(message["after"], message["limit"])]
            case other:
                raise Broken("store.unknown-call", call=str(other)[:40])

    def close(self) -> None:
        """Answer what is being asked, then hang up and remove the socket."""
        with self._lock:
            if self._closing:
                return
            self._closing = True
            connections, threads = list(self._connections), list(self._threads)
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RD)
        for thread in [self._accepting, *threads]:
            thread.join(10.0)
        with contextlib.suppress(FileNotFoundError):
            if self.path.stat().st_ino == self._inode:
                self.path.unlink()


def serve_tables(tables: TableStore, path: Path) -> TablesServer:
    """Answer other processes on a Unix socket at ``path``, in threads, until ``close``."""
    return TablesServer(tables, path)
