"""The page as people meet it: in a browser, without network, wide and on a phone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.browser import browser, light
from tests.present.comparisons import MAGNITUDE, ROWS, job, write

from secateur.present.comparison_folder import read_cells
from secateur.present.html_page import page

pytest.importorskip("vl_convert", reason="pip install 'secateur[report]'")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write(tmp_path_factory.mktemp("comparison"))
    path = folder / "report.html"
    path.write_text(page(job(), read_cells(folder, job())), encoding="utf-8")
    return path


@contextmanager
def _drawn(path: Path, width: int, scheme: Any = "light") -> Iterator[tuple[Any, list[str], list[str]]]:
    with browser(path.as_uri(), width, scheme) as (shown, said, asked):
        shown.wait_for_function("document.querySelectorAll('.chart svg').length == 3", timeout=60_000)
        yield shown, said, asked


def test_drawn_sorted_and_silent(written: Path) -> None:
    with _drawn(written, 1280) as (shown, said, asked):
        # Vega draws a symbol for each row in the first chart, and a cell for each half of each block in the
        # last.
        assert shown.locator("#quality-size .mark-symbol.role-mark path").count() == len(ROWS)
        assert shown.locator("#removed .mark-rect.role-mark path").count() == 4 * 2 * 2
        shown.get_by_role("button", name="perplexity", exact=True).click()
        assert _column(shown, 6) == ["20.00", "21.00", "22.00", "28.00", "30.00", "45.00"]
        shown.get_by_role("button", name="perplexity", exact=True).click()
        assert _column(shown, 6)[0] == "45.00"
        shown.get_by_role("button", name="speed gain", exact=True).click()
        assert _column(shown, 4)[-1] == "-", "what was not measured comes last"
        shown.get_by_role("button", name="speed gain", exact=True).click()
        assert (_column(shown, 4)[0], _column(shown, 4)[-1]) == ("x 1.80", "-")
        shown.get_by_role("button", name="method", exact=True).click()
        assert _column(shown, 0) == sorted(row.method for row in ROWS)
        assert said == []
        assert asked == [written.as_uri()], "the page loads nothing"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone(written: Path, scheme: str) -> None:
    with _drawn(written, 375, scheme) as (shown, said, _):
        assert shown.evaluate("document.documentElement.scrollWidth") <= 375
        assert (
            max(
                shown.evaluate(
                    "[...document.querySelectorAll('.chart svg')].map(chart =>"
                    " chart.getBoundingClientRect().right)"
                )
            )
            <= 375
        )
        paper, ink = shown.evaluate(
            "[getComputedStyle(document.body).backgroundColor,"
            " getComputedStyle(document.querySelector('.chart svg text')).fill]"
        )
        assert (light(paper) > 200) == (scheme == "light")
        assert (light(ink) < 100) == (scheme == "light")
        assert said == []


def test_whole_in_itself(written: Path) -> None:
    text = written.read_text(encoding="utf-8")
    assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//""", text)
    assert "<b>no</b> room" not in text
    assert "&lt;b&gt;no&lt;/b&gt; room" in text
    assert "/some/where" not in text, "where a file lay is nobody's business"
    assert len(text) < 1_500_000
    assert MAGNITUDE.name in text


def _column(shown: Any, index: int) -> list[str]:
    found: list[str] = shown.locator(f"#rows tbody tr > :nth-child({index + 1})").all_text_contents()
    return found
