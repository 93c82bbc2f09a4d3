"""The section on quantization in the README.md of a quantized model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from secateur.core.card_front_matter import bare_card

_SAID = {
    "method": "Method",
    "sparsity": "Pruned at once to",
    "calibration": "Calibration text",
    "samples": "Windows",
    "window": "Tokens per window",
    "calibration_digest": "Digest of the text",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizationFacts:
    """Facts about a quantization.

    name: of the source model. said: how it was done, in words. grids: grid -> number of weights on it.
    bytes: of all weight files. difference: the largest between the reloaded folder and the run that wrote it,
    relative to the largest value. stock: transformers loads it without further code.
    """

    name: str
    said: Mapping[str, str]
    grids: Mapping[str, int]
    bits_per_weight: float
    bytes: int
    difference: float
    stock: bool


def quantized_card(card: str, facts: QuantizationFacts) -> str:
    """Return the model card of the source (empty if it has none) with a section on its quantization."""
    said = {
        **facts.said,
        "calibration": facts.said.get("calibration", "").replace("\\", "/").rpartition("/")[2],
    }
    remote = "" if facts.stock else " and the package secateur (or `trust_remote_code=True`)"
    lines = [
        (card or bare_card(f"{facts.name}, quantised")).rstrip(),
        "",
        "## How it was quantised",
        "",
        (
            "Its linears hold integers in the format `pack-quantized` of compressed-tensors; embeddings, head"
            " and norms stay as they are."
        ),
        (
            f"Transformers loads it with the package compressed-tensors{remote} installed; pass"
            " `dtype=torch.float32` for the exact weights."
        ),
        "",
        *(f"- Grid {grid}: {count:,} weights" for grid, count in facts.grids.items()),
        (
            f"- {facts.bits_per_weight:.2f} bits for each of them, scales included; {facts.bytes:,} bytes of"
            " weight files in all"
        ),
        *(f"- {name}: {said[key]}" for key, name in _SAID.items() if said.get(key)),
        "",
        (
            f"The folder was loaded again and run: it differs from what was meant by {facts.difference:.1e}"
            " of the largest value at most."
        ),
    ]
    return "\n".join(lines) + "\n"
