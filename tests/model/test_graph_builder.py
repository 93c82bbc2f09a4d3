from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.conftest import Maker

from secateur.core.graph import Group, TensorInfo
from secateur.model.families import FAMILIES, HEAD, SHAPES_KEY
from secateur.model.formats.open_source import open_source
from secateur.model.graph_builder import block_groups, read_graph, tensor_shapes
from secateur_runtime.decoder.block_shape import BlockShape
from secateur_runtime.errors import UnsupportedModelError

ROLES = [
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
]
FUSED = ["self_attn.qkv_proj", "self_attn.o_proj", "mlp.gate_up_proj", "mlp.down_proj"]
LLAMA = {
    "model_type": "llama",
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_hidden_layers": 2,
    "vocab_size": 10,
    "tie_word_embeddings": True,
}


class Shapes:
    """A source that has shapes and no weights."""

    ref = "shapes"

    def __init__(self, config: dict[str, Any], tensors: dict[str, tuple[int, ...]]) -> None:
        self.config = config
        self.stored = {name: TensorInfo(shape, "F32") for name, shape in tensors.items()}
        self.tensors: Mapping[str, TensorInfo] = self.stored

    def read(self, name: str) -> torch.Tensor:
        return torch.zeros(self.tensors[name].shape)

    def pieces(self, name: str) -> Iterator[torch.Tensor]:
        yield self.read(name)

    def digest(self) -> str:
        return "sha256:0"

    def tokenizer(self) -> Any:
        return None

    def copy_companions(self, folder: Path) -> None:
        del folder


PLAIN = BlockShape(4, 2, 2, 12)


def make_llama(shape: BlockShape = PLAIN, **config: Any) -> Shapes:
    """Return a whole llama of two blocks of `shape`."""
    values = {**LLAMA, **config}
    tensors: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (10, 8), "model.norm.weight": (8,)}
    for index in range(2):
        tensors |= tensor_shapes(FAMILIES["llama"], values, index, shape, 8)
    return Shapes(values, tensors)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_read(tiny: Maker, family: str) -> None:
    source = open_source(str(tiny(family)))
    graph = read_graph(source)
    assert graph.family == family
    assert len(graph.blocks) == source.config["num_hidden_layers"]
    assert graph.parameters == sum(source.read(name).numel() for name in source.tensors)
    for block in graph.blocks:
        assert [linear.module for linear in block.linears] == (FUSED if family == "phi3" else ROLES)
        assert [linear.stage for linear in block.linears] == (
            [0, 1, 2, 3] if family == "phi3" else [0, 0, 0, 1, 2, 2, 3]
        )
        assert block.shape == BlockShape(4, 2, source.config.get("head_dim", 16), 96)
        assert [group.name for group in block.groups] == [
            f"{block.index}.{kind}" for kind in ("kv", "head", "ffn")
        ]
        assert [group.half for group in block.groups] == ["attn", "attn", "ffn"]
    named = {name for block in graph.blocks for name in block.tensors} | set(graph.outside)
    assert named == set(source.tensors)
    assert (HEAD in graph.outside) is not graph.tied


@pytest.mark.parametrize("family", FAMILIES)
def test_modules_exist_in_transformers(tiny: Maker, family: str) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(tiny(family))
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    graph = read_graph(open_source(str(tiny(family))))
    names = {name for name, _ in model.named_parameters()}
    assert names == {name for block in graph.blocks for name in block.tensors} | set(graph.outside)
    assert type(model).__name__ == FAMILIES[family].architecture
    for block in graph.blocks:
        for linear in block.linears:
            module = model.get_submodule(block.prefix + linear.module)
            assert isinstance(module, torch.nn.Linear)
            assert (module.out_features, module.in_features) == (linear.out_features, linear.in_features)


widths = st.builds(
    lambda rep, kv, head_dim, inner: BlockShape(rep * kv, kv, head_dim, inner),
    st.integers(1, 4),
    st.integers(0, 4),
    st.integers(1, 8),
    st.integers(0, 9),
)


def cover(groups: tuple[Group, ...], shapes: dict[str, tuple[int, ...]]) -> dict[tuple[str, int], list[int]]:
    """Return how many units own each index of each (tensor, dim) that groups cut."""
    seen: dict[tuple[str, int], list[int]] = {}
    for group in groups:
        for part in group.slices:
            counts = seen.setdefault((part.tensor, part.dim), [0] * shapes[part.tensor][part.dim])
            for unit in range(group.size):
                for index in range(part.offset + unit * part.block, part.offset + (unit + 1) * part.block):
                    counts[index] += 1
    return seen


@given(st.sampled_from(sorted(FAMILIES)), widths, st.booleans())
def test_units_tile_what_they_cut(family: str, shape: BlockShape, biased: bool) -> None:
    """Each row of q, k, v, gate and up, and each column of o and down, belongs to one unit of `kv` or `ffn`.

    Head norms belong to none.
    """
    config = {"attention_bias": biased, "mlp_bias": biased}
    shapes = tensor_shapes(FAMILIES[family], config, 3, shape, 16)
    groups = block_groups(FAMILIES[family], 3, shape, shapes)
    heads = cover(tuple(group for group in groups if group.kind == "head"), shapes)
    seen = cover(tuple(group for group in groups if group.kind != "head"), shapes)
    assert all(set(counts) <= {0, 1} for counts in heads.values())
    assert all(sum(counts) == shape.n_heads * shape.head_dim for counts in heads.values())
    assert all(set(counts) == {1} for counts in seen.values())
    inputs = ("o_proj.weight", "down_proj.weight")
    cut = {
        name for name in shapes if "_proj" in name and not name.endswith(("o_proj.bias", "down_proj.bias"))
    }
    assert set(seen) == {(name, 1 if name.endswith(inputs) else 0) for name in cut}
    assert len(groups) == bool(shape.n_heads) + (shape.n_heads > shape.n_kv_heads) + bool(
        shape.intermediate_size
    )


def test_a_unit_is_one_kv_head_with_its_query_heads() -> None:
    """Taking unit 1 of a fused block takes its rows of q, of k and of v."""
    shape = BlockShape(4, 2, 3, 5)
    shapes = tensor_shapes(FAMILIES["phi3"], {}, 0, shape, 16)
    kv, head, ffn = block_groups(FAMILIES["phi3"], 0, shape, shapes)
    spans = [(part.dim, part.offset + part.block, part.offset + 2 * part.block) for part in kv.slices]
    assert spans == [(0, 6, 12), (0, 15, 18), (0, 21, 24), (1, 6, 12)]
    spans = [(part.dim, part.offset + part.block, part.offset + 2 * part.block) for part in head.slices]
    assert spans == [(0, 3, 6), (1, 3, 6)]
    assert [(part.dim, part.offset) for part in ffn.slices] == [(0, 0), (0, 5), (1, 0)]


@pytest.mark.parametrize(
    "shape",
    [BlockShape(4, 4, 2, 12), BlockShape(4, 1, 2, 12), BlockShape(4, 2, 6, 12)],
    ids=["mha", "mqa", "wide heads"],
)
def test_attention_of_any_width(shape: BlockShape) -> None:
    source = make_llama(shape, num_key_value_heads=shape.n_kv_heads, head_dim=shape.head_dim)
    assert read_graph(source).blocks[1].shape == shape


def test_blocks_of_unequal_width() -> None:
    rows = [
        {"n_heads": 2, "n_kv_heads": 1, "head_dim": 2, "intermediate_size": 0},
        {"n_heads": 0, "n_kv_heads": 0, "head_dim": 2, "intermediate_size": 5},
    ]
    config = {**LLAMA, SHAPES_KEY: rows, "model_type": "pruned", "base_model_type": "llama"}
    tensors: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (10, 8), "model.norm.weight": (8,)}
    for index, row in enumerate(rows):
        tensors |= tensor_shapes(FAMILIES["llama"], config, index, BlockShape(**row), 8)
    graph = read_graph(Shapes(config, tensors))
    assert [[group.kind for group in block.groups] for block in graph.blocks] == [["kv", "head"], ["ffn"]]
    assert [len(block.tensors) for block in graph.blocks] == [5, 4]


def test_buffers_of_old_checkpoints_are_left_out() -> None:
    source = make_llama()
    source.stored["model.layers.0.self_attn.rotary_emb.inv_freq"] = TensorInfo((1,), "F32")
    assert len(read_graph(source).tensors) == len(source.tensors) - 1


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "lama"}, "did you mean llama"),
        ({"model_type": None}, "model_type None is not a known family"),
        ({"num_local_experts": 8}, "mixture of experts"),
        ({"hidden_size": 9}, "hidden_size is 9 but model.embed_tokens.weight has 8"),
        ({"vocab_size": 11}, "vocab_size is 11 but model.embed_tokens.weight has 10"),
        (
            {"intermediate_size": 13},
            r"model.layers.0.mlp.gate_proj.weight is \[12, 8\] where config.json means \[13, 8\]",
        ),
        ({"num_key_value_heads": 1}, r"wrong shape: model.layers.0.self_attn.k_proj.weight is \[4, 8\]"),
        ({"num_key_value_heads": 3}, "4 query heads do not divide among 3"),
        ({"num_attention_heads": "4"}, "num_attention_heads in config.json is '4'"),
        ({"num_hidden_layers": 1}, "unexpected model.layers.1.input_layernorm.weight"),
        ({"num_hidden_layers": 3}, "missing model.layers.2.input_layernorm.weight"),
        ({"num_hidden_layers": 10**12}, "1000000000000 blocks and there are 20 tensors"),
        ({"tie_word_embeddings": False}, "missing lm_head.weight"),
        ({"attention_bias": True}, "missing model.layers.0.self_attn.q_proj.bias"),
        ({SHAPES_KEY: [{}]}, "does not list 2 blocks"),
        ({SHAPES_KEY: [{}, {}]}, "not a block shape"),
        (
            {SHAPES_KEY: [{"n_heads": -1, "n_kv_heads": 1, "head_dim": 1, "intermediate_size": 1}] * 2},
            "the widths",
        ),
    ],
)
def test_what_does_not_fit_is_named(config: dict[str, Any], message: str) -> None:
    source = make_llama()
    source.config |= config
    with pytest.raises(UnsupportedModelError, match=message) as caught:
        read_graph(source)
    assert str(caught.value).startswith("not supported because")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("model.embed_tokens.weight", "embed_tokens.weight is missing"),
        ("model.norm.weight", "missing model.norm.weight"),
        ("model.layers.1.mlp.down_proj.weight", "missing model.layers.1.mlp.down_proj.weight"),
    ],
)
def test_missing_tensors_are_named(name: str, message: str) -> None:
    source = make_llama()
    del source.stored[name]
    with pytest.raises(UnsupportedModelError, match=message):
        read_graph(source)


def test_unexpected_tensors_are_named() -> None:
    source = make_llama()
    source.stored |= {f"model.layers.0.mlp.experts.{index}.w1": TensorInfo((1,), "F32") for index in range(6)}
    with pytest.raises(
        UnsupportedModelError, match=r"unexpected model.layers.0.mlp.experts.0.w1, .* and 2 more"
    ):
        read_graph(source)
