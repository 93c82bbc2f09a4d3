"""The streamed backward pass must give what autograd gives on the whole transformers model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.conftest import Maker
from tests.tiny_models import FAMILIES
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM

from secateur.calibrate.gradients import BlockGradients, gradients
from secateur.calibrate.input_statistics import BATCH_TOKENS
from secateur.core.context import Settings
from secateur.core.plan import Plan
from secateur.model.block_stream import ModelStream, StreamedBlock
from secateur.model.handle import open_model
from secateur.model.unequal_blocks import register
from secateur.pipeline.prune.apply import apply
from secateur.tensors.layer_stream import Pulled

# more than one batch of windows, and longer than the sliding windows of the tiny models
TOKENS = torch.randint(200, (60, 40), generator=torch.Generator().manual_seed(7))


def _whole(folder: Path, stream: ModelStream) -> tuple[dict[str, Tensor], list[dict[str, Tensor]]]:
    """Return the gradients of all parameters, and their second moments at the output of every sub-block."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    seen: dict[tuple[int, str], Tensor] = {}

    def keep(index: int, part: str, module: nn.Module) -> None:
        def hook(_module: nn.Module, _inputs: object, output: Tensor | tuple[Tensor, ...]) -> None:
            tensor = output[0] if isinstance(output, tuple) else output
            tensor.requires_grad_() if tensor.is_leaf else tensor.retain_grad()
            seen[index, part] = tensor

        module.register_forward_hook(hook)

    for index, layer in enumerate(model.get_decoder().layers):
        sandwich = hasattr(layer, "pre_feedforward_layernorm")
        keep(index, "attn", layer.post_attention_layernorm if sandwich else layer.self_attn)
        keep(index, "ffn", layer.post_feedforward_layernorm if sandwich else layer.mlp)
    total = cross_entropy(
        model(TOKENS, use_cache=False).logits[:, :-1].flatten(0, 1), TOKENS[:, 1:].flatten(), reduction="sum"
    )
    total.backward()
    predicted = TOKENS[:, 1:].numel()
    weights = {
        name: parameter.grad / predicted
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }
    moments: list[dict[str, Tensor]] = [{} for _ in range(len(stream))]
    for (index, part), tensor in seen.items():
        assert tensor.grad is not None
        flat = tensor.grad.flatten(0, 1).double()
        moments[index][part] = flat.T @ flat / TOKENS.numel()
    return weights, moments


def _assert_near(found: Tensor, expected: Tensor) -> None:
    assert float((found.double() - expected.double()).norm()) <= 1e-4 * float(expected.double().norm())


def _compare(folder: Path, found: list[BlockGradients], stream: ModelStream) -> None:
    weights, moments = _whole(folder, stream)
    assert [block.index for block in found] == list(reversed(range(len(stream))))
    for block in found:
        assert block.weights.keys() == set(stream.graph.blocks[block.index].tensors)
        for name, gradient in block.weights.items():
            _assert_near(gradient, weights[name])
        for part, moment in block.fisher.items():
            _assert_near(moment, moments[block.index][part])
        assert block.fisher.keys() == {"attn", "ffn"}


@pytest.mark.parametrize("family", FAMILIES)
def test_equals_autograd_on_the_whole_model(tiny: Maker, family: str) -> None:
    folder = tiny(family)
    stream = open_model(str(folder)).stream()
    every = [name for block in stream.graph.blocks for name in block.tensors]
    _compare(folder, list(gradients(stream, TOKENS, weights=every, fisher=True)), stream)


def test_equals_autograd_where_halves_are_missing(tiny: Maker, tmp_path: Path) -> None:
    source = str(tiny("gemma2"))
    plan = Plan(
        model=open_model(source).digest,
        keep={"0.kv": (1,)},
        drop=("1.ffn", "2.attn"),
        made_by={"repair": "none"},
    )
    apply(plan, source, tmp_path / "out", settings=Settings(dtype="float32"))
    register()
    stream = open_model(str(tmp_path / "out")).stream()
    every = [name for block in stream.graph.blocks for name in block.tensors]
    _compare(tmp_path / "out", list(gradients(stream, TOKENS, weights=every, fisher=True)), stream)


def test_only_what_is_asked_for_is_gathered_and_nothing_stays(tiny: Maker, tmp_path: Path) -> None:
    stream = open_model(str(tiny("llama"))).stream()
    wanted = "model.layers.1.mlp.down_proj.weight"
    found = {block.index: block for block in gradients(stream, TOKENS[:2], weights=[wanted], folder=tmp_path)}
    assert {index: list(block.weights) for index, block in found.items()} == {0: [], 1: [wanted], 2: []}
    assert not list(tmp_path.iterdir()), "a scratch file must not outlive its run"
    assert all(
        parameter.is_meta and not parameter.requires_grad
        for parameter in stream._model.get_decoder().layers.parameters()
    )


def test_two_blocks_of_states_are_mapped_whatever_the_depth(
    tiny: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = open_model(str(tiny("llama", num_hidden_layers=8))).stream()
    mapped: list[int] = []
    pull = StreamedBlock.pull

    def count(self: StreamedBlock, hidden: Tensor, gradient: Tensor, tensors: tuple[str, ...]) -> Pulled:
        mapped.append(_bytes_mapped(tmp_path))
        return pull(self, hidden, gradient, tensors)

    monkeypatch.setattr(StreamedBlock, "pull", count)
    list(gradients(stream, TOKENS, folder=tmp_path))
    slot = 4 * TOKENS.numel() * stream.hidden_size
    assert len(mapped) == 8 * len(TOKENS.split(max(1, BATCH_TOKENS // TOKENS.shape[1])))
    assert 2 * slot <= max(mapped) < 3 * slot


def _bytes_mapped(folder: Path) -> int:
    spans = [
        line.split()[0] for line in Path("/proc/self/maps").read_text().splitlines() if str(folder) in line
    ]
    return sum(int(end, 16) - int(start, 16) for start, _, end in (span.partition("-") for span in spans))
