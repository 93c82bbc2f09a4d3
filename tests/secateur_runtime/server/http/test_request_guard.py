"""The guard: hosts, keys, sizes, and clients that are slow or send noise."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import suppress

import httpx
from tests.secateur_runtime.server.conftest import Served, listening
from tests.secateur_runtime.server.fakes import continued
from tests.secateur_runtime.server.http_requests import PLAIN, refused

from secateur_runtime.server.http.request_guard import RequestGuard


def test_a_huge_body_is_not_read(http: httpx.Client) -> None:
    assert "5000 are allowed" in refused(http.post("/v1/completions", content=b"x" * 6000), 413)

    def drops() -> Iterator[bytes]:
        for _ in range(60):
            yield b"x" * 100

    assert "5000" in refused(http.post("/v1/completions", content=drops()), 413)
    assert http.post("/v1/completions", json=PLAIN).status_code == 200


def _connect(http: httpx.Client) -> socket.socket:
    return socket.create_connection((http.base_url.host, http.base_url.port or 80), timeout=5)


def test_a_slow_client(http: httpx.Client) -> None:
    with _connect(http) as line:
        line.sendall(
            b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\ncontent-type:"
            b" application/json\r\n\r\n{"
        )
        assert b"408" in line.recv(1000)
    with _connect(http) as line:
        line.sendall(b"POST /v1/comp")
        with suppress(ConnectionResetError):
            assert line.recv(1000) == b""
    assert http.post("/v1/completions", json=PLAIN).status_code == 200


def test_noise(http: httpx.Client) -> None:
    with _connect(http) as line:
        line.sendall(bytes(range(256)) * 4 + b"\r\n\r\n")
        assert line.recv(1000).startswith(b"HTTP/1.1 400")
    assert http.post("/v1/completions", json=PLAIN).status_code == 200


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
            answer = client.post("/v1/completions", json=PLAIN, headers=given)  # type: ignore[arg-type]
            assert "API key" in refused(answer, 401)
        for path in ("/v1/models", "/metrics", "/state"):
            refused(client.get(path), 401)
        assert client.get("/").status_code == client.get("/health").status_code == 200
        answer = client.post(
            "/v1/completions", json={**PLAIN, "temperature": 0}, headers={"authorization": "Bearer secret"}
        )
        assert answer.json()["choices"][0]["text"] == served.decode(continued(served.reader._encoded("a"), 2))
