"""schemathesis against the server's own description.

Whatever fits it, and whatever does not, the server answers as it says.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance
from tests.secateur_runtime.server.conftest import Served, listening
from tests.secateur_runtime.server.http_requests import CHAT, PLAIN, refused

EXAMPLES = 20
# What no description of one field can say: sizes of this model, and fields that depend on one another.
MEANT = re.compile("this model|prompt is empty|needs|not both")
OPERATIONS = [
    *(("POST", path) for path in ("/v1/chat/completions", "/v1/completions")),
    *(("GET", path) for path in ("/v1/models", "/v1/models/{name}", "/health", "/state", "/metrics")),
]


@pytest.fixture(scope="module")
def described(served: Served) -> Iterator[Any]:
    with listening(served.app) as address:
        yield schemathesis.openapi.from_url(f"{address}/openapi.json")


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_what_fits_the_description(described: Any, method: str, path: str) -> None:
    accepted = [0]

    def run(case: Any) -> None:
        answer = _named(case).call(timeout=20)
        accepted[0] += answer.status_code == 200
        meant = answer.status_code == 413 or (
            answer.status_code == 400 and MEANT.search(answer.json()["error"]["message"])
        )
        case.validate_response(answer, excluded_checks=[positive_data_acceptance] if meant else [])

    _generate(run, described[path][method].as_strategy(generation_mode=GenerationMode.POSITIVE))
    assert accepted[0] or "{" in path, "some requests that fit must be answered"


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
def test_what_does_not(described: Any, path: str) -> None:
    def run(case: Any) -> None:
        answer = _named(case).call(timeout=20)
        case.validate_response(
            answer, excluded_checks=[negative_data_rejection] if answer.status_code == 413 else []
        )

    _generate(run, described[path]["POST"].as_strategy(generation_mode=GenerationMode.NEGATIVE))


def _generate(run: Callable[[Any], None], cases: Any) -> None:
    checks = list(HealthCheck)
    bounded = settings(
        max_examples=EXAMPLES,
        derandomize=True,
        phases=[Phase.generate],
        deadline=None,
        database=None,
        suppress_health_check=checks,
    )
    bounded(given(case=cases)(run))()


def _named(case: Any) -> Any:
    """A case that asks for the model there is, so that it is not refused for its name alone."""
    if (
        isinstance(case.body, dict)
        and isinstance(case.body.get("model"), str)
        and len(case.body["model"]) <= 300
    ):
        case.body["model"] = "fake"
    return case


def test_the_description_names_everything(served: Served) -> None:
    description = served.app.openapi()
    assert {(method.upper(), path) for path, ways in description["paths"].items() for method in ways} == set(
        OPERATIONS
    )
    assert "422" not in str(description["paths"])


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
def test_a_field_that_cannot_be(http: httpx.Client, change: dict[str, Any], words: str) -> None:
    message = refused(http.post("/v1/completions", json={**PLAIN, **change}), 400)
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
def test_a_conversation_that_cannot_be(http: httpx.Client, change: dict[str, Any], words: str) -> None:
    assert words in refused(http.post("/v1/chat/completions", json={**CHAT, **change}), 400)


@pytest.mark.parametrize("seed", [2**63 + 191, -(2**63), 0])
def test_a_seed_that_validators_take_for_one_is_one(http: httpx.Client, seed: int) -> None:
    """Read as a float, 2^63 + 191 is not above the bound."""
    body = {"model": "fake", "prompt": "a", "max_tokens": 2, "seed": seed}
    assert http.post("/v1/completions", json=body).status_code == 200
