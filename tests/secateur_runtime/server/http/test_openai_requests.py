"""Requests as clients send them, converted to requests for an engine."""

from __future__ import annotations

import httpx
import pytest
from tests.secateur_runtime.server.conftest import Served
from tests.secateur_runtime.server.http_requests import CHAT, refused


def test_a_template_that_refuses(
    guarded: Served, http: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guarded.reader._tokenizer, "chat_template", "{{ raise_exception('no system here') }}")
    assert "no system here" in refused(http.post("/v1/chat/completions", json=CHAT), 400)
    monkeypatch.setattr(guarded.reader._tokenizer, "chat_template", "{{ ''.__class__.__mro__ }}")
    refused(http.post("/v1/chat/completions", json=CHAT), 400)
    monkeypatch.setattr(guarded.reader._tokenizer, "chat_template", None)
    assert "no chat template" in refused(http.post("/v1/chat/completions", json=CHAT), 400)
