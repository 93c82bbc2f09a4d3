"""A student in memory for tests of what recovery methods train."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from secateur.model.full_model import load_whole
from secateur.model.handle import open_model
from secateur.pipeline.recover.distill import Distill
from secateur.pipeline.recover.methods import LoadedStudent
from secateur.quantizers.rtn import plainly


def loaded(folder: Path, how: Distill, *, masked: bool = False) -> LoadedStudent:
    """Return the model of a folder as the method of `how` gets it.

    masked: only the positive weights of its linears are left, and the others stay zero.
    """
    row = how.row
    given = open_model(str(folder))
    model = given if row.view is None else row.view(given)
    whole = load_whole(model)
    weights = {linear.tensor: whole.get_parameter(linear.tensor).data for linear in model.graph.linears}
    masks: dict[str, Tensor] = {}
    if masked:
        masks = {name: weight > 0 for name, weight in weights.items()}
        for name, weight in weights.items():
            weight.mul_(masks[name])
    codes = {name: plainly(weight.float(), 8) for name, weight in weights.items()} if row.quantized else {}
    return LoadedStudent(whole, model.graph, masks, codes, how, seed=0)
