"""Streaming one block at a time must compute what transformers computes with the whole model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.conftest import Maker
from tests.tiny_models import FAMILIES
from transformers import AutoModelForCausalLM

from secateur.model.block_stream import POSITIONS, ModelStream
from secateur.model.handle import open_model
from secateur_runtime.errors import SourceError

LENGTH = 40


def _streamed(stream: ModelStream, tokens: torch.Tensor) -> torch.Tensor:
    (states,) = stream.embed([tokens])
    for index in range(len(stream)):
        with stream.open(index) as block:
            states = block(states)
    return torch.stack([torch.cat(list(stream.logits(row))) for row in states])


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_equal_the_whole_model(tiny: Maker, family: str) -> None:
    folder = tiny(family)
    tokens = torch.randint(200, (3, LENGTH), generator=torch.Generator().manual_seed(1))
    whole = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        expected = whole(tokens).logits
    torch.testing.assert_close(
        _streamed(open_model(str(folder)).stream(), tokens), expected, rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("family", ["llama", "gemma2", "gemma3_text", "phi3"])
def test_embedding_holds_the_rows_that_occur_and_no_others(
    tiny: Maker, monkeypatch: pytest.MonkeyPatch, family: str
) -> None:
    monkeypatch.setattr("secateur.model.formats.raw_reads._PIECE_ELEMENTS", 640)
    folder = tiny(family)
    tokens = torch.tensor([[7, 150, 7, 1], [0, 2, 199, 150]])
    whole = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    seen: list[torch.Tensor] = []
    whole.model.layers[0].register_forward_pre_hook(lambda _layer, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        whole(tokens)
    stream = open_model(str(folder)).stream()
    embedding = stream._model.get_input_embeddings()
    held: list[int] = []
    embedding.register_forward_pre_hook(lambda module, _inputs: held.append(len(module.weight)))
    torch.testing.assert_close(torch.cat(list(stream.embed(tokens.split(1)))), seen[0], rtol=1e-6, atol=1e-6)
    assert held == [6, 6]
    assert embedding.weight.is_meta


def test_tap_sees_the_inputs_that_hooks_on_the_whole_model_see(tiny: Maker) -> None:
    folder = tiny("llama")
    tokens = torch.randint(200, (2, LENGTH), generator=torch.Generator().manual_seed(2))
    whole = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    expected: dict[str, torch.Tensor] = {}
    for name in ("self_attn.o_proj", "mlp.down_proj"):
        module = whole.get_submodule(f"model.layers.0.{name}")
        module.register_forward_pre_hook(
            lambda _module, inputs, name=name: expected.__setitem__(name, inputs[0])
        )
    with torch.no_grad():
        whole(tokens)
    stream = open_model(str(folder)).stream()
    (states,) = stream.embed([tokens])
    seen: dict[str, torch.Tensor] = {}
    wanted = {f"model.layers.0.{name}.weight": name for name in expected}
    with stream.open(0) as block:
        block.tap(tuple(wanted), states, lambda tensor, x: seen.__setitem__(wanted[tensor], x))
    assert seen.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(seen[name], value, rtol=1e-5, atol=1e-6)


def test_changing_a_weight_changes_the_block_and_not_the_stored_model(tiny: Maker) -> None:
    stream = open_model(str(tiny("llama"))).stream()
    states = torch.randn(1, LENGTH, stream.hidden_size, generator=torch.Generator().manual_seed(3))
    with stream.open(1) as block:
        before = block(states)
        block.weight(block.block.linears[-1].tensor).zero_()
        assert not torch.equal(block(states), before)
    with stream.open(1) as block:
        assert torch.equal(block(states), before)


def test_leaving_a_block_gives_its_memory_back(tiny: Maker) -> None:
    stream = open_model(str(tiny("llama"))).stream()
    with stream.open(0):
        pass
    assert all(parameter.is_meta for parameter in stream._model.parameters())


@pytest.mark.parametrize("name", ["model.layers.1.mlp.up_proj.weight", "model.embed_tokens.weight"])
def test_weights_that_are_not_finite_are_refused(tiny: Maker, tmp_path: Path, name: str) -> None:
    source = tiny("llama")
    for file in source.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    tensors = load_file(source / "model.safetensors")
    tensors[name][0, 0] = float("nan")
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    stream = open_model(str(tmp_path)).stream()
    with pytest.raises(SourceError, match=f"{name} holds NaN"):
        _streamed(stream, torch.zeros(1, 4, dtype=torch.int64))


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "phi3"])
def test_slopes_are_those_of_the_whole_model(tiny: Maker, family: str) -> None:
    """The gradient of a loss on one block's output, against autograd through transformers' own layer."""
    folder = tiny(family)
    opened = open_model(str(folder))
    tokens = torch.randint(200, (2, LENGTH), generator=torch.Generator().manual_seed(1))
    whole = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    outputs: list[torch.Tensor] = []
    inputs: list[torch.Tensor] = []
    layer = whole.model.layers[1]
    layer.register_forward_pre_hook(lambda _layer, given: inputs.append(given[0]))
    layer.register_forward_hook(
        lambda _layer, _given, output: outputs.append(output[0] if isinstance(output, tuple) else output)
    )
    whole(tokens)
    outputs[0].square().sum().backward()
    with opened.stream().open(1) as live:
        names = tuple(name for name in live.block.tensors if "proj" in name)
        value, slopes = live.slope(inputs[0].detach(), lambda output: output.square().sum(), names)
    assert value == pytest.approx(float(outputs[0].detach().square().sum()), rel=1e-5)
    for name, found in slopes.items():
        torch.testing.assert_close(found, whole.get_parameter(name).grad, rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("tied", [False, True])
def test_one_stream_answers_several_questions_at_once(tiny: Maker, tied: bool) -> None:
    """Generators of one stream that are asked in turns give what each gives alone."""
    model = open_model(str(tiny("llama", tie_word_embeddings=tied)))
    tokens = [torch.randint(200, (2, 8), generator=torch.Generator().manual_seed(seed)) for seed in (1, 2)]
    hidden = torch.randn(3 * POSITIONS, model.graph.hidden_size, generator=torch.Generator().manual_seed(3))
    alone = [list(model.stream().logits(states)) for states in (hidden, hidden[: 2 * POSITIONS])]
    embedded = list(model.stream().embed(tokens))
    stream = model.stream()
    first = stream.logits(hidden)
    second = stream.logits(hidden[: 2 * POSITIONS])
    third = stream.embed(tokens)
    found: list[list[torch.Tensor]] = [[], [], []]
    for place in (0, 1, 2, 1, 0, 2, 0):
        found[place].append(next((first, second, third)[place]))
    for generator in (second, first, third):
        with pytest.raises(StopIteration):
            next(generator)
    for expected, given in zip((*alone, embedded), found, strict=True):
        for one, other in zip(expected, given, strict=True):
            assert torch.equal(one, other)
    with stream.open(0) as block:
        assert torch.isfinite(block(embedded[0])).all()
    assert {parameter.device.type for parameter in stream._model.parameters()} == {"meta"}
