"""Decide which blocks, or halves of blocks, a model can best do without."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version

from torch import Tensor
from torch.nn.functional import cross_entropy

from secateur.core.errors import UsageError
from secateur.core.plan import Plan
from secateur.core.progress import Progress
from secateur.model.arithmetic import arithmetic
from secateur.model.opened import Opened
from secateur.pipeline.calibration import Calibration, calibration_tokens, provenance

PROBE_WINDOWS = 8
RECHECKED = 8
"""Candidates measured anew at each step; the others keep their last known loss."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Depth:
    """How much depth goes.

    layers: so many blocks' worth of parameters; or ratio: that share of all block parameters.
    sub_blocks: attention and FFN halves may go on their own.
    """

    layers: int | None = None
    ratio: float | None = None
    sub_blocks: bool = False


def decide_depth(model: Opened, depth: Depth, calibration: Calibration, seed: int, progress: Progress) -> Plan:
    """Return the plan that drops blocks one after another, each time the one whose loss costs least per parameter.

    The first and the last block always stay. Raises UsageError if so much cannot go. The greedy search with measurement
    after every removal is that of BlockPruner (arXiv:2406.10594).
    """
    if (depth.layers is None) == (depth.ratio is None):
        raise UsageError("say how much depth goes: either --drop-layers 8 or --ratio 0.25")
    tokens = calibration_tokens(model, calibration, seed)
    search = _Search(model, tokens[:PROBE_WINDOWS], depth.sub_blocks, progress)
    blocks = depth.layers if depth.layers is not None else (depth.ratio or 0.0) * len(model.graph.blocks)
    with arithmetic("bfloat16"):
        dropped = search.run(round(blocks * search.whole))
    made_by = {"target": f"layers={blocks:g}", "units": "sub-blocks" if depth.sub_blocks else "blocks", "criterion": "", "repair": "none"}
    made_by |= {"scope": "row", "seed": str(seed), "secateur": version("secateur"), **provenance(calibration, tokens)}
    return Plan(model=model.digest, drop=tuple(dropped), made_by=made_by)


class _Search:
    """Greedy removal with the states before every block kept, so that a candidate costs only the blocks after it."""

    def __init__(self, model: Opened, tokens: Tensor, sub_blocks: bool, progress: Progress) -> None:
        self._stream = model.stream()
        self._tokens, self._progress = tokens, progress
        (embedded,) = self._stream.embed([tokens])
        self._before: list[Tensor] = [embedded]
        self._gone: list[str] = []
        blocks = model.graph.blocks
        halves = {(block.index, part): sum(model.graph.tensors[name].numel for name in block.halves[part]) for block in blocks for part in ("attn", "ffn")}
        self.whole = halves[0, "attn"] + halves[0, "ffn"]
        inner = range(1, len(blocks) - 1)
        if sub_blocks:
            self._prices = {f"{index}.{part}": halves[index, part] for index in inner for part in ("attn", "ffn")}
        else:
            self._prices = {str(index): halves[index, "attn"] + halves[index, "ffn"] for index in inner}

    def run(self, budget: int) -> list[str]:
        """Return what to drop so that at least `budget` parameters go."""
        if not 0 < budget <= sum(self._prices.values()):
            raise UsageError(f"that much cannot go: at most {sum(self._prices.values()):,} parameters lie between the first and the last block")
        self._progress.start("search depth", budget)
        base = self._advance_from(0)
        losses: dict[str, float] = {}
        removed = 0
        while removed < budget:
            best = self._cheapest(losses, base)
            base = losses.pop(best)
            self._gone.append(best)
            removed += self._prices.pop(best)
            self._advance_from(int(best.partition(".")[0]))
            self._progress.note(f"drop {best}: loss {base:.4f}")
        return self._gone

    def _cheapest(self, losses: dict[str, float], base: float) -> str:
        """Measure candidates (all at first, then the most promising) and return the cheapest per parameter."""

        def cost(name: str) -> float:
            return (losses[name] - base) / self._prices[name]

        first = not losses
        fresh: set[str] = set()
        for name in list(self._prices) if first else sorted(losses, key=cost)[:RECHECKED]:
            losses[name] = self._loss([*self._gone, name], int(name.partition(".")[0]))
            fresh.add(name)
        return min(fresh, key=cost)

    def _advance_from(self, index: int) -> float:
        """Recompute the kept states after block `index`; return the loss."""
        del self._before[index + 1 :]
        states = self._before[index]
        for later in range(index, len(self._stream)):
            states = self._run(later, states, self._gone)
            self._before.append(states)
        return self._nll(states)

    def _loss(self, gone: list[str], index: int) -> float:
        states = self._before[index]
        for later in range(index, len(self._stream)):
            states = self._run(later, states, gone)
        return self._nll(states)

    def _run(self, index: int, states: Tensor, gone: list[str]) -> Tensor:
        parts = [part for part in ("attn", "ffn") if str(index) in gone or f"{index}.{part}" in gone]
        if len(parts) == 2:
            return states
        with self._stream.open(index) as live:
            if parts:
                with live.without(parts[0]):
                    return live(states)
            return live(states)

    def _nll(self, states: Tensor) -> float:
        total, start = 0.0, 0
        targets = self._tokens[:, 1:].flatten()
        for logits in self._stream.logits(states[:, :-1].flatten(0, 1)):
            total += float(cross_entropy(logits, targets[start : start + len(logits)], reduction="sum"))
            start += len(logits)
        return total / len(targets)
