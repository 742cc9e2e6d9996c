"""What an error looks like to clients (RFC 9457), as JSON Schema: every document that describes an interface says the same."""

from typing import Any

__all__ = ["PROBLEM"]

PROBLEM: dict[str, Any] = {
    "type": "object",
    "description": "An error (RFC 9457).",
    "required": ["type", "title", "status", "code", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "code": {"type": "string", "description": "stable: noun.what-went-wrong"},
        "detail": {"type": "string", "description": "in the language of Accept-Language (zh, en)"},
        "hint": {"type": "string", "description": "what to do next"},
        "request_id": {"type": "string"},
        "errors": {"type": "array", "items": {}},
        "retry_after_s": {"type": "number", "description": "when to come back"},
    },
}
