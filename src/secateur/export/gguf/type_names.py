"""Names of the types that a GGUF file stores weights in, and their bits; imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping

BITS: Mapping[str, float] = {
    "f32": 32.0,
    "f16": 16.0,
    "bf16": 16.0,
    "q8_0": 8.5,
    "q4_0": 4.5,
    "q4_1": 5.0,
    "q5_0": 5.5,
    "q5_1": 6.0,
}
"""Bits of a weight in each type, scales included."""
PACKED = "packed"
"""Option for a quantized model: every weight in the type that holds its grid."""
PLAIN = ("f32", "f16", "bf16")
K_QUANTS = ("q2_k", "q3_k_s", "q3_k_m", "q3_k_l", "q4_k_s", "q4_k_m", "q5_k_s", "q5_k_m", "q6_k")
"""Types that a program of llama.cpp makes out of 16-bit floats."""
