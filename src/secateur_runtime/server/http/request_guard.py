"""Checks on every request before the application reads it.

They concern its host, its API key, its size and the time it takes to arrive.
"""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from secateur_runtime.server.refusals import RefusedError, error_body

OPEN = frozenset({"/", "/health"})
"""Paths that need no key."""
_LOCAL = frozenset({"localhost", "127.0.0.1", "[::1]"})


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestGuard:
    """Which requests are let in.

    key: API key that every request must carry, empty for none.
    local: whether only requests to a local host name are accepted.
    body: most bytes of a request. arrival: seconds in which it must arrive. stall: seconds after which a
    client that does not read is disconnected.
    """

    key: str = ""
    local: bool = True
    body: int = 2_000_000
    arrival: float = 20.0
    stall: float = 30.0


class Guard:
    """An ASGI application that guards another one."""

    def __init__(self, app: ASGIApp, gate: RequestGuard) -> None:
        self._app = app
        self._gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it in one line."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            self._check(scope)
            body = await self._body(receive) if scope["method"] in ("POST", "PUT", "PATCH") else b""
        except RefusedError as error:
            await _refuse(send, error)
            return
        if body is not None:
            await self._app(scope, _replay(body, receive), self._hurried(send))

    def _check(self, scope: Scope) -> None:
        headers = {bytes(name): bytes(value) for name, value in scope["headers"]}
        host = headers.get(b"host", b"").decode("latin-1")
        if self._gate.local and host.rpartition(":")[0] not in _LOCAL and host not in _LOCAL:
            raise RefusedError(403, "this server answers requests to localhost only")
        given = headers.get(b"authorization", b"").removeprefix(b"Bearer ").strip()
        if (
            self._gate.key
            and scope["path"] not in OPEN
            and not hmac.compare_digest(given, self._gate.key.encode())
        ):
            raise RefusedError(401, "the API key is missing or wrong: send it as 'Authorization: Bearer KEY'")
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > self._gate.body:
            raise RefusedError(413, f"the request has {int(length)} bytes, {self._gate.body} are allowed")

    async def _body(self, receive: Receive) -> bytes | None:
        """Return the whole body, or None if the client disconnected before its end."""
        parts = bytearray()
        try:
            async with asyncio.timeout(self._gate.arrival):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    parts += message.get("body", b"")
                    if len(parts) > self._gate.body:
                        raise RefusedError(
                            413, f"the request has more than the {self._gate.body} bytes that are allowed"
                        )
                    if not message.get("more_body"):
                        return bytes(parts)
        except TimeoutError:
            raise RefusedError(
                408, f"the request was not here within {self._gate.arrival:g} seconds"
            ) from None

    def _hurried(self, send: Send) -> Send:
        """Return a `send` that raises ConnectionError for a client that does not read."""

        async def sending(message: Message) -> None:
            try:
                async with asyncio.timeout(self._gate.stall):
                    await send(message)
            except TimeoutError:
                raise ConnectionError("the client reads nothing") from None

        return sending


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that yields the body already read, and then waits for the disconnection."""
    sent = False

    async def receiving() -> Message:
        nonlocal sent
        if not sent:
            sent = True
            return {"type": "http.request", "body": body, "more_body": False}
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return message

    return receiving


async def _refuse(send: Send, error: RefusedError) -> None:
    body = json.dumps(error_body(error.status, str(error))).encode()
    # The rest of the request is not awaited.
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class Patient(H11Protocol):
    """An HTTP protocol that closes a connection unless the head of a request arrives in time."""

    arrival = 20.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the timer."""
        super().connection_made(transport)
        self._waiting = self.loop.call_later(self.arrival, self._give_up)

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the timer."""
        self._waiting.cancel()
        super().connection_lost(exc)

    def _give_up(self) -> None:
        if self.cycle is None and not self.transport.is_closing():
            self.transport.abort()


def protocol(gate: RequestGuard) -> type[Patient]:
    """Return the protocol class with the arrival time of `gate`."""
    attributes: Mapping[str, Any] = {"arrival": gate.arrival}
    return type("Patient", (Patient,), dict(attributes))
