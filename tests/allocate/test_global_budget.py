"""One threshold for all tensors, against an exact sort of all scores."""

from __future__ import annotations

import pytest
import torch
from tests.allocate.problems import allocated
from tests.conftest import Maker
from torch import Tensor

from secateur.allocate.global_budget import Global
from secateur.calibrate.input_statistics import HiddenStates, collect
from secateur.model.handle import open_model
from secateur.tensors.stats import LinearStats
from secateur_runtime.errors import SecateurError


@pytest.mark.parametrize("budget", [0.2, 0.7])
def test_each_ratio_is_the_share_of_its_scores_among_the_lowest_of_all(tiny: Maker, budget: float) -> None:
    ratios, scores = allocated(tiny("llama"), Global, budget)
    everything = torch.cat([score.flatten() for score in scores.values()]).double()
    threshold = everything.kthvalue(round(budget * len(everything))).values
    expected = {name: float((score <= threshold).double().mean()) for name, score in scores.items()}
    assert max(expected.values()) - min(expected.values()) > 0.1
    assert ratios == pytest.approx(expected, abs=5e-3)


@pytest.mark.parametrize("wrong", [-1.0, float("nan")])
def test_scores_that_cannot_be_ordered_are_refused(tiny: Maker, wrong: float) -> None:
    def scorer(weight: Tensor, _stats: LinearStats) -> Tensor:
        score = weight.abs()
        score[0, 0] = wrong
        return score

    stream = open_model(str(tiny("llama"))).stream()
    hidden = HiddenStates(stream, torch.zeros(1, 8, dtype=torch.int64))
    with stream.open(0) as block:
        linears = block.block.linears
        stats = collect(block, linears, hidden, {"input_sq"})
        with pytest.raises(SecateurError, match=r"saliency of .*weight is negative or not a number"):
            Global(0.5, scorer).observe(block, linears, stats, hidden.states)
