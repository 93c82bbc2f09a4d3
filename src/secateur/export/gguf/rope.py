"""Rotary position settings as GGUF metadata, and the frequency factors that go into the file as tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from secateur.model.formats.gguf.loaders import GgufLoader
from secateur.model.formats.gguf.rope import llama3_factors
from secateur_runtime.errors import UnsupportedModelError


@dataclass(frozen=True, slots=True)
class Rope:
    """Metadata without the architecture's prefix, and vectors by tensor name."""

    fields: Mapping[str, Any]
    factors: Mapping[str, list[float]] = field(default_factory=dict)


def rope_of(loader: GgufLoader, settings: Mapping[str, Any], head_dim: int) -> Rope:
    """Return how llama.cpp is told the rotary embedding of `settings` (a whole Hugging Face config).

    Raises UnsupportedModelError for a scaling that llama.cpp, or this loader, does not have.
    """
    parameters = settings["rope_parameters"]
    main = parameters.get("full_attention", parameters)
    fields: dict[str, Any] = {"rope.freq_base": float(main["rope_theta"])}
    fields["rope.dimension_count"] = int(head_dim * main.get("partial_rotary_factor", 1.0))
    if "sliding_attention" in parameters:
        fields["rope.freq_base_swa"] = _windowed_base(parameters["sliding_attention"])
    kind = main.get("rope_type", "default")
    if kind == "default":
        return Rope(fields)
    if kind == "llama3" and kind in loader.scalings:
        factors = llama3_factors(main["rope_theta"], head_dim, main["factor"], main)
        return Rope(fields, {"rope_freqs.weight": factors})
    if kind == "linear":
        return Rope(fields | {"rope.scaling.type": "linear", "rope.scaling.factor": float(main["factor"])})
    if kind == "yarn":
        return Rope(fields | _yarn(main, settings))
    if kind == "longrope" and kind in loader.scalings:
        return Rope(
            fields | _longrope(main, settings),
            {
                f"rope_factors_{name}.weight": [float(x) for x in main[f"{name}_factor"]]
                for name in ("long", "short")
            },
        )
    raise UnsupportedModelError(
        f"not supported because llama.cpp's {loader.name} loader has no rotary scaling of the kind {kind!r}"
    )


def _windowed_base(rope: Mapping[str, Any]) -> float:
    """Return the base of blocks with an attention window, which llama.cpp runs without any scaling."""
    kind = rope.get("rope_type", "default")
    if kind != "default":
        raise UnsupportedModelError(
            f"not supported because llama.cpp has no rotary scaling for blocks with a window, and"
            f" theirs is {kind!r}"
        )
    return float(rope["rope_theta"])


def _yarn(rope: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    _check_yarn(rope)
    original = rope.get("original_max_position_embeddings") or settings["max_position_embeddings"]
    fields = {
        "rope.scaling.type": "yarn",
        "rope.scaling.factor": float(rope["factor"]),
        "rope.scaling.original_context_length": int(original),
    }
    names = {"beta_fast": "rope.scaling.yarn_beta_fast", "beta_slow": "rope.scaling.yarn_beta_slow"}
    return fields | {
        stored: float(rope[name]) for name, stored in names.items() if rope.get(name) is not None
    }


def _check_yarn(rope: Mapping[str, Any]) -> None:
    """Raise UnsupportedModelError for what llama.cpp sets by itself (arXiv:2309.00071)."""
    factor = float(rope["factor"])
    scale = rope.get("attention_factor")
    if scale is None and rope.get("mscale") and rope.get("mscale_all_dim"):
        scale = _magnitude(factor, rope["mscale"]) / _magnitude(factor, rope["mscale_all_dim"])
    fixed = _magnitude(factor)
    if scale is not None and not math.isclose(scale, fixed, rel_tol=1e-6):
        raise UnsupportedModelError(
            f"not supported because llama.cpp scales yarn's attention by {fixed:.4g}, and this model"
            f" by {scale:.4g}"
        )
    if not rope.get("truncate", True):
        raise UnsupportedModelError(
            "not supported because llama.cpp rounds the bounds of yarn's ramp, and this model does"
            " not (truncate)"
        )


def _magnitude(factor: float, weight: float = 1.0) -> float:
    return 0.1 * weight * math.log(factor) + 1 if factor > 1 else 1.0


def _longrope(rope: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    original = (
        settings.get("original_max_position_embeddings")
        or rope.get("original_max_position_embeddings")
        or settings["max_position_embeddings"]
    )
    scale = rope.get("factor") or settings["max_position_embeddings"] / original
    attention = rope.get("attention_factor") or (
        math.sqrt(1 + math.log(scale) / math.log(original)) if scale > 1 else 1.0
    )
    return {
        "rope.scaling.original_context_length": int(original),
        "rope.scaling.attn_factor": float(attention),
    }
