from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from secateur.core.pattern import Pattern, Scope
from secateur.transform.mask import choose_mask
from secateur_runtime.errors import SecateurError, UsageError

HALF = Pattern.parse("0.5")


@settings(max_examples=150, deadline=None)
@given(
    st.integers(1, 9),
    st.integers(1, 13),
    st.floats(0, 0.99),
    st.integers(1, 4),
    st.sampled_from(["row", "tensor"]),
    st.integers(0, 99),
)
def test_count_is_exact_and_nothing_better_is_pruned(
    rows: int, width: int, ratio: float, levels: int, scope: Scope, seed: int
) -> None:
    # few levels make many ties
    score = torch.randint(levels, (rows, width), generator=torch.Generator().manual_seed(seed)).float()
    pattern = Pattern(ratio)
    mask = choose_mask(score, pattern, scope)
    assert int(mask.sum()) == pattern.kept(rows * width)
    if scope == "row":
        assert int(mask.sum(1).max() - mask.sum(1).min()) <= 1
    for kept, values in (
        zip(mask, score, strict=True) if scope == "row" else [(mask.flatten(), score.flatten())]
    ):
        if kept.any() and not kept.all():
            assert float(values[kept].min()) >= float(values[~kept].max())


@pytest.mark.parametrize(("n", "m"), [(2, 4), (4, 8), (8, 16), (1, 4)])
def test_groups_hold_exactly_n(n: int, m: int) -> None:
    score = torch.randint(3, (6, 48), generator=torch.Generator().manual_seed(0)).float()
    mask = choose_mask(score, Pattern.parse(f"{n}:{m}"))
    assert bool((mask.view(6, -1, m).sum(-1) == n).all())


def test_first_of_equals_is_kept() -> None:
    assert choose_mask(torch.ones(2, 4), HALF).tolist() == [[True, True, False, False]] * 2
    assert choose_mask(torch.ones(2, 4), HALF, "tensor").tolist() == [[True] * 4, [False] * 4]
    assert choose_mask(torch.ones(1, 8), Pattern.parse("2:4")).tolist() == [[True, True, False, False] * 2]


def test_rows_share_out_what_does_not_divide() -> None:
    mask = choose_mask(torch.rand(4, 5, generator=torch.Generator().manual_seed(0)), HALF)
    assert mask.sum(1).tolist() == [2, 3, 2, 3]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_every_float_type(dtype: torch.dtype) -> None:
    score = torch.tensor([[1, 4, 3, 2]], dtype=dtype)
    assert choose_mask(score, HALF).tolist() == [[False, True, True, False]]


def test_infinite_scores_are_kept() -> None:
    assert choose_mask(torch.tensor([[1.0, torch.inf, 2.0, 0.0]]), HALF).tolist() == [
        [False, True, True, False]
    ]


def test_refuses_nan_and_widths_that_do_not_fit() -> None:
    with pytest.raises(SecateurError, match="not a number"):
        choose_mask(torch.tensor([[1.0, torch.nan]]), HALF)
    with pytest.raises(UsageError, match="multiple of 4"):
        choose_mask(torch.ones(1, 6), Pattern.parse("2:4"))
