"""Fewer hidden channels: rescaled norms compute what the whole ones do with zeros."""

from __future__ import annotations

from math import sqrt

import pytest
import torch
from tests.conftest import Maker

from secateur.model.families import EMBED, FAMILIES, FINAL_NORM
from secateur.model.handle import open_model
from secateur.model.views.hidden_channels import Fold, Narrowed, hidden_folds

KEPT = tuple(range(0, 64, 2))
REMOVED = list(range(1, 64, 2))


@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_a_stored_value_means_the_weight_it_was_made_of(offset: float) -> None:
    fold = Fold(1.5, offset)
    weight = torch.randn(5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(fold.meant(fold.stored(weight)), weight)
    torch.testing.assert_close(fold.stored(weight) + offset, 1.5 * (weight + offset))


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_a_narrow_norm_is_the_whole_one_with_zeros(tiny: Maker, family: str) -> None:
    """RMSNorm by its formula in float64, of 64 channels with half of them zero, and of the other 32 alone."""
    model = open_model(str(tiny(family)))
    name = "model.layers.1.input_layernorm.weight"
    offset = FAMILIES[family].norm_offset
    weight = model.source.read(name).double()
    stored = hidden_folds(model.graph, model.family, len(KEPT))[name].stored(weight)[list(KEPT)].double()
    states = torch.randn(7, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    states[:, REMOVED] = 0
    narrow, eps = states[:, list(KEPT)], 1e-5
    expected = states / (states.square().mean(-1, keepdim=True) + eps).sqrt() * (weight + offset)
    found = narrow / (narrow.square().mean(-1, keepdim=True) + eps * 64 / 32).sqrt() * (stored + offset)
    torch.testing.assert_close(found, expected[:, list(KEPT)], rtol=1e-6, atol=1e-6)


def test_every_norm_of_states_is_rescaled_and_no_other_tensor(tiny: Maker) -> None:
    graph = open_model(str(tiny("qwen3"))).graph
    folds = hidden_folds(graph, FAMILIES[graph.family], 16)
    assert set(folds) == {
        name for name in graph.tensors if name.endswith("norm.weight") and ".self_attn." not in name
    }
    assert {fold.factor for fold in folds.values()} == {sqrt(64 / 16)}
    assert hidden_folds(graph, FAMILIES[graph.family], 64) == {}


def test_scaled_embeddings_that_are_the_head_spare_the_final_norm(tiny: Maker) -> None:
    """Gemma multiplies its embeddings by the square root of the width, which changes too."""
    graph = open_model(str(tiny("gemma2"))).graph
    folds = hidden_folds(graph, FAMILIES[graph.family], 16)
    assert folds[EMBED] == Fold(2.0)
    assert FINAL_NORM not in folds
    untied = open_model(str(tiny("gemma2", tie_word_embeddings=False))).graph
    assert hidden_folds(untied, FAMILIES[untied.family], 16)[FINAL_NORM] == Fold(2.0, 1.0)


def test_removed_channels_are_zero_and_the_others_as_stored(tiny: Maker) -> None:
    model = open_model(str(tiny("llama")))
    source = Narrowed(model, KEPT, torch.float32)
    for part in model.graph.hidden.slices:
        found, whole = source.read(part.tensor), model.source.read(part.tensor)
        removed = found.index_select(part.dim, torch.tensor(REMOVED))
        assert not removed.any(), part.tensor
        others = torch.tensor(KEPT)
        torch.testing.assert_close(found.index_select(part.dim, others), whole.index_select(part.dim, others))
        assert torch.equal(torch.cat(list(source.pieces(part.tensor))), found)


def test_stored_tensors_keep_every_channel_in_the_type_asked_for(tiny: Maker) -> None:
    model = open_model(str(tiny("llama")))
    source = Narrowed(model, KEPT, torch.bfloat16)
    norm = model.source.read(FINAL_NORM)
    assert torch.equal(source.stored(FINAL_NORM), (norm * sqrt(2)).bfloat16())
    assert torch.equal(source.stored(EMBED), model.source.read(EMBED).bfloat16())
    # To compute with, a weight outside the blocks is what its rounded value stands for.
    torch.testing.assert_close(
        source.read(FINAL_NORM)[list(KEPT)], (norm * sqrt(2)).bfloat16()[list(KEPT)].float() / sqrt(2)
    )
