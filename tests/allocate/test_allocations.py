"""Every way of spreading a budget keeps the budget, and spreads it the way it says."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.conftest import Maker

from secateur.allocate import ALLOCATIONS, settle
from secateur.calibrate.input_statistics import HiddenStates, collect
from secateur.criteria import CRITERIA
from secateur.model.handle import open_model


def _ratios(
    folder: str, name: str, budget: float, spoil: int | None = None
) -> tuple[dict[str, float], dict[str, int]]:
    """Run one allocation; `spoil` gives block `spoil` one input weight so large that its scores have outliers."""
    stream = open_model(folder).stream()
    hidden = HiddenStates(stream, torch.randint(200, (4, 64), generator=torch.Generator().manual_seed(8)))
    allocation = ALLOCATIONS[name].function(budget, CRITERIA["wanda"].function)
    sizes: dict[str, int] = {}
    for index in range(len(stream)):
        with stream.open(index) as block:
            linears = block.block.linears
            if index == spoil:
                for linear in linears:
                    block.weight(linear.tensor)[:, :2] *= 40
            sizes |= {linear.tensor: block.weight(linear.tensor).numel() for linear in linears}
            allocation.observe(
                block, linears, collect(block, linears, hidden, {"gram"}), next(hidden.batches())
            )
            hidden.advance(block)
    return allocation.ratios(), sizes


@pytest.mark.parametrize("name", list(ALLOCATIONS))
@pytest.mark.parametrize("budget", [0.3, 0.5, 0.8])
def test_the_mean_over_all_weights_is_the_budget(tiny: Maker, name: str, budget: float) -> None:
    ratios, sizes = _ratios(str(tiny("llama")), name, budget)
    assert ratios.keys() == sizes.keys()
    assert all(0 <= ratio < 1 for ratio in ratios.values())
    mean = sum(ratios[tensor] * size for tensor, size in sizes.items()) / sum(sizes.values())
    assert mean == pytest.approx(budget, abs=1e-3)


def test_owl_keeps_more_of_the_block_with_outliers(tiny: Maker) -> None:
    ratios, _ = _ratios(str(tiny("llama")), "owl", 0.5, spoil=1)
    assert ratios["model.layers.1.mlp.up_proj.weight"] < 0.45 < ratios["model.layers.0.mlp.up_proj.weight"]


def test_error_restores_the_weights_it_measured_with(tiny: Maker) -> None:
    stream = open_model(str(tiny("llama"))).stream()
    hidden = HiddenStates(stream, torch.zeros(1, 16, dtype=torch.int64))
    allocation = ALLOCATIONS["error"].function(0.5, CRITERIA["wanda"].function)
    with stream.open(0) as block:
        before = {linear.tensor: block.weight(linear.tensor).clone() for linear in block.block.linears}
        allocation.observe(
            block,
            block.block.linears,
            collect(block, block.block.linears, hidden, {"input_sq"}),
            next(hidden.batches()),
        )
        for tensor, weight in before.items():
            assert torch.equal(block.weight(tensor), weight)


@given(
    st.dictionaries(st.text(min_size=1), st.tuples(st.floats(0, 0.99), st.integers(1, 10**6)), min_size=1),
    st.floats(0, 0.95),
)
def test_settle_meets_any_budget(rows: dict[str, tuple[float, int]], budget: float) -> None:
    sizes = {name: size for name, (_, size) in rows.items()}
    settled = settle({name: ratio for name, (ratio, _) in rows.items()}, sizes, budget)
    assert sum(settled[name] * size for name, size in sizes.items()) / sum(sizes.values()) == pytest.approx(
        budget, abs=1e-6
    )
