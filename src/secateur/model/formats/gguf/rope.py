"""Rotary position settings of a GGUF file, as transformers 5 names them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from secateur.model.families import GgufFamily
from secateur.model.formats.gguf.header import GgufHeader
from secateur_runtime.errors import UnsupportedModelError

ReadFactors = Callable[[str], list[float]]

# The only values Llama 3.1 to 3.3 were released with; the file keeps the factors they give, not the values.
_LLAMA3: Mapping[str, float] = {
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
_LONG = "rope_factors_long.weight"
_SHORT = "rope_factors_short.weight"


def rope_config(
    header: GgufHeader, stored: GgufFamily, config: Mapping[str, Any], read_factors: ReadFactors
) -> dict[str, Any]:
    """Return the config entries of the rotary embedding, `rope_parameters` among them.

    Raises UnsupportedModelError for an unknown scaling.
    """
    name = stored.loader.name
    rope: dict[str, Any] = {
        "rope_type": "default",
        "rope_theta": header.number(f"{name}.rope.freq_base", 10000.0),
    }
    rope |= _scaling(header, name)
    found: dict[str, Any] = {}
    if "rope_freqs.weight" in header.tensors:
        rope |= _llama3(rope["rope_theta"], config["head_dim"], read_factors("rope_freqs.weight"))
    if stored.partial_rotary:
        rope["partial_rotary_factor"] = (
            header.integer(f"{name}.rope.dimension_count", config["head_dim"]) / config["head_dim"]
        )
    if "longrope" in stored.loader.scalings:
        found["original_max_position_embeddings"] = header.integer(
            f"{name}.rope.scaling.original_context_length", config["max_position_embeddings"]
        )
        if _LONG in header.tensors and _SHORT in header.tensors:
            rope |= {
                "rope_type": "longrope",
                "long_factor": read_factors(_LONG),
                "short_factor": read_factors(_SHORT),
            }
    if stored.local_base and "sliding_attention" in config.get("layer_types", ()):
        local = header.number(f"{name}.rope.freq_base_swa", stored.local_base)
        rope = {"full_attention": rope, "sliding_attention": {"rope_type": "default", "rope_theta": local}}
    return found | {"rope_parameters": rope}


def llama3_factors(
    theta: float, head_dim: int, factor: float, scaling: Mapping[str, Any] = _LLAMA3
) -> list[float]:
    """Return the divisor of each rotary frequency under the scaling of Llama 3.1, `[head_dim / 2]`.

    theta: base of the frequencies. factor: divisor of the lowest ones.
    scaling: `low_freq_factor`, `high_freq_factor` and `original_max_position_embeddings`, as in the
    `rope_parameters` of transformers (arXiv:2407.21783).
    """
    low = scaling["low_freq_factor"]
    high = scaling["high_freq_factor"]
    length = scaling["original_max_position_embeddings"]
    found = []
    for index in range(0, head_dim, 2):
        wavelength = 2 * math.pi * theta ** (index / head_dim)
        # 0 where a wave does not fit the original context at all, 1 where it fits many times.
        smooth = min(1.0, max(0.0, (length / wavelength - low) / (high - low)))
        found.append(1 / ((1 - smooth) / factor + smooth))
    return found


def _llama3(theta: float, head_dim: int, stored: list[float]) -> dict[str, Any]:
    factor = max(stored)
    if math.isclose(factor, 1.0) and math.isclose(min(stored), 1.0):
        return {}
    expected = llama3_factors(theta, head_dim, factor) if math.isfinite(factor) and factor > 0 else []
    if len(expected) != len(stored) or not all(
        math.isclose(left, right, rel_tol=1e-4) for left, right in zip(stored, expected, strict=True)
    ):
        raise UnsupportedModelError(
            "not supported because rope_freqs.weight is not the scaling of Llama 3.1 to 3.3: prune the"
            " original model instead"
        )
    return {"rope_type": "llama3", "factor": factor, **_LLAMA3}


def _scaling(header: GgufHeader, name: str) -> dict[str, Any]:
    kind = header.get(f"{name}.rope.scaling.type", "none")
    # A longrope is described by its factor tensors.
    if kind in ("none", "longrope"):
        return {}
    if kind not in ("linear", "yarn"):
        raise UnsupportedModelError(
            f"not supported because its rotary scaling is {kind!r}: prune the original model instead"
        )
    found: dict[str, Any] = {"rope_type": kind, "factor": header.number(f"{name}.rope.scaling.factor")}
    length = f"{name}.rope.scaling.original_context_length"
    return (
        found | {"original_max_position_embeddings": header.integer(length)}
        if kind == "yarn" and length in header
        else found
    )
