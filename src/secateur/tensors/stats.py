"""Running moments of the inputs of one linear."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(slots=True)
class LinearStats:
    """Moments over calibration tokens of the input `x` (`[tokens, in_features]`) of a linear.

    input_sq: mean of x², `[in_features]`, float32.
    input_mean: mean of x, `[in_features]`, float32.
    gram: mean of x xᵀ, `[in_features, in_features]`, float32 (`None` unless asked for).
    cross: mean of y_dense xᵀ, `[out_features, in_features]`, float32: an error-correcting solver takes the
    outputs of the dense model as targets and the inputs of the pruned model (`None` unless asked for).
    input_abs: root mean square over windows of a window's mean |x|, `[in_features]`, float32 (`None` unless
    asked for).
    tokens: number of tokens seen.
    seed: what a random choice depends on.
    """

    tokens: int
    input_sq: Tensor
    input_mean: Tensor
    gram: Tensor | None = None
    cross: Tensor | None = None
    seed: int = 0
    input_abs: Tensor | None = None
