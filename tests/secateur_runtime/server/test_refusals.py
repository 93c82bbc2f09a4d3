"""Refusals in the form that OpenAI's clients read."""

from __future__ import annotations

import pytest

from secateur_runtime.server.refusals import RefusedError, error_body


def test_a_message_is_one_short_line() -> None:
    error = error_body(400, "first\n  second\t" + "x" * 1000)["error"]
    assert error["message"].startswith("first second xxx")
    assert len(error["message"]) == 500


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (404, "not_found_error"),
        (429, "rate_limit_error"),
        (500, "server_error"),
        (504, "timeout_error"),
    ],
)
def test_the_type_follows_from_the_status(status: int, kind: str) -> None:
    assert error_body(status, "a", "field")["error"] == {
        "message": "a",
        "type": kind,
        "param": "field",
        "code": None,
    }


def test_an_error_carries_status_and_field() -> None:
    error = RefusedError(413, "too long", param="prompt")
    assert (error.status, error.param, str(error)) == (413, "prompt", "too long")
