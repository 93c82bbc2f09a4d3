"""Tensors of a GGUF file, and what each is made of, as data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from secateur.core.graph import Block, Graph
from secateur.model.formats.gguf.loaders import GgufLoader, PerBlockLoader
from secateur_runtime.decoder.block_shape import BlockShape
from secateur_runtime.errors import UnsupportedModelError

# A removed sub-block that a loader requires is written as a narrow one of zeros, which adds nothing.
_ZERO_WIDTH = 32
_QKV = ("attn_q", "attn_k", "attn_v")


@dataclass(frozen=True, slots=True, kw_only=True)
class Naming:
    """How one family is named and laid out in GGUF.

    loader: of its own architecture. per_block: loader for blocks of unequal width, or None.
    outside, inside: GGUF name -> Hugging Face name; `inside` without block prefix and `.weight` or `.bias`.
    norm_offset: added to every norm weight.
    """

    loader: GgufLoader
    per_block: PerBlockLoader | None
    outside: Mapping[str, str]
    inside: Mapping[str, str]
    norm_offset: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LaidTensor:
    """One tensor of the file.

    parts: tensors of the model, joined along dim 0; none for one filled with `add`.
    heads: number of heads whose rows are interleaved, or 0.
    add: added to every element.
    """

    name: str
    shape: tuple[int, ...]
    parts: tuple[str, ...] = ()
    heads: int = 0
    add: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """A whole file.

    loader: of the file's architecture. per_block: the file lists the widths of each block.
    shapes: widths of its blocks. alive: index of each of them in the model.
    """

    loader: GgufLoader
    per_block: bool
    shapes: tuple[BlockShape, ...]
    alive: tuple[int, ...]
    tensors: tuple[LaidTensor, ...]

    @property
    def arch(self) -> str:
        """GGUF architecture of the file."""
        return self.loader.name


def lay_out(graph: Graph, naming: Naming) -> Layout:
    """Return the layout of a model.

    Raises UnsupportedModelError if no loader of llama.cpp can hold its widths.
    """
    alive = tuple(block for block in graph.blocks if block.shape.n_heads or block.shape.intermediate_size)
    per_block = _route(graph, naming, alive)
    loader = per_block.loader if per_block else naming.loader
    shapes = tuple(
        _padded(per_block, index, block.shape, alive) if per_block else block.shape
        for index, block in enumerate(alive)
    )
    tensors = [
        _outside(name, source, graph, naming)
        for name, source in naming.outside.items()
        if source in graph.tensors
    ]
    for index, (block, shape) in enumerate(zip(alive, shapes, strict=True)):
        own = {stored.name: stored for stored in _own(graph, naming, loader, index, block)}
        own |= {
            stored.name: stored for stored in _zeros(naming, index, block.shape, shape, graph.hidden_size)
        }
        tensors += _fused(own, index) if per_block and per_block.joined else own.values()
    _check_biases(loader, tensors)
    return Layout(
        loader=loader,
        per_block=per_block is not None,
        shapes=shapes,
        alive=tuple(block.index for block in alive),
        tensors=tuple(tensors),
    )


def _route(graph: Graph, naming: Naming, alive: tuple[Block, ...]) -> PerBlockLoader | None:
    """Return the loader that must take the blocks one by one; None where the family's own loader serves."""
    shapes = {block.shape for block in alive}
    if not alive or not any(shape.n_heads for shape in shapes):
        raise UnsupportedModelError("not supported because llama.cpp loads no model without attention")
    first = alive[0].shape
    if len(shapes) == 1 and first.n_heads and first.intermediate_size:
        if not naming.loader.whole_heads or first.n_heads * first.head_dim == graph.hidden_size:
            return None
        if naming.per_block is None:
            raise UnsupportedModelError(
                f"not supported because llama.cpp loads {graph.family} only where all its query heads are as"
                " wide as its hidden states: prune FFN or layers"
            )
    if naming.per_block is None:
        raise UnsupportedModelError(
            f"not supported because llama.cpp loads {graph.family} only with blocks of equal width: prune it"
            " with --uniform, or remove whole layers"
        )
    if naming.per_block.tied_only and not graph.tied:
        raise UnsupportedModelError(
            f"not supported because llama.cpp loads {graph.family} with blocks of unequal width only if its"
            " embeddings are tied: prune it with --uniform"
        )
    if len({shape.head_dim for shape in shapes if shape.n_heads}) > 1:
        raise UnsupportedModelError(
            "not supported because llama.cpp needs the same head width in every block"
        )
    return naming.per_block


def _check_biases(loader: GgufLoader, tensors: Iterable[LaidTensor]) -> None:
    """Raise UnsupportedModelError for a bias that the loader would not read.

    The others read those of q, k and v at most.
    """
    for stored in tensors:
        read = loader.all_biases or stored.name.split(".")[-2] in _QKV
        if stored.name.endswith(".bias") and not read:
            raise UnsupportedModelError(
                f"not supported because llama.cpp's loader of {loader.name} reads no {stored.parts[0]}: prune"
                " the original with --repair lsq"
            )


def _padded(per_block: PerBlockLoader, index: int, shape: BlockShape, alive: tuple[Block, ...]) -> BlockShape:
    """Return the widths a block has in the file.

    Every loader of unequal blocks needs an FFN in each block and attention in block 0; one that runs both
    sub-blocks needs attention in each.
    """
    if not shape.intermediate_size:
        shape = replace(shape, intermediate_size=_ZERO_WIDTH)
    if not shape.n_heads and (per_block.both or index == 0):
        shape = replace(shape, n_heads=1, n_kv_heads=1, head_dim=max(block.shape.head_dim for block in alive))
    return shape


def _outside(name: str, source: str, graph: Graph, naming: Naming) -> LaidTensor:
    shape = graph.tensors[source].shape
    return LaidTensor(
        name=name, shape=shape, parts=(source,), add=naming.norm_offset if len(shape) == 1 else 0.0
    )


def _own(graph: Graph, naming: Naming, loader: GgufLoader, index: int, block: Block) -> Iterator[LaidTensor]:
    stored = {module: name for name, module in naming.inside.items()}
    heads = {"attn_q": block.shape.n_heads, "attn_k": block.shape.n_kv_heads} if loader.permuted else {}
    for source in block.tensors:
        module, _, leaf = source.removeprefix(block.prefix).rpartition(".")
        short = stored[module]
        norm = short.endswith("norm")
        yield LaidTensor(
            name=f"blk.{index}.{short}.{leaf}",
            shape=graph.tensors[source].shape,
            parts=(source,),
            heads=heads.get(short, 0),
            add=naming.norm_offset if norm else 0.0,
        )


def _zeros(
    naming: Naming, index: int, real: BlockShape, padded: BlockShape, hidden: int
) -> Iterator[LaidTensor]:
    """Yield the tensors of the sub-blocks that `padded` has and `real` has not."""
    shapes: dict[str, tuple[int, ...]] = {}
    if padded.n_heads and not real.n_heads:
        queries = padded.n_heads * padded.head_dim
        keys = padded.n_kv_heads * padded.head_dim
        shapes |= {
            "attn_norm": (hidden,),
            "attn_q": (queries, hidden),
            "attn_k": (keys, hidden),
            "attn_v": (keys, hidden),
            "attn_output": (hidden, queries),
        }
        shapes |= {
            name: (padded.head_dim,) for name in ("attn_q_norm", "attn_k_norm") if name in naming.inside
        }
    if padded.intermediate_size and not real.intermediate_size:
        inner = padded.intermediate_size
        shapes |= {
            "ffn_norm": (hidden,),
            "ffn_gate": (inner, hidden),
            "ffn_up": (inner, hidden),
            "ffn_down": (hidden, inner),
        }
    for name, shape in shapes.items():
        yield LaidTensor(name=f"blk.{index}.{name}.weight", shape=shape, add=1.0 if len(shape) == 1 else 0.0)


def _fused(own: Mapping[str, LaidTensor], index: int) -> Iterator[LaidTensor]:
    """Yield the tensors of a block with q, k and v joined into one."""
    names = [f"blk.{index}.{part}.weight" for part in _QKV]
    queries, keys, values = (own[name] for name in names)
    rows = queries.shape[0] + keys.shape[0] + values.shape[0]
    yield LaidTensor(
        name=f"blk.{index}.attn_qkv.weight",
        shape=(rows, queries.shape[1]),
        parts=queries.parts + keys.parts + values.parts,
    )
    yield from (stored for name, stored in own.items() if name not in names)
