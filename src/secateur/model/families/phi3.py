"""Phi-3 and Phi-4-mini: Llama with q, k, v in one tensor and gate, up in another."""

from __future__ import annotations

from secateur.model.families import Family, GgufFamily, add_family
from secateur.model.formats.gguf.loaders import GgufLoader

add_family(
    Family(
        name="phi3",
        architecture="Phi3ForCausalLM",
        qkv=("self_attn.qkv_proj",),
        gate_up=("mlp.gate_up_proj",),
        gguf=GgufFamily(
            loader=GgufLoader(name="phi3", whole_heads=True, scalings=("longrope",)),
            names={"self_attn.qkv_proj": "attn_qkv", "mlp.gate_up_proj": "ffn_up"},
            window=True,
            partial_rotary=True,
        ),
    )
)
