"""How far models are from their teacher on held-out text."""

from __future__ import annotations

from torch import Tensor

from secateur.core.progress import Progress
from secateur.measure.perplexity import Quality, compare, final_states
from secateur.tensors.layer_stream import LayerStream


class HeldOutQuality:
    """The teacher's predictions on held-out windows, made once, and the quality of other models against them.

    windows: ids `[n, length]`.
    """

    def __init__(self, teacher: LayerStream, windows: Tensor, progress: Progress) -> None:
        progress.start("evaluate the teacher", len(teacher))
        self._teacher = teacher
        self._windows = windows
        self._progress = progress
        self._states = final_states(teacher, windows, progress)

    def __call__(self, model: LayerStream) -> Quality:
        """Return the quality of a model with the teacher's vocabulary, divergence and agreement included."""
        self._progress.start("evaluate", len(model))
        states = final_states(model, self._windows, self._progress)
        return compare(model.logits(states), self._windows, self._teacher.logits(self._states))
