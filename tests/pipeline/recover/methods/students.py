"""A student in memory for tests of what recovery methods train."""

from __future__ import annotations

from pathlib import Path

from secateur.model.full_model import load_whole
from secateur.model.handle import open_model
from secateur.pipeline.recover.distill import Distill
from secateur.pipeline.recover.methods import LoadedStudent


def loaded(folder: Path, how: Distill, *, masked: bool = False) -> LoadedStudent:
    """Return the model of a folder; masked: only the positive weights of its linears may differ from zero."""
    model = open_model(str(folder))
    whole = load_whole(model)
    names = [linear.tensor for linear in model.graph.linears] if masked else []
    masks = {name: whole.get_parameter(name).detach() > 0 for name in names}
    return LoadedStudent(whole, model.graph, masks, {}, how, seed=0)
