"""Pages in headless Chromium, and what they look like there."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest


@contextmanager
def browser(
    address: str, width: int = 1000, scheme: Any = "light"
) -> Iterator[tuple[Any, list[str], list[str]]]:
    """Yield the page, what the console said and what was asked of the network."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        shown, said, asked = (
            opened.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme),
            list[str](),
            list[str](),
        )
        shown.on("console", lambda message: said.append(message.text))
        shown.on("pageerror", lambda error: said.append(str(error)))
        shown.on("request", lambda request: asked.append(request.url))
        shown.goto(address)
        yield shown, said, asked
        opened.close()


def light(colour: str) -> float:
    """Return how light a computed colour is, 0 to 255."""
    numbers = [float(number) for number in re.findall(r"[\d.]+", colour)[:3]]
    return sum(numbers) / 3
