"""Errors that refuse a request, with one line and an HTTP status."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from secateur_runtime.errors import SecateurError

_KINDS: Mapping[int, str] = {
    401: "authentication_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "invalid_request_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "server_error",
    504: "timeout_error",
}


class RefusedError(SecateurError):
    """A request cannot be answered, or not to its end.

    status: HTTP status that says why. param: the field of the request at fault, if it is one.
    """

    def __init__(self, status: int, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.param = param


def error_body(status: int, message: str, param: str | None = None) -> dict[str, Any]:
    """Return the error body that OpenAI's clients read; the message is put on one line."""
    line = " ".join(message.split())[:500]
    return {
        "error": {
            "message": line,
            "type": _KINDS.get(status, "invalid_request_error"),
            "param": param,
            "code": None,
        }
    }
