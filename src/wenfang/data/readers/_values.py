"""Bytes of one JSON value → Python: orjson first, the standard library for what orjson refuses (lone surrogates, NaN)."""

from __future__ import annotations

import json
from typing import Any

import orjson

from wenfang.core.errors import Invalid

__all__ = ["parse_object"]


def parse_object(data: bytes, *, file: str, line: int) -> dict[str, Any]:
    """The JSON object in ``data``.

    Raises:
        Invalid: `dataset.malformed`.
    """
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        try:
            value = json.loads(data)
        except json.JSONDecodeError as e:
            raise Invalid("dataset.malformed", file=file, line=line + data.count(b"\n", 0, e.pos), reason=f"{e.msg}, column {e.colno}") from e
        except (RecursionError, ValueError) as e:
            raise Invalid("dataset.malformed", file=file, line=line, reason="nested too deeply" if isinstance(e, RecursionError) else "a number is too long") from e
    if not isinstance(value, dict):
        raise Invalid("dataset.malformed", file=file, line=line, reason="a JSON object was expected")
    return value  # pyright: ignore[reportUnknownVariableType]
