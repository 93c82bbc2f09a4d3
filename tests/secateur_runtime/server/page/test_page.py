"""The built-in page in a browser: live figures, a chat, nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.browser import browser, light
from tests.secateur_runtime.server.conftest import Served, listening
from tests.secateur_runtime.server.fakes import WEIGHTS

from secateur_runtime.server.http.request_guard import RequestGuard
from secateur_runtime.server.page.page import page


def test_a_chat_while_memory_shrinks(make: Callable[..., Served]) -> None:
    served = make(seconds=0.01)
    with listening(served.app) as address, browser(address) as (shown, said, asked):
        shown.wait_for_function("() => document.getElementById('level').textContent == '0 of 3'")
        assert shown.locator("#memory-chart path").count() == 3
        shown.locator("#text").fill("What is <b>pruning</b>?")
        shown.locator("#text").press("Enter")
        shown.wait_for_function(
            "() => document.querySelector('#log .assistant')?.textContent.length > 5 &&"
            " document.getElementById('stop').disabled"
        )
        assert shown.locator("#log .user").text_content() == "What is <b>pruning</b>?"
        served.senses.limit = WEIGHTS[2] + 2000
        shown.wait_for_function("() => document.getElementById('level').textContent == '2 of 3'")
        assert "loss 2.300" in (shown.locator("#level-note").text_content() or "")
        assert said == []
        assert all(url.startswith((address, "data:")) for url in asked), asked


def test_stop_ends_the_request(make: Callable[..., Served]) -> None:
    served = make(seconds=0.05)
    with listening(served.app) as address, browser(address) as (shown, said, _):
        shown.locator("#text").fill("Go on")
        shown.get_by_role("button", name="Send").click()
        shown.wait_for_function("() => document.querySelector('#log .assistant')?.textContent.length > 0")
        shown.get_by_role("button", name="Stop").click()
        shown.wait_for_function("() => !document.getElementById('send').disabled")
        for _ in range(100):
            if served.model.opened[0].closed:
                break
            shown.wait_for_timeout(20)
        assert served.model.opened[0].closed
        assert said == []


def test_a_key_is_asked_for(make: Callable[..., Served]) -> None:
    served = make(gate=RequestGuard(key="secret"))
    with listening(served.app) as address, browser(address) as (shown, _, asked):
        shown.wait_for_selector("#key", state="visible")
        assert "API key is missing" in (shown.locator("#status").text_content() or "")
        shown.locator("#key").fill("secret")
        shown.locator("#key").blur()
        shown.wait_for_function("() => document.getElementById('level').textContent == '0 of 3'")
        assert not any("secret" in url for url in asked)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone(make: Callable[..., Served], scheme: str) -> None:
    with listening(make().app) as address, browser(address, 360, scheme) as (shown, said, _):
        shown.wait_for_function("() => document.querySelectorAll('svg path').length == 5")
        assert shown.evaluate("document.documentElement.scrollWidth") <= 360
        paper, ink = shown.evaluate(
            "[getComputedStyle(document.body).backgroundColor,"
            " getComputedStyle(document.querySelector('h1')).color]"
        )
        assert (light(paper) > 200) == (scheme == "light")
        assert (light(ink) < 100) == (scheme == "light")
        assert (
            shown.evaluate("parseFloat(getComputedStyle(document.querySelector('textarea')).fontSize)") >= 16
        ), "a phone zooms into smaller ones"
        assert said == []


def test_the_name_of_a_model_is_no_markup() -> None:
    text, headers = page("<script>alert(1)</script>")
    assert "<script>alert" not in text
    assert "'unsafe" not in headers["content-security-policy"]
