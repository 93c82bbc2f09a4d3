"""Train nothing but the biases of a model."""

from __future__ import annotations

from typing import Any

from secateur.train.learner import Learner, named_weights
from secateur_runtime.errors import UsageError


def biases(model: Any, names: Any) -> Learner:
    """Return a learner of the biases among `names` of a transformers model (BitFit, arXiv:2106.10199).

    Raises UsageError if there is none.
    """
    own = {name: None for name in names if name.endswith(".bias")}
    if not own:
        raise UsageError(
            "--method bias: the config of this family holds no biases: use --method lora or distill"
        )
    return named_weights(model, {}, own)
