"""How far models are from their teacher on held-out text."""

from __future__ import annotations

from torch import Tensor

from secateur.core.progress import Progress
from secateur.measure.perplexity import Quality, compare, final_states
from secateur.tensors.layer_stream import LayerStream


class HeldOutQuality:
    """The teacher's predictions on `windows` `[n, length]`, made once, and the quality of others beside them."""

    def __init__(self, teacher: LayerStream, windows: Tensor, progress: Progress) -> None:
        progress.start("judge the teacher", len(teacher))
        self._teacher = teacher
        self._windows = windows
        self._progress = progress
        self._states = final_states(teacher, windows, progress)

    def __call__(self, model: LayerStream) -> Quality:
        """Return likelihood, divergence from the teacher and agreement with it of another model with its vocabulary."""
        self._progress.start("judge", len(model))
        states = final_states(model, self._windows, self._progress)
        return compare(model.logits(states), self._windows, self._teacher.logits(self._states))
