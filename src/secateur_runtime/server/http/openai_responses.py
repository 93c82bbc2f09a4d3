"""Format answers for OpenAI's clients: whole, or piece by piece."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from secateur_runtime.server.engine.job import AnswerPiece
from secateur_runtime.server.engine.sampling import Chosen

Name = Callable[[int], str]
"""Returns the text of one token."""


@dataclass(frozen=True)
class Dialect:
    """The format of the answers of one endpoint.

    whole, part: value of `object` in a whole answer and in a piece. prefix: start of ids. chat: whether
    answers are messages.
    """

    whole: str
    part: str
    prefix: str
    chat: bool


CHAT = Dialect("chat.completion", "chat.completion.chunk", "chatcmpl-", chat=True)
PLAIN = Dialect("text_completion", "text_completion", "cmpl-", chat=False)


class Wording:
    """Formats one answer.

    tokens: number of tokens of the prompt. name: returns the text of a token.
    """

    def __init__(self, dialect: Dialect, model: str, tokens: int, name: Name) -> None:
        self._dialect = dialect
        self._name = name
        self._tokens = tokens
        self._head = {"id": dialect.prefix + uuid.uuid4().hex, "created": int(time.time()), "model": model}
        self._offset = 0

    def whole(self, pieces: Sequence[AnswerPiece]) -> dict[str, Any]:
        """Return the body of a whole answer; the last piece says why it ended."""
        text = "".join(piece.text for piece in pieces)
        tokens = [chosen for piece in pieces for chosen in piece.tokens]
        choice: dict[str, Any] = {
            "index": 0,
            "finish_reason": pieces[-1].finish,
            "logprobs": self._logprobs(tokens),
        }
        choice |= (
            {"message": {"role": "assistant", "content": text, "refusal": None}}
            if self._dialect.chat
            else {"text": text}
        )
        return {
            **self._head,
            "object": self._dialect.whole,
            "choices": [choice],
            "usage": self.usage(sum(piece.made for piece in pieces)),
        }

    def opening(self) -> bytes:
        """Return the event before all pieces, empty if the endpoint has none."""
        return (
            self._event(
                {"delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}
            )
            if self._dialect.chat
            else b""
        )

    def piece(self, piece: AnswerPiece) -> bytes:
        """Return the event of a piece."""
        choice: dict[str, Any] = {
            "logprobs": self._logprobs(piece.tokens),
            "finish_reason": piece.finish or None,
        }
        if self._dialect.chat:
            choice["delta"] = {"content": piece.text} if piece.text or not piece.finish else {}
        else:
            choice["text"] = piece.text
        return self._event(choice)

    def closing(self, made: int, *, usage: bool) -> bytes:
        """Return the events after the last piece; made: tokens of the answer."""
        told = (
            event({**self._head, "object": self._dialect.part, "choices": [], "usage": self.usage(made)})
            if usage
            else b""
        )
        return told + b"data: [DONE]\n\n"

    def usage(self, made: int) -> dict[str, int]:
        """Return the numbers of tokens of prompt and answer."""
        return {"prompt_tokens": self._tokens, "completion_tokens": made, "total_tokens": self._tokens + made}

    def _event(self, choice: dict[str, Any]) -> bytes:
        return event({**self._head, "object": self._dialect.part, "choices": [{"index": 0, **choice}]})

    def _logprobs(self, tokens: Sequence[Chosen]) -> dict[str, Any] | None:
        if all(chosen.logprob is None for chosen in tokens):
            return None
        return self._chat_logprobs(tokens) if self._dialect.chat else self._plain_logprobs(tokens)

    def _chat_logprobs(self, tokens: Sequence[Chosen]) -> dict[str, Any]:
        rows = [
            {
                **self._entry(chosen.token, chosen.logprob),
                "top_logprobs": [self._entry(token, logprob) for token, logprob in chosen.top],
            }
            for chosen in tokens
        ]
        return {"content": rows, "refusal": None}

    def _entry(self, token: int, logprob: float | None) -> dict[str, Any]:
        text = self._name(token)
        return {"token": text, "logprob": logprob, "bytes": list(text.encode("utf-8"))}

    def _plain_logprobs(self, tokens: Sequence[Chosen]) -> dict[str, Any]:
        names = [self._name(chosen.token) for chosen in tokens]
        offsets = []
        for name in names:
            offsets.append(self._offset)
            self._offset += len(name)
        return {
            "tokens": names,
            "token_logprobs": [chosen.logprob for chosen in tokens],
            "top_logprobs": [
                {self._name(token): logprob for token, logprob in chosen.top} for chosen in tokens
            ],
            "text_offset": offsets,
        }


def event(body: dict[str, Any]) -> bytes:
    """Return a server-sent event."""
    return f"data: {json.dumps(body, ensure_ascii=False, separators=(',', ':'))}\n\n".encode()
