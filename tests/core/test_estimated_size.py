"""An estimated size: bytes by bits, and what a budget leaves."""

from __future__ import annotations

import pytest

from secateur.core.estimated_size import EstimatedSize
from secateur.core.target import Limit, Target

SIZE = EstimatedSize(inside=800.0, outside=200.0, bits=4.0, embedding_bits=16.0)


def limit(text: str) -> Limit:
    return Target.of(text).limits[0]


def test_bytes_count_both_parts() -> None:
    assert SIZE.bytes == 400 + 400


@pytest.mark.parametrize(
    ("text", "whole", "inside"),
    [
        ("params=700", 700, 500),
        ("params=70%", 700, 500),
        ("params=100", 100, 0),
        ("size=300", 600, 400),
        ("ratio=0.25", None, 600),
    ],
)
def test_what_a_budget_leaves(text: str, whole: float | None, inside: float) -> None:
    if whole is not None:
        assert SIZE.left(limit(text)) == pytest.approx(whole)
    assert SIZE.left_inside(limit(text)) == pytest.approx(inside)
