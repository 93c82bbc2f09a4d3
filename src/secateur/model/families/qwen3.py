"""Qwen3: Llama with a norm of each query and key head."""

from __future__ import annotations

from secateur.model.families import ATTENTION_BIAS, HEAD_NORMS, Family, GgufFamily, add_family
from secateur.model.formats.gguf.loaders import OPENELM, GgufLoader

add_family(
    Family(
        name="qwen3",
        architecture="Qwen3ForCausalLM",
        head_norms=HEAD_NORMS,
        bias_flags=ATTENTION_BIAS,
        gguf=GgufFamily(
            loader=GgufLoader(name="qwen3"),
            per_block=OPENELM,
            layer_types=True,
            config={"use_sliding_window": False},
        ),
    )
)
