"""Plain values as YAML that any parser reads back as the same JSON. Knows nothing of what they mean."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

__all__ = ["to_yaml"]


def to_yaml(value: Mapping[str, Any]) -> str:
    r"""``value`` as YAML that any parser reads back as the same JSON: keys in order, strings quoted as JSON, texts of several lines as blocks.

    >>> print(to_yaml({"kind": "X", "list": [{"a": 1, "b": []}, "on"], "text": "one\ntwo\n"}), end="")
    kind: "X"
    list:
      - a: 1
        b: []
      - "on"
    text: |
      one
      two
    """
    return "\n".join(_lines(value)) + "\n"


def _lines(value: Any) -> list[str]:
    if isinstance(value, Mapping):
        return [line for key, item in value.items() for line in _entry(f"{_key(key)}:", item)]  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    lines: list[str] = []
    for item in value:
        inner = _lines(item) if item and isinstance(item, (dict, list)) else [_scalar(item)]
        lines += [f"- {inner[0]}", *(f"  {line}" for line in inner[1:])]
    return lines


def _entry(head: str, value: Any) -> list[str]:
    if value and isinstance(value, (dict, list)):
        return [head, *(f"  {line}" for line in _lines(value))]
    if isinstance(value, str) and "\n" in value and value.endswith("\n") and not value.startswith((" ", "\n")):
        return [f"{head} |", *(f"  {line}" if line else "" for line in value.removesuffix("\n").split("\n"))]
    return [f"{head} {_scalar(value)}"]


def _scalar(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _key(key: str) -> str:
    """As it is where no parser takes it for anything but a string."""
    plain = key.replace("/", "").replace(".", "").replace("-", "").replace("_", "")
    return key if plain.isalpha() and key.lower() not in {"y", "n", "yes", "no", "on", "off", "true", "false", "null"} else json.dumps(key)
