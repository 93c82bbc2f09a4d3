"""Qwen2 and Qwen2.5: Llama with biases of q, k and v."""

from __future__ import annotations

from secateur.model.families import QKV, Family, GgufFamily, add_family
from secateur.model.formats.gguf.loaders import DECI, GgufLoader

add_family(
    Family(
        name="qwen2",
        architecture="Qwen2ForCausalLM",
        biased=QKV,
        gguf=GgufFamily(
            loader=GgufLoader(name="qwen2", whole_heads=True),
            per_block=DECI,
            layer_types=True,
            config={"use_sliding_window": False},
        ),
    )
)
