from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secateur.allocate.units import Curve, SpreadContext
from secateur.allocate.units.two_stage import stages, two_stage


def test_stages_equal_the_formula() -> None:
    # Llama-2-7B: 32 blocks, 135.3M parameters of FFN and 67.1M of attention each
    assert (
        stages(32, 0.25, 135_266_304, 67_108_864).attention
        == round(32 * 0.25 ** (135_266_304 / 67_108_864 / 1.5))
        == 5
    )
    assert stages(32, 0.5, 135_266_304, 67_108_864).attention == 13


@given(st.integers(1, 80), st.floats(0.01, 0.6), st.integers(1000, 9000), st.integers(1000, 9000))
def test_stages_spend_the_budget(blocks: int, ratio: float, ffn: int, attention: int) -> None:
    found = stages(blocks, ratio, ffn, attention)
    spent = found.attention * attention + found.ffn_ratio * blocks * ffn
    budget = ratio * blocks * (ffn + attention)
    assert spent == pytest.approx(max(budget, found.attention * attention))


def test_groups_of_one_size_keep_one_width() -> None:
    curves = {
        f"{index}.ffn": Curve(tuple(float(index * cut) for cut in range(97)), 5 + index % 2, align=8)
        for index in range(5)
    }
    assert set(two_stage(curves, 0.2, SpreadContext()).values()) == {24}
    assert set(two_stage(curves, 1 / 6, SpreadContext()).values()) == {16}
