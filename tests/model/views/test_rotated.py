"""A rotated model predicts what the model does, in every family, in stock transformers and in float64."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.conftest import Maker
from tests.tiny_models import FAMILIES
from torch import Tensor

from secateur.model.families import FINAL_NORM, HEAD
from secateur.model.graph_builder import read_graph
from secateur.model.handle import ModelHandle, open_model
from secateur.model.views.rotated import Rotated, Rotation, check_rotation
from secateur.tensors.source import Source
from secateur_runtime.errors import UsageError

TOKENS = torch.randint(3, 200, (2, 24), generator=torch.Generator().manual_seed(3))
SANDWICHED = ("gemma2", "gemma3_text")


def orthogonal(*shape: int, seed: int = 0) -> Tensor:
    found: Tensor = torch.linalg.qr(
        torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    )[0]
    return found


def rotation_of(model: ModelHandle, states: bool) -> Rotation:
    """A far rotation of everything that may be rotated."""
    graph = model.graph
    heads = {
        block.index: orthogonal(
            block.shape.n_kv_heads, block.shape.head_dim, block.shape.head_dim, seed=block.index
        )
        for block in graph.blocks
    }
    return Rotation(orthogonal(graph.hidden_size, graph.hidden_size) if states else None, heads)


def logits(source: Source) -> Tensor:
    """What stock transformers makes of the weights of a source, in float64."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(**source.config)
    model: Any = AutoModelForCausalLM.from_config(config).double().eval()
    state = {name: source.read(name).double() for name in source.tensors}
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected
    assert set(missing) <= ({HEAD} if config.tie_word_embeddings else set())
    model.tie_weights()
    with torch.no_grad():
        found: Tensor = model(TOKENS).logits
    return found


@pytest.mark.parametrize(("family", "biased"), [*((family, False) for family in FAMILIES), ("llama", True)])
def test_predictions_stay(tiny: Maker, family: str, biased: bool) -> None:
    model = open_model(str(tiny(family, **({"attention_bias": True, "mlp_bias": True} if biased else {}))))
    source = Rotated(model, rotation_of(model, states=family not in SANDWICHED))
    whole = logits(model.source)
    changed = [
        name
        for name in model.source.tensors
        if not torch.allclose(source.read(name).float(), model.source.read(name).float(), atol=1e-3)
    ]
    assert len(changed) >= (2 if family in SANDWICHED else 6) * len(model.graph.blocks)
    assert float((logits(source) - whole).abs().max() / whole.abs().max()) <= 1e-5


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_a_head_that_was_the_embedding_becomes_its_own(tiny: Maker, family: str) -> None:
    model = open_model(str(tiny(family, tie_word_embeddings=True)))
    graph = read_graph(Rotated(model, rotation_of(model, states=True)))
    assert (model.graph.tied, graph.tied) == (True, False)
    assert graph.parameters == model.graph.parameters + model.graph.vocab_size * model.graph.hidden_size
    only_heads = read_graph(Rotated(model, rotation_of(model, states=False)))
    assert (only_heads.tied, only_heads.parameters) == (True, model.graph.parameters)


def test_pieces_are_the_tensor_and_norms_scale_nothing(tiny: Maker) -> None:
    model = open_model(str(tiny("llama")))
    source = Rotated(model, rotation_of(model, states=True))
    for name in source.tensors:
        assert torch.equal(torch.cat(list(source.pieces(name))), source.read(name))
        assert source.read(name).shape == source.tensors[name].shape
    assert torch.equal(source.read(FINAL_NORM), torch.ones(model.graph.hidden_size))
    assert source.digest() == model.source.digest()


@pytest.mark.parametrize("family", SANDWICHED)
def test_a_family_that_scales_what_it_adds_is_refused(tiny: Maker, tmp_path: Path, family: str) -> None:
    model = open_model(str(tiny(family)))
    with pytest.raises(UsageError, match=r"post_attention_layernorm.*no rotation passes: use --rotate heads"):
        check_rotation(model.family)
    states = Rotation(orthogonal(model.graph.hidden_size, model.graph.hidden_size))
    whole = logits(model.source)
    assert float((logits(Rotated(model, states)) - whole).abs().max() / whole.abs().max()) > 1e-3
