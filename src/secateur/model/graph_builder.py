"""Build a model's graph from its config and tensor shapes; refuse what does not fit its family."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from secateur.core.graph import Block, Graph, Group, Linear, Slice, TensorInfo
from secateur.model.families import EMBED, FINAL_NORM, HEAD, PREFIX, RECOMPUTED, SHAPES_KEY, Family, family_of
from secateur.tensors.source import Source
from secateur_runtime.decoder.block_shape import BlockShape
from secateur_runtime.errors import UnsupportedModelError

_EXPERT_KEYS = ("num_experts", "num_local_experts", "n_routed_experts")
_SHOWN = 4

Shapes = dict[str, tuple[int, ...]]


def read_graph(source: Source, family: Family | None = None) -> Graph:
    """Return the graph of `source`.

    family: its own, where that is known already.
    Raises UnsupportedModelError naming the tensors that do not fit its family.
    """
    config = source.config
    family = family or family_of(config)
    if any(config.get(key) for key in _EXPERT_KEYS):
        raise UnsupportedModelError(f"not supported because this {family.name} model is a mixture of experts")
    tensors = {name: info for name, info in source.tensors.items() if not name.endswith(RECOMPUTED)}
    if EMBED not in tensors or len(tensors[EMBED].shape) != 2:
        raise UnsupportedModelError(f"not supported because {EMBED} is missing or not a matrix")
    vocab_size, hidden_size = tensors[EMBED].shape
    # Before anything is made per block: a damaged count must not cost memory.
    if _positive(config, "num_hidden_layers") > len(tensors):
        raise UnsupportedModelError(
            f"not supported because config.json says {config['num_hidden_layers']} blocks and there are"
            f" {len(tensors)} tensors"
        )
    shapes = block_shapes(config)
    _agree(config, "hidden_size", hidden_size, EMBED)
    _agree(config, "vocab_size", vocab_size, EMBED)
    tied = bool(config.get("tie_word_embeddings", False))
    outside = _outside_shapes(vocab_size, hidden_size, tied)
    expected = dict(outside)
    blocks = []
    for index, shape in enumerate(shapes):
        own = tensor_shapes(family, config, index, shape, hidden_size)
        expected |= own
        blocks.append(_block(family, index, shape, own))
    _check(expected, tensors, family)
    hidden = hidden_group(family, expected, len(shapes), hidden_size)
    vocab = Group(
        "vocab", "vocab", vocab_size, tuple(Slice(name, 0) for name in (EMBED, HEAD) if name in outside)
    )
    return Graph(
        family.name, hidden_size, vocab_size, tied, tensors, tuple(blocks), tuple(outside), hidden, vocab
    )


def block_shapes(config: Mapping[str, Any]) -> tuple[BlockShape, ...]:
    """Return the width of each block that the config declares.

    Raises UnsupportedModelError if such a block cannot exist.
    """
    count = _positive(config, "num_hidden_layers")
    rows = config.get(SHAPES_KEY)
    if rows is None:
        return (_uniform_shape(config),) * count
    if not isinstance(rows, list) or len(rows) != count:
        raise UnsupportedModelError(
            f"not supported because {SHAPES_KEY} in config.json does not list {count} blocks"
        )
    try:
        shapes = tuple(BlockShape(**row) for row in rows)
    except TypeError:
        raise UnsupportedModelError(
            f"not supported because {SHAPES_KEY} in config.json has a row that is not a block shape"
        ) from None
    for shape in shapes:
        _check_heads(shape)
    return shapes


def tensor_shapes(
    family: Family, config: Mapping[str, Any], index: int, shape: BlockShape, hidden_size: int
) -> Shapes:
    """Return name -> shape of every tensor of block `index`; an absent sub-block has none."""
    prefix = PREFIX.format(index)
    biases = family.biases(config)
    found: Shapes = {}
    if shape.n_heads:
        found |= {f"{prefix}{norm}.weight": (hidden_size,) for norm in family.attn_norms}
        found |= {f"{prefix}{norm}.weight": (shape.head_dim,) for norm in family.head_norms}
    if shape.intermediate_size:
        found |= {f"{prefix}{norm}.weight": (hidden_size,) for norm in family.ffn_norms}
    for module, (rows, columns) in linear_shapes(family, shape, hidden_size).items():
        found[f"{prefix}{module}.weight"] = (rows, columns)
        if module in biases:
            found[f"{prefix}{module}.bias"] = (rows,)
    return found


def linear_shapes(family: Family, shape: BlockShape, hidden_size: int) -> dict[str, tuple[int, int]]:
    """Return module -> `(out_features, in_features)` in stage order; an absent sub-block has none."""
    queries = shape.n_heads * shape.head_dim
    keys = shape.n_kv_heads * shape.head_dim
    inner = shape.intermediate_size
    shapes: dict[str, tuple[int, int]] = {}
    if shape.n_heads:
        rows = [queries, keys, keys] if len(family.qkv) == 3 else [queries + 2 * keys]
        shapes |= {module: (size, hidden_size) for module, size in zip(family.qkv, rows, strict=True)}
        shapes[family.o] = (hidden_size, queries)
    if inner:
        rows = [inner, inner] if len(family.gate_up) == 2 else [2 * inner]
        shapes |= {module: (size, hidden_size) for module, size in zip(family.gate_up, rows, strict=True)}
        shapes[family.down] = (hidden_size, inner)
    return shapes


def block_groups(family: Family, index: int, shape: BlockShape, names: Iterable[str]) -> tuple[Group, ...]:
    """Return the groups `{index}.kv`, `{index}.head` and `{index}.ffn` that a block has.

    names: names of the tensors of the block.
    """
    groups = []
    if shape.n_heads:
        queries = shape.n_heads * shape.head_dim
        keys = shape.n_kv_heads * shape.head_dim
        per_unit = queries // shape.n_kv_heads
        parts = _parts(family.qkv, ((per_unit, queries), (shape.head_dim, keys), (shape.head_dim, keys)))
        slices = _slices(index, names, parts, Slice(f"{family.o}.weight", 1, per_unit))
        groups.append(Group(f"{index}.kv", "kv", shape.n_kv_heads, slices))
        if shape.n_heads > shape.n_kv_heads:
            query = _parts(
                family.qkv, ((shape.head_dim, queries), (shape.head_dim, keys), (shape.head_dim, keys))
            )[:1]
            slices = _slices(index, names, query, Slice(f"{family.o}.weight", 1, shape.head_dim))
            groups.append(Group(f"{index}.head", "head", shape.n_heads, slices))
    if shape.intermediate_size:
        inner = shape.intermediate_size
        parts = _parts(family.gate_up, ((1, inner), (1, inner)))
        groups.append(
            Group(
                f"{index}.ffn", "ffn", inner, _slices(index, names, parts, Slice(f"{family.down}.weight", 1))
            )
        )
    return tuple(groups)


def _parts(modules: tuple[str, ...], widths: tuple[tuple[int, int], ...]) -> list[tuple[str, int, int]]:
    """Return (module, rows per unit, first row) per part, whether each part has a module or all share one."""
    if len(modules) == len(widths):
        return [(module, block, 0) for module, (block, _) in zip(modules, widths, strict=True)]
    starts = [sum(total for _, total in widths[:place]) for place in range(len(widths))]
    return [(modules[0], block, start) for (block, _), start in zip(widths, starts, strict=True)]


def _slices(
    index: int, names: Iterable[str], parts: list[tuple[str, int, int]], inputs: Slice
) -> tuple[Slice, ...]:
    prefix = PREFIX.format(index)
    known = set(names)
    rows = [
        Slice(f"{prefix}{module}.{leaf}", 0, block, offset)
        for module, block, offset in parts
        for leaf in ("weight", "bias")
        if f"{prefix}{module}.{leaf}" in known
    ]
    return (*rows, Slice(prefix + inputs.tensor, inputs.dim, inputs.block))


def _block(family: Family, index: int, shape: BlockShape, own: Shapes) -> Block:
    prefix = PREFIX.format(index)
    linears = tuple(
        Linear(f"{prefix}{module}.weight", module, stage, *_matrix(own[f"{prefix}{module}.weight"]))
        for stage, modules in enumerate(family.stages)
        for module in modules
        if f"{prefix}{module}.weight" in own
    )
    attn = tuple(
        name
        for name in own
        if name.startswith((f"{prefix}self_attn.", *(prefix + norm for norm in family.attn_norms)))
    )
    halves = {"attn": attn, "ffn": tuple(name for name in own if name not in attn)}
    return Block(index, prefix, shape, tuple(own), linears, block_groups(family, index, shape, own), halves)


def _matrix(shape: tuple[int, ...]) -> tuple[int, int]:
    rows, columns = shape
    return rows, columns


def _outside_shapes(vocab_size: int, hidden_size: int, tied: bool) -> Shapes:
    shapes: Shapes = {EMBED: (vocab_size, hidden_size), FINAL_NORM: (hidden_size,)}
    return shapes if tied else {**shapes, HEAD: (vocab_size, hidden_size)}


def _uniform_shape(config: Mapping[str, Any]) -> BlockShape:
    n_heads = _positive(config, "num_attention_heads")
    n_kv_heads = (
        _positive(config, "num_key_value_heads") if config.get("num_key_value_heads") is not None else n_heads
    )
    head_dim = (
        _positive(config, "head_dim")
        if config.get("head_dim") is not None
        else _positive(config, "hidden_size") // n_heads
    )
    shape = BlockShape(n_heads, n_kv_heads, head_dim, _positive(config, "intermediate_size"))
    _check_heads(shape)
    return shape


def _check_heads(shape: BlockShape) -> None:
    sizes = (shape.n_heads, shape.n_kv_heads, shape.head_dim, shape.intermediate_size)
    if any(type(size) is not int or size < 0 for size in sizes):
        raise UnsupportedModelError(f"not supported because config.json gives a block the widths {sizes}")
    if bool(shape.n_heads) != bool(shape.n_kv_heads) or (
        shape.n_heads and (not shape.head_dim or shape.n_heads % shape.n_kv_heads)
    ):
        raise UnsupportedModelError(
            f"not supported because {shape.n_heads} query heads do not divide among {shape.n_kv_heads}"
            " key-value heads"
        )


def _positive(config: Mapping[str, Any], key: str) -> int:
    value = config.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UnsupportedModelError(
            f"not supported because {key} in config.json is {value!r}, not a positive number"
        )
    return value


def _agree(config: Mapping[str, Any], key: str, real: int, tensor: str) -> None:
    if config.get(key) != real:
        raise UnsupportedModelError(
            f"not supported because config.json says {key} is {config.get(key)!r} but {tensor} has {real}"
        )


def _check(expected: Shapes, tensors: Mapping[str, TensorInfo], family: Family) -> None:
    missing = [name for name in expected if name not in tensors]
    extra = [name for name in tensors if name not in expected]
    wrong = [
        f"{name} is {list(tensors[name].shape)} where config.json means {list(shape)}"
        for name, shape in expected.items()
        if name in tensors and tensors[name].shape != shape
    ]
    found = [
        f"{word} {_some(names)}"
        for word, names in (("missing", missing), ("unexpected", extra), ("wrong shape:", wrong))
        if names
    ]
    if found:
        raise UnsupportedModelError(
            f"not supported because its tensors are not those of a {family.name} model: {'; '.join(found)}"
        )


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def hidden_group(
    family: Family, shapes: Mapping[str, tuple[int, ...]], blocks: int, hidden_size: int
) -> Group:
    """Return the group `hidden` of a model.

    shapes: tensor name -> shape. blocks: number of blocks.
    """
    slices = [Slice(EMBED, 1), Slice(FINAL_NORM, 0), Slice(HEAD, 1)]
    for index in range(blocks):
        prefix = PREFIX.format(index)
        slices += [Slice(f"{prefix}{norm}.weight", 0) for norm in (*family.attn_norms, *family.ffn_norms)]
        slices += [Slice(f"{prefix}{module}.weight", 1) for module in (*family.qkv, *family.gate_up)]
        slices += [
            Slice(f"{prefix}{module}.{leaf}", 0)
            for module in (family.o, family.down)
            for leaf in ("weight", "bias")
        ]
    return Group("hidden", "hidden", hidden_size, tuple(part for part in slices if part.tensor in shapes))
