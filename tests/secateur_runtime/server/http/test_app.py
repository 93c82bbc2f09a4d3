"""OpenAI's endpoints, by OpenAI's own client and by hand."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from tests.secateur_runtime.server.conftest import Served, listening
from tests.secateur_runtime.server.fakes import continued, logits_after
from tests.secateur_runtime.server.http_requests import PLAIN, refused

openai = pytest.importorskip("openai", reason="pip install openai")


@pytest.fixture(scope="module")
def client(served: Served) -> Iterator[Any]:
    with (
        listening(served.app) as address,
        openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0, timeout=20) as made,
    ):
        yield made


def _expected(served: Served, prompt: str, count: int) -> str:
    return served.decode(continued(served.reader._encoded(prompt), count))


def test_a_completion_is_what_the_model_says(served: Served, client: Any) -> None:
    answer = client.completions.create(model="fake", prompt="Pruning removes", max_tokens=12, temperature=0)
    assert answer.choices[0].text == _expected(served, "Pruning removes", 12)
    assert answer.choices[0].finish_reason == "length"
    prompt = len(served.reader._encoded("Pruning removes"))
    assert answer.usage.model_dump()["total_tokens"] == prompt + 12


def test_a_stream_is_the_same_piece_by_piece(served: Served, client: Any) -> None:
    parts = list(
        client.completions.create(
            model="fake",
            prompt="The tree",
            max_tokens=20,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    assert "".join(part.choices[0].text for part in parts if part.choices) == _expected(
        served, "The tree", 20
    )
    assert [part.choices[0].finish_reason for part in parts if part.choices][-1] == "length"
    assert parts[-1].usage.completion_tokens == 20
    assert len(parts) > 10


def test_a_chat(served: Served, client: Any) -> None:
    turns = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": [{"type": "text", "text": "Who are"}, {"type": "text", "text": " you?"}]},
    ]
    answer = client.chat.completions.create(
        model="fake", messages=turns, max_completion_tokens=9, temperature=0
    )
    text = "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nWho are you?<|im_end|>\n"
    prompt = served.reader._encoded(text, special=False)
    assert answer.choices[0].message.content == served.decode(continued(prompt, 9))
    parts = list(
        client.chat.completions.create(model="fake", messages=turns, max_tokens=9, temperature=0, stream=True)
    )
    assert parts[0].choices[0].delta.role == "assistant"
    assert "".join(part.choices[0].delta.content or "" for part in parts) == answer.choices[0].message.content
    assert parts[-1].choices[0].finish_reason == "length"


def test_models(client: Any) -> None:
    assert [model.id for model in client.models.list()] == ["fake"]
    assert client.models.retrieve("fake").id == "fake"
    with pytest.raises(openai.NotFoundError, match="no model 'other' here; there is fake"):
        client.models.retrieve("other")
    with pytest.raises(openai.NotFoundError, match="no model 'other'"):
        client.completions.create(model="other", prompt="a")


def test_logprobs(served: Served, client: Any) -> None:
    prompt = served.reader._encoded("The tree")
    exact = logits_after(prompt).astype(np.float64)
    exact -= np.logaddexp.reduce(exact)
    answer = (
        client.completions.create(model="fake", prompt=prompt, max_tokens=3, temperature=0, logprobs=4)
        .choices[0]
        .logprobs
    )
    first = int(exact.argmax())
    assert answer.tokens[0] == served.reader.name(first)
    assert answer.token_logprobs[0] == pytest.approx(exact[first])
    assert sorted(answer.top_logprobs[0].values(), reverse=True) == pytest.approx(
        sorted(exact, reverse=True)[:4]
    )
    assert answer.text_offset[1] == len(answer.tokens[0])
    turns = [{"role": "user", "content": "a"}]
    chat = (
        client.chat.completions.create(
            model="fake", messages=turns, max_tokens=3, logprobs=True, top_logprobs=2
        )
        .choices[0]
        .logprobs
    )
    assert [len(row.top_logprobs) for row in chat.content] == [2, 2, 2]
    assert client.completions.create(model="fake", prompt="a", max_tokens=1).choices[0].logprobs is None


def test_a_stop_string_ends_an_answer(served: Served, client: Any) -> None:
    whole = _expected(served, "Light", 30)
    stop = whole[9:13]
    cut = whole[: whole.index(stop)]
    answer = client.completions.create(
        model="fake", prompt="Light", max_tokens=30, temperature=0, stop=[stop, "never"]
    )
    assert (answer.choices[0].text, answer.choices[0].finish_reason) == (cut, "stop")
    parts = list(
        client.completions.create(
            model="fake", prompt="Light", max_tokens=30, temperature=0, stop=stop, stream=True
        )
    )
    assert "".join(part.choices[0].text for part in parts) == cut


def test_an_end_token_ends_an_answer(served: Served, client: Any) -> None:
    answer = client.completions.create(
        model="fake", prompt="a", max_tokens=9, temperature=0, logit_bias={"2": 100}
    )
    # The fake model's special tokens are far below all others.
    assert answer.choices[0].finish_reason == "length"
    with pytest.MonkeyPatch.context() as patch:
        third = continued(served.reader._encoded("a"), 3)[-1]
        patch.setattr(served.reader, "_ends", frozenset({third}))
        ended = client.completions.create(model="fake", prompt="a", max_tokens=9, temperature=0)
    assert ended.choices[0].finish_reason == "stop"
    assert ended.choices[0].text == _expected(served, "a", 2)
    assert ended.usage.completion_tokens == 2


def test_a_seed_decides(client: Any) -> None:
    def text(seed: int) -> str:
        found: str = (
            client.completions.create(model="fake", prompt="a", max_tokens=20, seed=seed, temperature=1.5)
            .choices[0]
            .text
        )
        return found

    assert text(7) == text(7)
    assert text(7) != text(8)


def test_metrics_and_state(served: Served, client: Any) -> None:
    import httpx

    client.completions.create(model="fake", prompt="a", max_tokens=5)
    address = str(client.base_url).removesuffix("/v1/")
    text = httpx.get(f"{address}/metrics").text
    rows = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert float(rows['secateur_tokens_total{kind="answer"}']) >= 5
    assert float(rows['secateur_requests_total{endpoint="/v1/completions",outcome="length"}']) >= 1
    assert {
        'secateur_memory_bytes{kind="limit"}',
        "secateur_level",
        'secateur_decisions_total{way="shrink"}',
    } <= set(rows)
    state = httpx.get(f"{address}/state").json()
    assert (state["model"], state["levels"], state["weights"]) == ("fake", 4, 100_000)


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
def test_what_is_no_request(http: httpx.Client, body: bytes, words: str) -> None:
    answer = http.post("/v1/completions", content=body, headers={"content-type": "application/json"})
    assert words in refused(answer, 400)
    assert http.post("/v1/completions", json=PLAIN).status_code == 200


def test_other_places_and_ways(http: httpx.Client) -> None:
    refused(http.get("/v1/nothing"), 404)
    refused(http.get("/v1/completions"), 405)
    refused(
        http.post(
            "/v1/completions", content=b"a=b", headers={"content-type": "application/x-www-form-urlencoded"}
        ),
        400,
    )
    assert "localhost only" in refused(http.get("/health", headers={"host": "evil.example"}), 403)
    assert http.get("/health").json() == {"status": "ok"}
