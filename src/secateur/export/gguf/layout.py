"""Tensors of a GGUF file, and what each is made of, as data.

llama.cpp's own loaders of Llama, Qwen and the others take every block's widths from block 0. Blocks of
unequal width therefore go to a loader that takes them per block: `deci` (DeciLM, for models that compute as
Llama does) or `openelm` (OpenELM, whose normalised heads are Qwen3's).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from secateur.core.graph import Block, Graph
from secateur_runtime.decoder.block_shape import BlockShape
from secateur_runtime.errors import UnsupportedModelError

PER_BLOCK = {"llama": "deci", "mistral": "deci", "qwen2": "deci", "qwen3": "openelm"}
# Their own loaders take the query heads to be as wide together as the hidden states.
_WHOLE_HEADS = ("qwen2", "phi3")
_ONLY_TIED = ("openelm",)
# A removed sub-block that a loader requires is written as a narrow one of zeros, which adds nothing.
_ZERO_WIDTH = 32
_QKV = ("attn_q", "attn_k", "attn_v")
_READS_ALL_BIASES = ("llama", "deci")


@dataclass(frozen=True, slots=True, kw_only=True)
class Naming:
    """How one family is named and laid out in GGUF.

    arch: its own architecture name.
    outside, inside: GGUF name -> Hugging Face name; `inside` without block prefix and `.weight` or `.bias`.
    permuted: rows of each q and k head are interleaved for the rotary embedding.
    norm_offset: added to every norm weight.
    """

    arch: str
    outside: Mapping[str, str]
    inside: Mapping[str, str]
    permuted: bool
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

    arch: GGUF architecture. shapes: widths of its blocks. alive: index of each of them in the model.
    """

    arch: str
    shapes: tuple[BlockShape, ...]
    alive: tuple[int, ...]
    tensors: tuple[LaidTensor, ...]


def lay_out(graph: Graph, naming: Naming) -> Layout:
    """Return the layout of a model.

    Raises UnsupportedModelError if no loader of llama.cpp can hold its widths.
    """
    alive = tuple(block for block in graph.blocks if block.shape.n_heads or block.shape.intermediate_size)
    arch = _route(graph, naming, alive)
    if arch != naming.arch:
        naming = replace(naming, permuted=arch == "deci")
    shapes = tuple(_padded(arch, index, block.shape, alive) for index, block in enumerate(alive))
    tensors = [
        _outside(name, source, graph, naming)
        for name, source in naming.outside.items()
        if source in graph.tensors
    ]
    for index, (block, shape) in enumerate(zip(alive, shapes, strict=True)):
        own = {stored.name: stored for stored in _own(graph, naming, index, block)}
        own |= {
            stored.name: stored for stored in _zeros(naming, index, block.shape, shape, graph.hidden_size)
        }
        tensors += _fused(own, index) if arch == "openelm" else own.values()
    _check_biases(arch, tensors)
    return Layout(
        arch=arch, shapes=shapes, alive=tuple(block.index for block in alive), tensors=tuple(tensors)
    )


def _route(graph: Graph, naming: Naming, alive: tuple[Block, ...]) -> str:
    shapes = {block.shape for block in alive}
    if not alive or not any(shape.n_heads for shape in shapes):
        raise UnsupportedModelError("not supported because llama.cpp loads no model without attention")
    first = alive[0].shape
    if len(shapes) == 1 and first.n_heads and first.intermediate_size:
        if graph.family not in _WHOLE_HEADS or first.n_heads * first.head_dim == graph.hidden_size:
            return naming.arch
        if graph.family not in PER_BLOCK:
            raise UnsupportedModelError(
                f"not supported because llama.cpp loads {graph.family} only where all its query heads are as"
                " wide as its hidden states: prune FFN or layers"
            )
    route = PER_BLOCK.get(graph.family)
    if route is None:
        raise UnsupportedModelError(
            f"not supported because llama.cpp loads {graph.family} only with blocks of equal width: prune it"
            " with --uniform, or remove whole layers"
        )
    if route in _ONLY_TIED and not graph.tied:
        raise UnsupportedModelError(
            f"not supported because llama.cpp loads {graph.family} with blocks of unequal width only if its"
            " embeddings are tied: prune it with --uniform"
        )
    if len({shape.head_dim for shape in shapes if shape.n_heads}) > 1:
        raise UnsupportedModelError(
            "not supported because llama.cpp needs the same head width in every block"
        )
    return route


def _check_biases(arch: str, tensors: Iterable[LaidTensor]) -> None:
    """Raise UnsupportedModelError for a bias that the loader would not read.

    The others read those of q, k and v at most.
    """
    for stored in tensors:
        read = arch in _READS_ALL_BIASES or stored.name.split(".")[-2] in _QKV
        if stored.name.endswith(".bias") and not read:
            raise UnsupportedModelError(
                f"not supported because llama.cpp's loader of {arch} reads no {stored.parts[0]}: prune the"
                " original with --repair lsq"
            )


def _padded(arch: str, index: int, shape: BlockShape, alive: tuple[Block, ...]) -> BlockShape:
    """Return the widths a block has in the file.

    deci adds the attention to the residual stream only where there is an FFN, aborts where the last block has
    none, and cannot load a block 0 without attention. openelm runs both sub-blocks of every block.
    """
    if not shape.intermediate_size:
        shape = replace(shape, intermediate_size=_ZERO_WIDTH)
    if not shape.n_heads and (arch == "openelm" or index == 0):
        shape = replace(shape, n_heads=1, n_kv_heads=1, head_dim=max(block.shape.head_dim for block in alive))
    return shape


def _outside(name: str, source: str, graph: Graph, naming: Naming) -> LaidTensor:
    shape = graph.tensors[source].shape
    return LaidTensor(
        name=name, shape=shape, parts=(source,), add=naming.norm_offset if len(shape) == 1 else 0.0
    )


def _own(graph: Graph, naming: Naming, index: int, block: Block) -> Iterator[LaidTensor]:
    stored = {module: name for name, module in naming.inside.items()}
    heads = {"attn_q": block.shape.n_heads, "attn_k": block.shape.n_kv_heads} if naming.permuted else {}
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
