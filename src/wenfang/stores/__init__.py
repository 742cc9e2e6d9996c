"""Where things are kept and carried: tables, blobs and buses, each store one file whose name is its URL scheme. Knows nothing of what is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from wenfang.core.errors import Invalid, Unsupported
from wenfang.core.home import Home
from wenfang.core.registry import Registry

from .blobs.base import BlobStore
from .buses.base import BusStore
from .tables.base import TableStore

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["BLOB_STORES", "BUSES", "TABLE_STORES", "check_bus_url", "open_blobs", "open_bus", "open_tables", "sqlite_verdict"]

T = TypeVar("T", TableStore, BlobStore)
WAL_RESET_FIXED = (3, 51, 3)

TABLE_STORES: Registry[TableStore] = Registry("tables", package="wenfang.stores.tables", base=TableStore)
BLOB_STORES: Registry[BlobStore] = Registry("blobs", package="wenfang.stores.blobs", base=BlobStore)
BUSES: Registry[BusStore] = Registry("bus", package="wenfang.stores.buses", base=BusStore)


def _scheme(url: str, registry: Registry[T]) -> str:
    scheme, colon, _ = url.partition(":")
    known: Sequence[str] = registry.names()
    if not colon or scheme not in known:
        raise Invalid("store.bad-url", url=f"{scheme[:20]}:…" if colon else "(no scheme)", known=[f"{name}:" for name in known])
    return scheme


def open_tables(url: str, home: Home) -> TableStore:
    """The store of records at ``url``: ``sqlite:`` (in the home), ``sqlite:///path``, ``postgresql://user@host/database``, ``memory:``.

    Raises:
        Invalid: `store.bad-url`.
        Unsupported: `plugin.needs-package`.
        Conflict: `store.in-use`.
        Broken: `store.unreachable`, `store.damaged`, `store.schema-newer`, `store.foreign-tables`, `store.write-failed`.
    """
    return TABLE_STORES.get(_scheme(url, TABLE_STORES)).open(url, home)


def open_blobs(url: str, home: Home) -> BlobStore:
    """The store of bytes at ``url``: ``file:`` (in the home), ``file:///path``, ``memory:``.

    Raises:
        Invalid: `store.bad-url`.
        Broken: `home.write-failed`.
    """
    return BLOB_STORES.get(_scheme(url, BLOB_STORES)).open(url, home)


def check_bus_url(url: str) -> str:
    """The scheme of a bus's URL, with its library here.

    Raises:
        Invalid: `bus.bad-url`.
        Unsupported: `plugin.needs-package`.
    """
    scheme, colon, _ = url.partition(":")
    known = BUSES.names()
    if not colon or scheme not in known:
        raise Invalid("bus.bad-url", url=f"{scheme[:20]}:…" if colon else "(no scheme)", known=", ".join(f"{name}:" for name in known))
    try:
        BUSES.get(scheme)
    except Unsupported as e:  # the library's name in Python is not the one pip knows
        raise Unsupported("plugin.needs-package", kind="bus", name=scheme, package=f"'wenfang[{scheme}]'") from e
    return scheme


async def open_bus(url: str, home: Home) -> BusStore:
    """The bus at ``url``: ``local:`` (in the home), ``nats://host``, ``rabbitmq://user@host/vhost``, ``redis://host/0``, ``kafka://host``, ``memory:``.

    Raises:
        Invalid: `bus.bad-url`.
        Unsupported: `plugin.needs-package`.
        Broken: `bus.unreachable`, `bus.file-failed`.
    """
    return await BUSES.get(check_bus_url(url)).connect(url, home)


def sqlite_verdict() -> tuple[str, bool]:
    """The version of SQLite here, and whether its WAL-reset fault (3.7.0 to 3.51.2) is mended in it.

    An older one is still safe: the store holds the file on one exclusive connection, and the fault takes two.
    """
    import sqlite3

    return sqlite3.sqlite_version, sqlite3.sqlite_version_info >= WAL_RESET_FIXED
