"""Send pieces to a client, and cancel the job as soon as it disconnects."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from fastapi import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from secateur_runtime.server.engine.job import AnswerPiece, Engine, GenerationJob
from secateur_runtime.server.http.openai_responses import Wording, event
from secateur_runtime.server.refusals import RefusedError, error_body

_HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}

Pieces = AsyncIterator[AnswerPiece]


async def collected(
    engine: Engine, job: GenerationJob, pieces: Pieces, request: Request, most: int = 0
) -> list[AnswerPiece]:
    """Return the pieces of a job to its end, or the first `most`.

    Raises RefusedError if the engine gave up or the client disconnected.
    """
    disconnected = asyncio.ensure_future(_disconnected(request.receive))
    found: list[AnswerPiece] = []
    try:
        while not (found and (found[-1].finish or len(found) == most)):
            piece = asyncio.ensure_future(anext(pieces))
            await asyncio.wait({piece, disconnected}, return_when=asyncio.FIRST_COMPLETED)
            if not piece.done():
                piece.cancel()
                raise RefusedError(400, "the client went away")
            found.append(piece.result())
    # A cancelled request frees its place too.
    except BaseException:
        engine.cancel(job)
        raise
    finally:
        disconnected.cancel()
    return found


class StreamedAnswer(Response):
    """Server-sent events of a job.

    first: pieces received already. usage: whether the last event reports numbers of tokens.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        engine: Engine,
        job: GenerationJob,
        pieces: Pieces,
        wording: Wording,
        first: Sequence[AnswerPiece],
        *,
        usage: bool,
    ) -> None:
        self.status_code = 200
        self.background = None
        self.init_headers(_HEADERS)
        self._engine = engine
        self._job = job
        self._pieces = pieces
        self._wording = wording
        self._first = first
        self._usage = usage

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send every piece as it comes; a client that disconnects or does not read ends the job."""
        sending = asyncio.ensure_future(self._send(send))
        disconnected = asyncio.ensure_future(_disconnected(receive))
        try:
            await asyncio.wait({sending, disconnected}, return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
        except ConnectionError:
            return
        finally:
            sending.cancel()
            disconnected.cancel()
            self._engine.cancel(self._job)

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async for part in self._events():
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _events(self) -> AsyncIterator[bytes]:
        made = 0
        if opening := self._wording.opening():
            yield opening
        try:
            async for piece in self._all():
                made += piece.made
                if piece.text or piece.tokens or piece.finish:
                    yield self._wording.piece(piece)
        except RefusedError as error:
            yield event(error_body(error.status, str(error)))
            return
        yield self._wording.closing(made, usage=self._usage)

    async def _all(self) -> AsyncIterator[AnswerPiece]:
        for piece in self._first:
            yield piece
        if not self._first[-1].finish:
            async for piece in self._pieces:
                yield piece


async def _disconnected(receive: Receive) -> None:
    """Return when the client has disconnected."""
    while (await receive())["type"] != "http.disconnect":
        pass
