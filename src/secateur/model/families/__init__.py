"""Model families as data, one row in one file each: tensor names, biases, fused tensors, and GGUF.

A family is a module that adds a `Family` to `FAMILIES`; nothing else in the product names it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from secateur.model.formats.gguf.loaders import GgufLoader, PerBlockLoader
from secateur_runtime.errors import UnsupportedModelError, nearest
from secateur_runtime.registry import Table

EMBED = "model.embed_tokens.weight"
FINAL_NORM = "model.norm.weight"
HEAD = "lm_head.weight"
PREFIX = "model.layers.{}."
# Buffers that old checkpoints carry and every loader recomputes.
RECOMPUTED = ("rotary_emb.inv_freq",)
# How a config with blocks of unequal width names its parent family and its widths.
BASE_KEY = "base_model_type"
SHAPES_KEY = "block_shapes"

QKV = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
HEAD_NORMS = ("self_attn.q_norm", "self_attn.k_norm")
ATTENTION_BIAS: Mapping[str, tuple[str, ...]] = {"attention_bias": (*QKV, "self_attn.o_proj")}
ALL_BIASES: Mapping[str, tuple[str, ...]] = {
    **ATTENTION_BIAS,
    "mlp_bias": ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"),
}
"""Config flags of biases, as several families have them."""
SANDWICH_ATTN = ("input_layernorm", "post_attention_layernorm")
SANDWICH_FFN = ("pre_feedforward_layernorm", "post_feedforward_layernorm")
"""Norms of sub-blocks that are normed before and after."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufFamily:
    """How one family is stored in GGUF, and what its config says that a file leaves unsaid.

    loader: of its architecture.
    names: module -> name in the file, of the modules that are not stored under the usual name of their role.
    read_as: family that a file of this architecture is read as, where files do not tell the two apart; empty
    for the family itself.
    per_block: loader for blocks of unequal width; None: llama.cpp has none.
    window: a file holds the attention window, and the config wants it.
    layer_types: the config lists a type per block though all are of full attention.
    local_base: base of the rotary embedding of blocks with a window, where a file has none; 0: all blocks
    share one embedding.
    partial_rotary: the config says which share of a head is rotated.
    attention_scale: the config says what attention is scaled by (`query_pre_attn_scalar`).
    config: constants of the config.
    """

    loader: GgufLoader
    names: Mapping[str, str] = field(default_factory=dict)
    read_as: str = ""
    per_block: PerBlockLoader | None = None
    window: bool = False
    layer_types: bool = False
    local_base: float = 0.0
    partial_rotary: bool = False
    attention_scale: bool = False
    config: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One decoder family; module names are relative to the block.

    name: `model_type` in the config.
    architecture: class that transformers loads it with.
    attn_norms, ffn_norms: norms of width `hidden_size` that belong to each sub-block.
    qkv: q, k, v, or one module whose rows are all of q, then k, then v.
    gate_up: gate, up, or one module whose rows are all of gate, then up.
    head_norms: norms of width `head_dim`, shared by all heads.
    norm_offset: what a norm adds to its stored weight.
    scaled_embeddings: the model multiplies its embeddings by the square root of `hidden_size`.
    biased: modules that always have a bias.
    bias_flags: config flag -> modules that have a bias when it is true.
    gguf: how it is stored in GGUF; None: in no known way, so it is neither read from GGUF nor exported.
    """

    name: str
    architecture: str
    attn_norms: tuple[str, ...] = ("input_layernorm",)
    ffn_norms: tuple[str, ...] = ("post_attention_layernorm",)
    qkv: tuple[str, ...] = QKV
    o: str = "self_attn.o_proj"
    gate_up: tuple[str, ...] = ("mlp.gate_proj", "mlp.up_proj")
    down: str = "mlp.down_proj"
    head_norms: tuple[str, ...] = ()
    norm_offset: float = 0.0
    scaled_embeddings: bool = False
    biased: tuple[str, ...] = ()
    bias_flags: Mapping[str, tuple[str, ...]] | None = None
    gguf: GgufFamily | None = None

    def __post_init__(self) -> None:
        unnamed = [module for module in self.modules if self.gguf and module not in self.gguf_names()]
        if unnamed:
            raise ValueError(f"family {self.name}: gguf.names has no name for {', '.join(unnamed)}")

    @property
    def stages(self) -> tuple[tuple[str, ...], ...]:
        """Prunable modules in the order data reaches them; those of one stage share their input."""
        return (self.qkv, (self.o,), self.gate_up, (self.down,))

    @property
    def modules(self) -> tuple[str, ...]:
        """All modules of a block that hold weights."""
        linears = (module for stage in self.stages for module in stage)
        return (*self.attn_norms, *self.ffn_norms, *linears, *self.head_norms)

    def gguf_names(self) -> dict[str, str]:
        """Return module -> its name in a GGUF file, both relative to the block."""
        usual = {
            self.attn_norms[0]: "attn_norm",
            self.ffn_norms[0]: "ffn_norm",
            self.o: "attn_output",
            self.down: "ffn_down",
            **dict(zip(self.head_norms, ("attn_q_norm", "attn_k_norm"), strict=False)),
        }
        if len(self.qkv) > 1:
            usual |= dict(zip(self.qkv, ("attn_q", "attn_k", "attn_v"), strict=True))
        if len(self.gate_up) > 1:
            usual |= dict(zip(self.gate_up, ("ffn_gate", "ffn_up"), strict=True))
        return usual | dict(self.gguf.names if self.gguf else {})

    def in_gguf(self) -> GgufFamily:
        """Return how the family is stored in GGUF; raises UnsupportedModelError where no way is known."""
        if self.gguf is None:
            known = ", ".join(name for name, family in FAMILIES.items() if family.gguf)
            raise UnsupportedModelError(
                f"not supported because GGUF has no known architecture for {self.name}; known: {known}"
            )
        return self.gguf

    def biases(self, config: Mapping[str, Any]) -> frozenset[str]:
        """Return the modules that have a bias under `config`."""
        flagged = (modules for flag, modules in (self.bias_flags or {}).items() if config.get(flag))
        return frozenset(self.biased).union(*flagged)

    def bias_flag(self, module: str) -> str:
        """Return the config flag that gives a module a bias; empty where there is none."""
        return next((flag for flag, modules in (self.bias_flags or {}).items() if module in modules), "")


FAMILIES: Table[Family] = Table("model family", "secateur.model.families", "secateur.families")


def add_family(family: Family) -> Family:
    """Enter a row of the table and return it; raises UsageError for a name that is taken."""
    return FAMILIES.add(family.name, family)


def family_of(config: Mapping[str, Any]) -> Family:
    """Return the family of a config; raises UnsupportedModelError with the known families."""
    model_type = config.get(BASE_KEY, config.get("model_type"))
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        hint = nearest(str(model_type), FAMILIES)
        raise UnsupportedModelError(
            f"not supported because model_type {model_type!r} is not a known family{hint}; known:"
            f" {', '.join(FAMILIES)}"
        )
    return FAMILIES[model_type]
