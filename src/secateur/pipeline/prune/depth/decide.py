"""Decide which blocks, or sub-blocks, a model can best do without."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from importlib.metadata import version

from torch import Tensor

from secateur.allocate.protect import layers_named, protected_halves
from secateur.calibrate.calibration import Calibration, calibration_tokens, text_of
from secateur.core.context import RunContext
from secateur.core.estimated_size import EstimatedSize
from secateur.core.execution import SEAM, Execution
from secateur.core.footprint import Footprint, footprint
from secateur.core.graph import Graph
from secateur.core.plan import Plan
from secateur.core.progress import Progress
from secateur.core.target import Target, refuse_if_met
from secateur.criteria.depth import DEPTH_CRITERIA, compared_by
from secateur.model.families import FAMILIES
from secateur.model.handle import ModelHandle
from secateur.model.views.merged import Merged
from secateur.pipeline.prune.depth.block_ablation import BlockAblation, Removal, passing
from secateur.pipeline.prune.depth.search import RemovalSearch, best_span, in_order, one_by_one
from secateur.pipeline.prune.kinds import pruning
from secateur.tensors.layer_stream import LiveBlock
from secateur.tensors.precision import arithmetic
from secateur.tensors.storage_dtype import storage_type
from secateur_runtime.errors import TargetError, UnreachableTargetError, UsageError, nearest

PROBE_TOKENS = 4096
"""Calibration tokens on which removals are compared."""
CRITERION = "influence"
REPAIRS = (SEAM, "none")


@dataclass(frozen=True, slots=True, kw_only=True)
class Depth:
    """How much depth goes: one of `drop_layers`, `ratio` and `target`.

    drop_layers: so many blocks' worth of parameters; ratio: that share of all block parameters.
    target: budgets, as `Target.parse` reads them, all of which must hold.
    sub_blocks: attention and FFN sub-blocks may go on their own.
    criterion: a name of `DEPTH_CRITERIA`; None for the default.
    repair: `seam` refits the linear before a gap to compensate for it, `none` does not; None for `seam` where
    that is possible.
    protect, layers: sub-blocks left alone and blocks that may go, as `protected_halves` and `layers_named`
    read them.
    dtype: in which type the model will be stored, for budgets in bytes.
    """

    drop_layers: int | None = None
    ratio: float | None = None
    target: str | None = None
    sub_blocks: bool = False
    criterion: str | None = None
    repair: str | None = None
    protect: Sequence[str] = ()
    layers: str | None = None
    dtype: str = "auto"

    @property
    def budgets(self) -> Target | None:
        """The target; raises TargetError for text that is none."""
        return None if self.target is None else Target.of(self.target)

    def check(self) -> None:
        """Raise UsageError for options that cannot work, or not together, with any model."""
        _ = self.budgets
        if sum(given is not None for given in (self.drop_layers, self.ratio, self.target)) != 1:
            raise UsageError(
                "say how much depth goes: one of --drop-layers 8, --ratio 0.25 and --target params=80%"
            )
        if self.ratio is not None and not 0 < self.ratio < 1:
            raise UsageError(f"--ratio {self.ratio} is outside (0, 1)")
        if self.drop_layers is not None and self.drop_layers < 1:
            raise UsageError(f"--drop-layers {self.drop_layers} drops nothing")
        if self.repair is not None and self.repair not in REPAIRS:
            raise UsageError(
                f"--method depth knows no repair {self.repair!r}{nearest(self.repair, REPAIRS)}; known:"
                f" {', '.join(REPAIRS)}"
            )
        if compared_by(self.criterion or CRITERION, halves=self.sub_blocks) == "last" and self.repair == SEAM:
            raise UsageError(
                "--criterion laco puts the blocks that go into those that stay: leave out --repair seam"
            )

    def repair_for(self, graph: Graph) -> str:
        """Return the repair; raises UsageError for one that the family cannot have."""
        able = len(FAMILIES[graph.family].ffn_norms) == 1
        if self.repair == SEAM and not able:
            raise UsageError(
                f"--repair seam needs sub-blocks that end in a linear, and {graph.family} has norms after"
                " them: use --repair none"
            )
        return self.repair or (
            SEAM if able and compared_by(self.criterion or CRITERION) != "last" else "none"
        )


def _shallower(goal: Depth, size: EstimatedSize, graph: Graph) -> EstimatedSize:
    """Return the size of a model made shallower by `goal`."""
    if goal.budgets:
        return replace(size, inside=min(size.left_inside(limit) for limit in goal.budgets.limits))
    share = goal.ratio if goal.ratio is not None else (goal.drop_layers or 0) / len(graph.blocks)
    return replace(size, inside=size.inside * (1 - share))


@pruning("depth", goal=Depth, estimate=_shallower, passes=8.0)
def decide_depth(model: ModelHandle, depth: Depth, calibration: Calibration, context: RunContext) -> Plan:
    """Decide which blocks or sub-blocks go, those of least cost first, until the budget is met.

    The first and the last block always stay. Raises UsageError for options that cannot work, TargetError
    naming the nearest target if the one asked for is out of reach, TextError if the calibration text is too
    short.
    """
    depth.check()
    goes = _Budget(model.graph, depth).goes()
    repair = depth.repair_for(model.graph)
    name = depth.criterion or CRITERION
    tokens = calibration_tokens(model, calibration, context.seed)
    text = text_of(calibration, tokens)
    with arithmetic("bfloat16"):
        removal = _search(model, name, goes, tokens, context.progress)
    said = {
        "target": (
            depth.target or (f"ratio={depth.ratio:g}" if depth.ratio else f"layers={depth.drop_layers}")
        ),
        "units": "sub-blocks" if depth.sub_blocks else "blocks",
        "depth_criterion": name,
        "repair": repair,
        "dtype": depth.dtype if depth.dtype != "auto" else "",
        "protect": ",".join(depth.protect),
        "layers": depth.layers or "",
        "seed": str(context.seed),
        "secateur": version("secateur"),
    }
    return Plan(
        model=model.digest,
        drop=removal.drop,
        merge=removal.merge,
        execution=Execution(gap_repair=repair, calibration=text, seed=context.seed, dtype=depth.dtype),
        made_by={key: value for key, value in said.items() if value} | text.facts,
    )


def _search(
    model: ModelHandle, name: str, goes: RemovalSearch, tokens: Tensor, progress: Progress
) -> Removal:
    criterion = DEPTH_CRITERIA[name].function
    compares = compared_by(name)
    blocks = model.graph.blocks
    windows = tokens[: max(1, PROBE_TOKENS // tokens.shape[1])]
    if compares == "block":
        return in_order(goes, criterion, *passing(model.stream(), windows, last=False))
    if compares == "span":
        return best_span(goes, criterion, *passing(model.stream(), tokens, last=True))
    if compares == "last":
        stream = model.stream()

        def merged(index: int, taken: tuple[str, ...]) -> AbstractContextManager[LiveBlock]:
            return stream.open_from(Merged(model.source, model.graph, {str(index): taken}), index)

        ablation = BlockAblation(stream, blocks, windows, criterion, merged=merged, last=True)
        return one_by_one(goes, ablation, progress, merging=True)
    return one_by_one(goes, BlockAblation(model.stream(), blocks, windows, criterion), progress)


class _Budget:
    """What may go, and when enough is removed."""

    def __init__(self, graph: Graph, depth: Depth) -> None:
        self._graph = graph
        self._depth = depth
        self._bytes_each = storage_type(depth.dtype, graph.tensors).itemsize
        self._target = (
            Target.of(depth.target or f"ratio={depth.ratio:.9f}") if depth.drop_layers is None else None
        )
        self._whole = self._size(())
        self._context = (
            max((limit.context for limit in self._target.limits), default=0) if self._target else 0
        )

    def goes(self) -> RemovalSearch:
        """Return the candidates.

        Raises UsageError if nothing has to go or may go, TargetError if not enough can.
        """
        prices = {name: price for name in self._names() if (price := self._price(name)) > 0}
        if not prices:
            raise UsageError(
                "--protect and --layers leave nothing to drop: the first and the last block always stay"
            )
        if self._target is not None:
            refuse_if_met(self._target, self._whole, verb="drop")
        if not self._enough(tuple(prices)):
            raise self._unreachable(tuple(prices))
        return RemovalSearch(prices, self._enough)

    def _names(self) -> list[str]:
        """Return what may go: neither the first block nor the last.

        The first makes the states that all others change; the head reads what the last one makes.
        """
        depth = self._depth
        graph = self._graph
        named = layers_named(graph, depth.layers) if depth.layers else range(len(graph.blocks))
        spared = protected_halves(graph, depth.protect)
        inner = [block for block in graph.blocks[1:-1] if block.index in named]
        if depth.sub_blocks:
            return [
                name
                for block in inner
                for part in ("attn", "ffn")
                if (name := f"{block.index}.{part}") not in spared
            ]
        return [
            str(block.index) for block in inner if not {f"{block.index}.attn", f"{block.index}.ffn"} & spared
        ]

    def _size(self, drop: Sequence[str]) -> Footprint:
        return footprint(self._graph, {}, drop, self._bytes_each)

    def _price(self, name: str) -> int:
        """Return the bytes that go with a block or a sub-block.

        Its weights and, where a budget counts them, its share of the cache.
        """
        left = self._size((name,))
        return (
            self._whole.weight_bytes
            - left.weight_bytes
            + (self._whole.kv_values - left.kv_values) * 2 * self._context
        )

    def _enough(self, drop: Sequence[str]) -> bool:
        left = self._size(drop)
        if self._target is not None:
            return self._target.met(left, self._whole)
        wanted = self._depth.drop_layers or 0
        if not self._depth.sub_blocks:
            return len(drop) >= wanted
        return (self._whole.block_parameters - left.block_parameters) * len(
            self._graph.blocks
        ) >= wanted * self._whole.block_parameters

    def _unreachable(self, most: tuple[str, ...]) -> UsageError | TargetError:
        if self._target is None:
            count = next(index for index in range(len(self._graph.blocks), -1, -1) if self._fits(index, most))
            return UsageError(
                f"--drop-layers {self._depth.drop_layers}: that much cannot go, at most {count} blocks' worth"
                " (the first and the last always stay)"
            )
        near = self._target.nearest(self._size(most), self._whole)
        return UnreachableTargetError(
            f"{self._target} is out of reach with these --protect, --layers and --sub-blocks: the nearest is"
            f" {near}"
        )

    def _fits(self, count: int, most: tuple[str, ...]) -> bool:
        if not self._depth.sub_blocks:
            return len(most) >= count
        removed = self._whole.block_parameters - self._size(most).block_parameters
        return removed * len(self._graph.blocks) >= count * self._whole.block_parameters
