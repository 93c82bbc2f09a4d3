"""Gemma 2: norms before and after each sub-block, windows in every other block, soft caps."""

from __future__ import annotations

from secateur.model.families import (
    ATTENTION_BIAS,
    SANDWICH_ATTN,
    SANDWICH_FFN,
    Family,
    GgufFamily,
    add_family,
)
from secateur.model.formats.gguf.loaders import GELU, GgufLoader

SANDWICH_NAMES = {
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
"""GGUF names of the norms that stand elsewhere in other families, or not at all."""

add_family(
    Family(
        name="gemma2",
        architecture="Gemma2ForCausalLM",
        norm_offset=1.0,
        scaled_embeddings=True,
        bias_flags=ATTENTION_BIAS,
        attn_norms=SANDWICH_ATTN,
        ffn_norms=SANDWICH_FFN,
        gguf=GgufFamily(
            loader=GgufLoader(
                name="gemma2",
                activations=GELU,
                window_period=2,
                softcaps={"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0},
                scalar_from_hidden=46,
            ),
            names=SANDWICH_NAMES,
            window=True,
            attention_scale=True,
        ),
    )
)
