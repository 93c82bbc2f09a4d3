"""Requests that work, the shape of a refusal, and waiting for a server to change."""

from __future__ import annotations

import time
from collections.abc import Callable

import httpx

PLAIN = {"model": "fake", "prompt": "a", "max_tokens": 2}
CHAT = {"model": "fake", "messages": [{"role": "user", "content": "a"}], "max_tokens": 2}


def refused(answer: httpx.Response, status: int) -> str:
    """Check that an answer is an error as OpenAI's clients read it; return its one line."""
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert "\n" not in error["message"]
    assert len(error["message"]) < 300
    return str(error["message"])


def wait_for(met: Callable[[], bool]) -> None:
    """Return once a condition is met; fail after some seconds."""
    for _ in range(500):
        if met():
            return
        time.sleep(0.01)
    raise AssertionError("it never came")
