"""Amounts of memory, lists of names, and options that need another."""

from __future__ import annotations

import pytest

from secateur.cli.shared import options
from secateur_runtime.errors import UsageError


def test_amounts_of_memory() -> None:
    assert [options.memory("--max-ram", text) for text in ("8G", "8GB", "8GiB", "900M", "1.5g")] == [
        8 * 10**9,
        8 * 10**9,
        8 * 2**30,
        900 * 10**6,
        1_500_000_000,
    ]
    for text in ("", "8X", "G"):
        with pytest.raises(UsageError):
            options.memory("--max-ram", text)


def test_an_amount_that_is_none_names_the_option() -> None:
    with pytest.raises(UsageError, match=r"--max-ram '8X' is no amount of memory: write 8G or 900M"):
        options.memory("--max-ram", "8X")


def test_names_in_a_list() -> None:
    assert options.separated("arc_easy, wikitext,,") == ["arc_easy", "wikitext"]
    assert options.separated(None) == options.separated(" , ") == []


def test_options_that_would_do_nothing_are_refused() -> None:
    options.needs("--tasks", "arc_easy", few_shot=1)
    options.needs("--tasks", None, few_shot=None)
    with pytest.raises(UsageError, match=r"^--metrics and --few-shot would do nothing here: add --tasks$"):
        options.needs("--tasks", None, metrics="acc", few_shot=0)
