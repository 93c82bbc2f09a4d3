"""SmolLM3: Llama without rotary positions in every fourth block."""

from __future__ import annotations

from secateur.model.families import ALL_BIASES, Family, GgufFamily, add_family
from secateur.model.formats.gguf.loaders import GgufLoader

add_family(
    Family(
        name="smollm3",
        architecture="SmolLM3ForCausalLM",
        bias_flags=ALL_BIASES,
        gguf=GgufFamily(
            loader=GgufLoader(name="smollm3", permuted=True, no_rope_period=4),
            layer_types=True,
            config={"no_rope_layer_interval": 4, "use_sliding_window": False},
        ),
    )
)
