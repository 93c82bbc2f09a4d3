"""Answers in the two formats, whole and as events."""

from __future__ import annotations

import json
from typing import Any

from secateur_runtime.server.engine.job import AnswerPiece
from secateur_runtime.server.engine.sampling import Chosen
from secateur_runtime.server.http.openai_responses import CHAT, PLAIN, Wording, event

PIECES = [
    AnswerPiece("é ", (Chosen(7, -0.5, ((7, -0.5), (8, -1.0))),)),
    AnswerPiece("b", (Chosen(8, -1.5),), "length", hidden=2),
]


def _name(token: int) -> str:
    return {7: "é ", 8: "b"}[token]


def _body(data: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(data.decode().removeprefix("data: "))
    return found


def test_a_whole_completion() -> None:
    body = Wording(PLAIN, "tiny", 3, _name).whole(PIECES)
    assert (body["object"], body["model"], body["id"][:5]) == ("text_completion", "tiny", "cmpl-")
    (choice,) = body["choices"]
    assert (choice["text"], choice["finish_reason"]) == ("é b", "length")
    assert choice["logprobs"] == {
        "tokens": ["é ", "b"],
        "token_logprobs": [-0.5, -1.5],
        "top_logprobs": [{"é ": -0.5, "b": -1.0}, {}],
        "text_offset": [0, 2],
    }
    assert body["usage"] == {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}


def test_a_whole_chat() -> None:
    (choice,) = Wording(CHAT, "tiny", 3, _name).whole(PIECES)["choices"]
    assert choice["message"] == {"role": "assistant", "content": "é b", "refusal": None}
    first = choice["logprobs"]["content"][0]
    assert (first["token"], first["bytes"]) == ("é ", [0xC3, 0xA9, 0x20])
    assert [row["logprob"] for row in first["top_logprobs"]] == [-0.5, -1.0]


def test_events_of_a_chat_open_with_the_role_and_close_with_done() -> None:
    wording = Wording(CHAT, "tiny", 3, _name)
    assert _body(wording.opening())["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert _body(wording.piece(PIECES[0]))["choices"][0]["delta"] == {"content": "é "}
    assert _body(wording.piece(AnswerPiece("", (), "stop")))["choices"][0]["delta"] == {}
    told, done = wording.closing(4, usage=True).split(b"\n\n", 1)
    assert (_body(told)["choices"], _body(told)["usage"]["total_tokens"]) == ([], 7)
    assert done == b"data: [DONE]\n\n" == wording.closing(4, usage=False)


def test_offsets_continue_from_event_to_event() -> None:
    wording = Wording(PLAIN, "tiny", 3, _name)
    assert wording.opening() == b""
    found = [_body(wording.piece(piece))["choices"][0]["logprobs"]["text_offset"] for piece in PIECES]
    assert found == [[0], [2]]


def test_without_probabilities_there_are_no_logprobs() -> None:
    (choice,) = Wording(PLAIN, "tiny", 1, _name).whole([AnswerPiece("b", (Chosen(8),), "stop")])["choices"]
    assert choice["logprobs"] is None


def test_an_event_is_one_line_of_utf8() -> None:
    assert event({"a": "é\n"}) == 'data: {"a":"é\\n"}\n\n'.encode()
