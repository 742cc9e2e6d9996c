"""What every store of records is: the port ``Tables``, opened by a URL, with a commit that can safely be repeated."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, Self

from wenfang.core.home import Home
from wenfang.core.ports import Changes, Tables

__all__ = ["TableStore"]


class TableStore(Tables):
    """A store of records. The promises are tested for every store in ``tests/contracts/test_tables.py``."""

    name: ClassVar[str]
    form: ClassVar[str]
    """How its URL looks, for messages."""

    @classmethod
    @abstractmethod
    def open(cls, url: str, home: Home) -> Self:
        """Open the store at ``url`` and bring its schema up to date.

        Raises:
            Broken: `store.unreachable`, `store.damaged`, `store.schema-newer`, `store.foreign-tables`.
        """

    @abstractmethod
    def commit(self, changes: Changes, *, once: str | None = None) -> None:
        """Write all or nothing, durably.

        Args:
            changes: what to write; puts first, then updates, each in order.
            once: an id of this very commit; a second commit with the same id within a day does nothing.

        Raises:
            Conflict: `store.exists`, `store.changed-meanwhile`.
            Invalid: `store.immutable`, `store.revision-not-raised`, `store.bad-text`, `store.wrong-type`.
            Broken: `store.write-failed`, `store.damaged`: nothing was written. `store.unreachable`: the server stayed away; a commit
                repeated under its id ``once`` finds out whether it was.
        """
