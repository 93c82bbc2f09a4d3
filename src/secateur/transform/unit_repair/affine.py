"""SlimLLM's regression: each output is scaled and shifted towards what it was."""

from __future__ import annotations

import torch

from secateur.transform.unit_repair import CutLinear, Repaired, unit_repair
from secateur_runtime.errors import SecateurError

_STILL = 1e-6
"""Share of an output's mean square below which its variance is rounding of the statistics."""


@unit_repair("affine", bias="may", needs={"gram", "input_mean"}, paper="arXiv:2505.22689")
def affine(cut: CutLinear) -> Repaired:
    """Fit scale and bias of every output by least squares from what remains of it to what it was.

    Where the linear can hold no bias, the scale alone is fitted, by least squares through the origin. An
    output that does not vary is only shifted. Raises SecateurError without the Gram matrix. Guo et al., 2025.
    """
    if cut.stats.gram is None:
        raise SecateurError("this repair needs the Gram matrix of the inputs, which was not collected")
    whole = cut.weight.double()
    left = cut.bare().double()
    mean = cut.stats.input_mean.double()
    image = left @ cut.stats.gram.double()
    power = (image * left).sum(1)
    along = (image * whole).sum(1)
    mean_left = left @ mean
    mean_whole = whole @ mean
    spread = power - mean_left.square() if cut.biased else power
    shared = along - mean_left * mean_whole if cut.biased else along
    scale = torch.where(spread > _STILL * power, shared / spread, 1.0)
    shift = (mean_whole - scale * mean_left).float() if cut.biased else None
    return Repaired((left * scale[:, None]).float(), shift)
