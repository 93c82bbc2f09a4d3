"""Measure the predictions without some units, which are zeroed in memory, one streamed block at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor
from torch.nn.functional import cosine_similarity, log_softmax

from secateur.allocate.units import MeasuredUnits
from secateur.core.progress import Progress
from secateur.pipeline.prune.compared_positions import FEW_POSITIONS, spread_positions, variants_at_once
from secateur.pipeline.prune.width.unit_ranking import Ranked
from secateur.tensors.layer_stream import LayerStream, LiveBlock, alone, sub_blocks
from secateur.tensors.precision import arithmetic

TOKENS = 2048
"""Tokens of the windows that are read; one window at least."""
_SHARE = 0.25


class UnitAblation:
    """The dense model's predictions on a few windows, and how far they move when units leave.

    Each call takes one pass over the blocks.

    tokens: ids `[windows, tokens]`, of which the first `TOKENS` are read.
    """

    def __init__(self, stream: LayerStream, ranked: Mapping[str, Ranked], tokens: Tensor) -> None:
        self._stream = stream
        self._ranked = ranked
        (self._embedded,) = stream.embed([tokens[: max(1, TOKENS // tokens.shape[1])]])
        count = self._embedded.shape[0] * self._embedded.shape[1]
        self._places = spread_positions(count, FEW_POSITIONS)
        states, self.influence = self._run({})
        # Half precision keeps the large probabilities, which weigh most, to three figures.
        self._dense = [log_softmax(logits, -1).half() for logits in stream.logits(states)]

    def __call__(self, cuts: Mapping[str, int]) -> MeasuredUnits:
        """Return the divergence without so many steps of each group, and the influence of what remains."""
        states, influence = self._run(cuts)
        return MeasuredUnits(self._divergence(states), influence)

    def sensitivity(self, progress: Progress) -> dict[str, float]:
        """Return, for each group, the divergence per unit of output error.

        A quarter of its units leave, and nothing compensates for them.
        """
        names = sorted(self._ranked, key=lambda name: int(name.partition(".")[0]))
        together = variants_at_once(self._embedded.nbytes)
        progress.start("measure sensitivity", -(-len(names) // together) * len(self._stream))
        found: dict[str, float] = {}
        for start in range(0, len(names), together):
            found |= self._felt(names[start : start + together], progress)
        return found

    def _felt(self, names: Sequence[str], progress: Progress) -> dict[str, float]:
        """Measure the sensitivity of some groups, each cut alone, in one pass over the blocks."""
        cuts = {name: max(1, round(len(self._ranked[name].steps) * _SHARE)) for name in names}
        dense = self._embedded
        cut = dict[str, Tensor]()
        with arithmetic("bfloat16"):
            for index in range(len(self._stream)):
                with self._stream.open(index) as live:
                    cut = {name: live(states) for name, states in cut.items()}
                    for group in (group for group in live.block.groups if group.name in cuts):
                        weight = live.weight(group.slices[-1].tensor)
                        whole = weight.clone()
                        silence(live, self._ranked, {group.name: cuts[group.name]})
                        cut[group.name] = live(dense)
                        weight.copy_(whole)
                    dense = live(dense)
                progress.step(f"block {index}")
            return {
                name: (
                    self._divergence(self._compared(cut[name])) / error
                    if (error := self._error(name, cuts[name])) > 0
                    else 0.0
                )
                for name in names
            }

    def _error(self, name: str, cut: int) -> float:
        curve = self._ranked[name].curve
        return (curve.unanswered or curve.errors)[cut]

    def _divergence(self, states: Tensor) -> float:
        total = 0.0
        for logits, dense in zip(self._stream.logits(states), self._dense, strict=True):
            meant = dense.float()
            total += float((meant.exp() * (meant - log_softmax(logits, -1))).sum())
        return max(total / len(self._places), 0.0)

    def _run(self, cuts: Mapping[str, int]) -> tuple[Tensor, dict[str, float]]:
        """Return the last states at the positions compared, and the influence of each group's sub-block.

        The states are `[positions, hidden_size]`; influence is how far it turns its input.
        """
        states = self._embedded
        influence = dict[str, float]()
        with arithmetic("bfloat16"):
            for index in range(len(self._stream)):
                with self._stream.open(index) as live:
                    silence(live, self._ranked, cuts)
                    states, turned = _run_sub_blocks(live, states)
                influence |= {
                    group.name: turned[group.half]
                    for group in live.block.groups
                    if group.name in self._ranked
                }
        return self._compared(states), influence

    def _compared(self, states: Tensor) -> Tensor:
        return states.flatten(0, 1)[self._places]


def _run_sub_blocks(live: LiveBlock, states: Tensor) -> tuple[Tensor, dict[str, float]]:
    """Return a block's output, and how far each sub-block turns its input: 1 - cosine similarity."""
    turned: dict[str, float] = {}
    for part, _ in sub_blocks(live.block):
        with alone(live, part):
            after = live(states)
        turned[part] = 1 - float(cosine_similarity(states, after, dim=-1).mean())
        states = after
    return states, turned


def silence(live: LiveBlock, ranked: Mapping[str, Ranked], cuts: Mapping[str, int]) -> None:
    """Zero the inputs of each sub-block's last linear that belong to units removed after so many steps."""
    for group in live.block.groups:
        removed = ranked.get(group.name)
        output = group.slices[-1]
        for step in removed.steps[: cuts.get(group.name, 0)] if removed else ():
            for unit in step:
                live.weight(output.tensor)[:, unit * output.block : (unit + 1) * output.block] = 0
