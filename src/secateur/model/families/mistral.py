"""Mistral: Llama, in its first version with an attention window, which a GGUF file does not tell."""

from __future__ import annotations

from dataclasses import replace

from secateur.model.families import Family, add_family
from secateur.model.families.llama import LLAMA_GGUF

add_family(
    Family(name="mistral", architecture="MistralForCausalLM", gguf=replace(LLAMA_GGUF, read_as="llama"))
)
