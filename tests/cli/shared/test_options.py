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
