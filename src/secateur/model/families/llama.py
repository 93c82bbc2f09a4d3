"""Llama, and the models that are stored as Llama: SmolLM2, TinyLlama and others."""

from __future__ import annotations

from secateur.model.families import ALL_BIASES, Family, GgufFamily, add_family
from secateur.model.formats.gguf.loaders import DECI, GgufLoader

LLAMA_GGUF = GgufFamily(
    loader=GgufLoader(name="llama", permuted=True, all_biases=True, scalings=("llama3",)), per_block=DECI
)

add_family(Family(name="llama", architecture="LlamaForCausalLM", bias_flags=ALL_BIASES, gguf=LLAMA_GGUF))
