"""How a weight becomes integers: rounded as it is, or pruned and rounded at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from secateur.core.execution import CalibrationText
from secateur.core.pattern import Pattern
from secateur.core.plan import Plan
from secateur.pipeline.prune.weights.methods import WeightMethod, method_named
from secateur.quantizers import QUANTIZERS, JointQuantizer, Quantizer, joint_quantizers
from secateur.tensors.stats import LinearStats
from secateur_runtime.errors import UsageError
from secateur_runtime.kernels.quantized import Codes, Grid
from secateur_runtime.registry import Entry


@dataclass(frozen=True, slots=True)
class Rounding:
    """A quantizer, and the pattern and the method that choose zeros beforehand, where there are any."""

    quantizer: Entry[Quantizer]
    pruning: tuple[Pattern, WeightMethod] | None

    @property
    def needs(self) -> frozenset[str]:
        """Which statistics of `LinearStats` it reads."""
        return self.quantizer.needs | (self.pruning[1].needs if self.pruning else frozenset())

    def __call__(self, weights: Sequence[Tensor], stats: LinearStats, grid: Grid) -> list[Codes]:
        """Return the quantized values of weights that read the same input; the weights stay as they were.

        weights: float32 `[out_features, in_features]`. Rows are independent, so all are rounded at once: one
        factorization, and longer vectors.
        """
        whole = torch.cat(list(weights))
        if self.pruning is None:
            codes = self.quantizer.function(whole, stats, grid)
        else:
            pattern, method = self.pruning
            joint: JointQuantizer = self.quantizer.trait
            codes = joint(
                whole,
                stats,
                grid,
                torch.cat(
                    [method.solver(weight, stats, pattern, method.scorer, method.scope) for weight in weights]
                ),
            )
        return codes.split([len(weight) for weight in weights])

    def plan(
        self, digest: str, tensors: Iterable[str], text: CalibrationText | None, seed: int
    ) -> Plan | None:
        """Return the plan of the zeros that are made on the way; None where none are.

        digest: of the model. tensors: those that are quantized. text, seed: what the run read.
        """
        if self.pruning is None:
            return None
        pattern, method = self.pruning
        return Plan(
            model=digest,
            sparsity=dict.fromkeys(tensors, str(pattern)),
            execution=method.execution(rotation="", calibration=text, seed=seed),
            made_by={
                "target": str(pattern),
                **method.as_strings(),
                "seed": str(seed),
                **(text.facts if text else {}),
            },
        )


def rounding_named(method: str, sparsity: str, prune: str) -> Rounding:
    """Return the rounding of these names; raises UsageError for what is unknown or cannot work together."""
    entry = QUANTIZERS[method]
    if not sparsity:
        return Rounding(entry, None)
    able = joint_quantizers()
    if method not in able:
        raise UsageError(
            f"--sparsity prunes and rounds at once, which only --method {' or '.join(able)} can: prune first,"
            f" then quantize with {entry.name}"
        )
    return Rounding(entry, (Pattern.parse(sparsity), method_named(prune)))
