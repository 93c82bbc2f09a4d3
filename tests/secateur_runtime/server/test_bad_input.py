"""Whatever a client sends, it gets one line and a 4xx, and the server lives."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import httpx
import pytest
from tests.secateur_runtime.server.conftest import Served, listening, serve
from tests.secateur_runtime.server.fakes import continued

from secateur_runtime.server.http.request_guard import RequestGuard

GATE = RequestGuard(body=5000, arrival=0.5, stall=0.5)
PLAIN = {"model": "fake", "prompt": "a", "max_tokens": 2}
CHAT = {"model": "fake", "messages": [{"role": "user", "content": "a"}], "max_tokens": 2}


@pytest.fixture(scope="module")
def served(tokenizer: Any) -> Iterator[Served]:
    made = serve(tokenizer, gate=GATE)
    yield made
    made.worker.stop()


@pytest.fixture(scope="module")
def client(served: Served) -> Iterator[httpx.Client]:
    with listening(served.app, GATE) as address, httpx.Client(base_url=address, timeout=10) as made:
        yield made


def _refused(answer: httpx.Response, status: int) -> str:
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert "\n" not in error["message"]
    assert len(error["message"]) < 300
    return str(error["message"])


RAW: list[tuple[bytes, str]] = [
    (b"", "the body"),
    (b"{", "not JSON"),
    (b"[]", "the body"),
    (b"null", "the body"),
    (b'"\\ud800"', "the body"),
    (b"\xff\xfe{}", "body"),
    (b'{"model": "fake", "prompt": "\xff", "max_tokens": 1}', "body"),
    (b"[" * 4000, "body"),
    (b'{"model": "fake", "prompt": "a", "max_tokens": ' + b"9" * 4000 + b"}", "max_tokens"),
    (b'{"model": "fake", "prompt": "a", "temperature": NaN}', "temperature"),
    (b'{"model": "fake", "prompt": "\\ud800"}', "prompt"),
]


@pytest.mark.parametrize(("body", "words"), RAW, ids=lambda value: str(value)[:30])
def test_what_is_no_request(client: httpx.Client, body: bytes, words: str) -> None:
    answer = client.post("/v1/completions", content=body, headers={"content-type": "application/json"})
    assert words in _refused(answer, 400)
    assert client.post("/v1/completions", json=PLAIN).status_code == 200


FIELDS: list[tuple[dict[str, Any], str]] = [
    ({"max_token": 3}, "unknown field 'max_token' (did you mean max_tokens?)"),
    ({"tools": []}, "unknown field 'tools'"),
    ({"max_tokens": -1}, "max_tokens"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": 10**9}, "max_tokens"),
    ({"max_tokens": 5000}, "this model has room for 255"),
    ({"max_tokens": "3"}, "max_tokens"),
    ({"max_tokens": 2.5}, "max_tokens"),
    ({"max_tokens": True}, "max_tokens"),
    ({"prompt": 3}, "prompt"),
    ({"prompt": []}, "prompt"),
    ({"prompt": ""}, "the prompt is empty"),
    ({"prompt": ["a", "b"]}, "prompt"),
    ({"prompt": [1, 9999]}, "prompt holds token 9999"),
    ({"prompt": [-1]}, "prompt"),
    ({"prompt": "word " * 300}, "this model reads 256"),
    ({"temperature": 9}, "temperature"),
    ({"temperature": "hot"}, "temperature"),
    ({"top_p": 0}, "top_p"),
    ({"n": 2}, "n: "),
    ({"stop": [""]}, "stop"),
    ({"stop": ["a"] * 5}, "stop"),
    ({"logprobs": 99}, "logprobs"),
    ({"logit_bias": {"9999": 1}}, "logit_bias names token 9999"),
    ({"logit_bias": {"x": 1}}, "logit_bias"),
    ({"stream": "yes"}, "stream"),
    ({"stream_options": {"include_usage": True}}, "stream_options needs stream"),
    ({"seed": 2**70}, "seed"),
    ({"echo": True}, "echo"),
    ({"a\nb": 1}, "unknown field"),
]


@pytest.mark.parametrize(("change", "words"), FIELDS, ids=lambda value: str(value)[:40])
def test_a_field_that_cannot_be(client: httpx.Client, change: dict[str, Any], words: str) -> None:
    message = _refused(client.post("/v1/completions", json={**PLAIN, **change}), 400)
    assert words in message
    assert "function-" not in message
    assert "constrained" not in message


MESSAGES: list[tuple[dict[str, Any], str]] = [
    ({"messages": []}, "messages"),
    ({"messages": "a"}, "messages"),
    ({"messages": [{"role": "wizard", "content": "a"}]}, "messages.0.role"),
    ({"messages": [{"role": "user"}]}, "messages.0.content"),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
        "messages.0.content",
    ),
    ({"messages": [{"role": "user", "content": "a", "wisdom": 1}]}, "unknown field 'messages.0.wisdom'"),
    ({"top_logprobs": 2}, "top_logprobs needs logprobs"),
    ({"max_completion_tokens": 2}, "not both"),
    ({"response_format": {"type": "json_object"}}, "response_format"),
]


@pytest.mark.parametrize(("change", "words"), MESSAGES, ids=lambda value: str(value)[:40])
def test_a_conversation_that_cannot_be(client: httpx.Client, change: dict[str, Any], words: str) -> None:
    assert words in _refused(client.post("/v1/chat/completions", json={**CHAT, **change}), 400)


def test_a_template_that_refuses(
    served: Served, client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served.reader._tokenizer, "chat_template", "{{ raise_exception('no system here') }}")
    assert "no system here" in _refused(client.post("/v1/chat/completions", json=CHAT), 400)
    monkeypatch.setattr(served.reader._tokenizer, "chat_template", "{{ ''.__class__.__mro__ }}")
    _refused(client.post("/v1/chat/completions", json=CHAT), 400)
    monkeypatch.setattr(served.reader._tokenizer, "chat_template", None)
    assert "no chat template" in _refused(client.post("/v1/chat/completions", json=CHAT), 400)


def test_other_places_and_ways(client: httpx.Client) -> None:
    _refused(client.get("/v1/nothing"), 404)
    _refused(client.get("/v1/completions"), 405)
    _refused(
        client.post(
            "/v1/completions", content=b"a=b", headers={"content-type": "application/x-www-form-urlencoded"}
        ),
        400,
    )
    assert "localhost only" in _refused(client.get("/health", headers={"host": "evil.example"}), 403)
    assert client.get("/health").json() == {"status": "ok"}


def test_a_huge_body_is_not_read(client: httpx.Client) -> None:
    assert "5000 are allowed" in _refused(client.post("/v1/completions", content=b"x" * 6000), 413)

    def drops() -> Iterator[bytes]:
        for _ in range(60):
            yield b"x" * 100

    assert "5000" in _refused(client.post("/v1/completions", content=drops()), 413)
    assert client.post("/v1/completions", json=PLAIN).status_code == 200


def _connect(client: httpx.Client) -> socket.socket:
    return socket.create_connection((client.base_url.host, client.base_url.port or 80), timeout=5)


def test_a_slow_client(client: httpx.Client) -> None:
    with _connect(client) as line:
        line.sendall(
            b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\ncontent-type:"
            b" application/json\r\n\r\n{"
        )
        assert b"408" in line.recv(1000)
    with _connect(client) as line:
        line.sendall(b"POST /v1/comp")
        with suppress(ConnectionResetError):
            assert line.recv(1000) == b""
    assert client.post("/v1/completions", json=PLAIN).status_code == 200


def test_noise(client: httpx.Client) -> None:
    with _connect(client) as line:
        line.sendall(bytes(range(256)) * 4 + b"\r\n\r\n")
        assert line.recv(1000).startswith(b"HTTP/1.1 400")
    assert client.post("/v1/completions", json=PLAIN).status_code == 200


def test_a_client_that_goes_away_in_the_middle(make: Callable[..., Served]) -> None:
    served = make(gate=GATE, seconds=0.01)
    with listening(served.app, GATE) as address, httpx.Client(base_url=address, timeout=10) as client:
        with client.stream(
            "POST", "/v1/completions", json={**PLAIN, "max_tokens": 200, "stream": True}
        ) as answer:
            next(answer.iter_bytes())
        _wait_for(lambda: served.worker.state().running == 0)
        assert served.model.opened[-1].closed
        assert len(served.model.opened[-1].tokens) < 150
        assert client.get("/health").status_code == 200


def test_a_client_that_goes_away_before_the_answer(make: Callable[..., Served]) -> None:
    served = make(gate=GATE, seconds=0.01)
    with listening(served.app, GATE) as address, httpx.Client(base_url=address) as client:
        with pytest.raises(httpx.ReadTimeout):
            client.post("/v1/completions", json={**PLAIN, "max_tokens": 200}, timeout=0.3)
        _wait_for(lambda: served.worker.state().running == 0)
        assert len(served.model.opened[-1].tokens) < 150
        assert client.post("/v1/completions", json=PLAIN).status_code == 200


def test_an_api_key(make: Callable[..., Served]) -> None:
    gate = RequestGuard(key="secret")
    served = make(gate=gate)
    with listening(served.app) as address, httpx.Client(base_url=address) as client:
        for given in (
            {},
            {"authorization": "Bearer wrong"},
            {"authorization": "Bearer \xff".encode("latin-1")},
            {"authorization": "secret2"},
        ):
            assert "API key" in _refused(client.post("/v1/completions", json=PLAIN, headers=given), 401)  # type: ignore[arg-type]
        for path in ("/v1/models", "/metrics", "/state"):
            _refused(client.get(path), 401)
        assert client.get("/").status_code == client.get("/health").status_code == 200
        answer = client.post(
            "/v1/completions", json={**PLAIN, "temperature": 0}, headers={"authorization": "Bearer secret"}
        )
        assert answer.json()["choices"][0]["text"] == served.decode(continued(served.reader._encoded("a"), 2))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_model_that_fails(make: Callable[..., Served]) -> None:
    served = make()
    served.model.broken = True
    with listening(served.app) as address, httpx.Client(base_url=address) as client:
        answer = client.post("/v1/completions", json={**PLAIN, "max_tokens": 5})
        assert "the model failed" in _refused(answer, 500)
        _wait_for(lambda: not served.worker._thread.is_alive())
        _refused(client.get("/health"), 503)
        _refused(client.post("/v1/completions", json=PLAIN), 503)


def _wait_for(met: Callable[[], bool]) -> None:
    for _ in range(500):
        if met():
            return
        time.sleep(0.01)
    raise AssertionError("it never came")
