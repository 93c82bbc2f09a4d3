"""What llama.cpp's loaders of GGUF architectures do, as data.

A loader has constants where a config has settings, so a model whose settings differ from them is refused. The
own loader of a family takes every block's widths from block 0. Blocks of unequal width go to a loader of
another architecture, which takes them per block: `deci` (DeciLM, for models that compute as Llama does) or
`openelm` (OpenELM, whose normalised heads are Qwen3's).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

SILU = ("silu", "swish")
GELU = ("gelu_pytorch_tanh", "gelu_new", "gelu_fast")
"""Names of one activation in configs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufLoader:
    """What llama.cpp's loader of one GGUF architecture does, whatever a config says.

    name: of the architecture in the file.
    permuted: it takes the rows of each q and k head interleaved for the rotary embedding.
    whole_heads: it takes the query heads to be as wide together as the hidden states.
    all_biases: it reads a bias of every linear; otherwise those of q, k and v only.
    activations: names of the one that it runs in FFNs.
    scalings: kinds of rotary scaling that it has besides linear and yarn.
    no_rope_period: it leaves rotary positions out of every such block; 0: out of none.
    window_period: every such block attends to everything, the others to a window, unless a file says another
    period; 0: all to everything.
    softcaps: soft caps that it always applies: key in the config -> value where a file has none.
    optional_softcaps: soft caps that it applies where a file has them.
    scalar_from_hidden: number of blocks of the one size whose attention it scales by hidden_size over the
    number of heads instead of by head_dim; 0: none.
    """

    name: str
    permuted: bool = False
    whole_heads: bool = False
    all_biases: bool = False
    activations: tuple[str, ...] = SILU
    scalings: tuple[str, ...] = ()
    no_rope_period: int = 0
    window_period: int = 0
    softcaps: Mapping[str, float] = field(default_factory=dict)
    optional_softcaps: tuple[str, ...] = ()
    scalar_from_hidden: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PerBlockLoader:
    """A loader that takes the widths of each block from lists in the file.

    loader: what it does. tied_only: it loads a model only if its embeddings are tied.
    joined: it takes q, k and v in one tensor. both: it runs both sub-blocks of every block.
    """

    loader: GgufLoader
    tied_only: bool = False
    joined: bool = False
    both: bool = False


# It adds the attention to the residual stream only where there is an FFN, aborts where the last block has
# none, and cannot load a block 0 without attention.
DECI = PerBlockLoader(loader=GgufLoader(name="deci", permuted=True, all_biases=True, scalings=("llama3",)))
OPENELM = PerBlockLoader(loader=GgufLoader(name="openelm"), tied_only=True, joined=True, both=True)
