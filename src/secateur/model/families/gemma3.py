"""Gemma 3 (text): norms before and after each sub-block and of heads, windows in five blocks of six."""

from __future__ import annotations

from secateur.model.families import (
    ATTENTION_BIAS,
    HEAD_NORMS,
    SANDWICH_ATTN,
    SANDWICH_FFN,
    Family,
    GgufFamily,
    add_family,
)
from secateur.model.families.gemma2 import SANDWICH_NAMES
from secateur.model.formats.gguf.loaders import GELU, GgufLoader

add_family(
    Family(
        name="gemma3_text",
        architecture="Gemma3ForCausalLM",
        head_norms=HEAD_NORMS,
        norm_offset=1.0,
        scaled_embeddings=True,
        bias_flags=ATTENTION_BIAS,
        attn_norms=SANDWICH_ATTN,
        ffn_norms=SANDWICH_FFN,
        gguf=GgufFamily(
            loader=GgufLoader(
                name="gemma3",
                activations=GELU,
                window_period=6,
                optional_softcaps=("final_logit_softcapping",),
                scalar_from_hidden=62,
            ),
            names=SANDWICH_NAMES,
            window=True,
            local_base=10000.0,
            attention_scale=True,
        ),
    )
)
