"""An operation: one thing the studio can do, described once for every door.

The decorator adds a record to a table and changes nothing in the function. HTTP routes, CLI commands, the Python client, the
OpenAPI file and the reference page are loops over that table.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, get_type_hints

from pydantic import BaseModel, ConfigDict

__all__ = ["OPERATIONS", "Answer", "Operation", "Request", "operation"]

F = TypeVar("F", bound=Callable[..., Any])


class Request(BaseModel):
    """What an operation is asked; unknown fields are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Answer(BaseModel):
    """What an operation answers."""

    model_config = ConfigDict(frozen=True)


@dataclass(frozen=True, slots=True)
class Operation:
    """The description of one studio function; doors read it, nobody else does."""

    name: str
    """``noun.verb``."""
    permission: str
    """``noun:read``, ``noun:write`` or ``noun:admin``."""
    http: str
    """Method and path; ``{field}`` in the path is a field of the request."""
    run: Callable[..., Any]
    request: type[BaseModel]
    answer: type[BaseModel]
    long: bool
    """Minutes rather than milliseconds: over HTTP it becomes a job."""

    @property
    def noun(self) -> str:
        """``dataset`` of ``dataset.import``."""
        return self.name.partition(".")[0]

    @property
    def verb(self) -> str:
        """``import`` of ``dataset.import``."""
        return self.name.partition(".")[2]

    @property
    def summary(self) -> str:
        """The first line of its docstring."""
        return (inspect.getdoc(self.run) or "").partition("\n")[0]


OPERATIONS: dict[str, Operation] = {}


def operation(name: str, *, permission: str, http: str, long: bool = False) -> Callable[[F], F]:
    """Mark a studio function ``def f(studio, request: In) -> Out`` as the operation ``name``."""

    def wrap(function: F) -> F:
        hints = get_type_hints(function)
        request = hints[list(inspect.signature(function).parameters)[1]]
        OPERATIONS[name] = Operation(name, permission, http, function, request, hints["return"], long)
        return function

    return wrap
