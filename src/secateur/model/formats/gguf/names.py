"""Names and row layouts of GGUF tensors, in Hugging Face terms."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from secateur.model.families import EMBED, FINAL_NORM, HEAD, PREFIX, Family
from secateur.model.formats.gguf.header import GgufTensor
from secateur_runtime.errors import UnsupportedModelError

OUTSIDE: Mapping[str, str] = {
    "token_embd.weight": EMBED,
    "output_norm.weight": FINAL_NORM,
    "output.weight": HEAD,
}
"""GGUF name -> Hugging Face name of each tensor outside the blocks."""
# Read by the config, not by the model.
_ROPE_FACTORS = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")
_IN_BLOCK = re.compile(r"blk\.(\d{1,5})\.(.+)\.(weight|bias)")


def block_names(family: Family) -> dict[str, str]:
    """Return GGUF name -> Hugging Face module of one block, both relative to the block."""
    return {stored: module for module, stored in family.gguf_names().items()}


def huggingface_names(tensors: Mapping[str, GgufTensor], family: Family) -> dict[str, GgufTensor]:
    """Return the tensors under their Hugging Face names.

    Raises UnsupportedModelError naming those that have none.
    """
    modules = block_names(family)
    named: dict[str, GgufTensor] = {}
    unknown = []
    for name, tensor in tensors.items():
        match = _IN_BLOCK.fullmatch(name)
        if name in OUTSIDE:
            named[OUTSIDE[name]] = tensor
        elif match and match[2] in modules:
            named[f"{PREFIX.format(int(match[1]))}{modules[match[2]]}.{match[3]}"] = tensor
        elif not name.endswith(_ROPE_FACTORS):
            unknown.append(name)
    if unknown:
        raise UnsupportedModelError(
            f"not supported because these GGUF tensors are not those of a {family.name} model:"
            f" {', '.join(unknown[:4])}"
        )
    return named


def undo_permutation(rows: Tensor, n_heads: int) -> Tensor:
    """Return the rows of a q or k weight in the order of transformers.

    rows: `[n_heads * head_dim, ...]`. llama.cpp interleaves the two channels of each rotary pair of a head;
    transformers keeps all first channels, then all second ones.
    """
    halves = rows.reshape(n_heads, rows.shape[0] // n_heads // 2, 2, *rows.shape[1:])
    return halves.transpose(1, 2).reshape(rows.shape)
