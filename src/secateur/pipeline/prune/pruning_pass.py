"""Remove from each block what a plan removes, repair what stays, and write it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor

from secateur.calibrate.input_statistics import HiddenStates, collect
from secateur.core.footprint import dropped_halves
from secateur.core.graph import Block, Group
from secateur.core.pattern import Pattern
from secateur.core.plan import Plan
from secateur.core.process_memory import give_back
from secateur.model.written.block_writer import BlockWriter
from secateur.model.written.folder_writer import FolderWriter
from secateur.pipeline.prune.depth.gap_repair import close_gap, gaps
from secateur.pipeline.prune.prepared_model import PreparedModel
from secateur.pipeline.prune.weights.methods import WeightMethod
from secateur.pipeline.prune.width.unit_removal import carve, inputs_kept
from secateur.tensors.layer_stream import LiveBlock, alone, sub_blocks, without
from secateur.tensors.precision import arithmetic
from secateur.transform.surgery import cut, uncut
from secateur.transform.unit_repair import UNIT_REPAIRS


class PruningPass(BlockWriter):
    """One pass over the blocks of a prepared model.

    method: how weights are pruned one by one.
    tokens: ids `[windows, tokens]` whose states the pass carries from block to block, in `hidden`.
    memory: bytes of those states held in memory.
    zeros, weights: of the tensors that the plan prunes weight by weight.
    """

    def __init__(
        self,
        model: PreparedModel,
        plan: Plan,
        method: WeightMethod,
        writer: FolderWriter,
        tokens: Tensor,
        memory: int,
    ) -> None:
        super().__init__(writer, model.stream())
        self.zeros = self.weights = 0
        self._model = model
        self._plan = plan
        self._method = method
        self._patterns = {name: Pattern.parse(text) for name, text in plan.sparsity.items()}
        self._repair = UNIT_REPAIRS[plan.execution.unit_repair]
        self._gaps = gaps(model.graph, plan.drop) if plan.execution.closes_gaps else {}
        graph = model.graph
        outside = {name: model.stored(name) for name in graph.outside}
        self.write_outside(cut(outside, [graph.hidden, graph.vocab], plan.keep))
        del outside
        self.hidden = HiddenStates(self.stream, tokens, budget=memory, folder=writer.folder)

    @contextmanager
    def opened(self, index: int) -> Iterator[LiveBlock]:
        """Load block `index` without the sub-blocks that the plan drops."""
        with self.stream.open(index) as live, without(live, dropped_halves(live.block, self._plan.drop)):
            yield live

    def made(self, live: LiveBlock, place: int) -> dict[str, Tensor]:
        """Prune a block and return its tensors as they are stored: cut, rounded, numbered by their new place.

        Attention is pruned and run, then the FFN on its output: each sub-block runs once.
        """
        for part, tensors in sub_blocks(live.block, dropped_halves(live.block, self._plan.drop)):
            with alone(live, part):
                carve(live, self.hidden, tensors, self._plan.keep, self._repair, self._plan.execution.seed)
                if gap := self._gaps.get((live.block.index, part)):
                    whole = self._model.stream()
                    close_gap(live, part, self.hidden, whole, gap, inputs_kept(live, self._plan.keep))
                self._sparsify(live, tensors)
                for name in tensors - self._model.folds:
                    live.weight(name).copy_(live.weight(name).to(self._model.dtype))
                self.hidden.advance(live)
        self._count(live)
        return self._stored(live, place)

    def restored(self, live: LiveBlock, place: int, tensors: Mapping[str, Tensor]) -> None:
        """Put what is stored into a block, and run the states through it."""
        block = live.block
        # What is rescaled is never pruned weight by weight, and is in its place already.
        names = {
            _renamed(name, block, place): name
            for name in _present(block, self._plan)
            if name not in self._model.folds
        }
        stored = {names[name]: tensor for name, tensor in tensors.items() if name in names}
        shapes = {name: self._model.graph.tensors[name].shape for name in stored}
        for name, tensor in uncut(stored, shapes, self._groups(block), self._plan.keep).items():
            live.weight(name).copy_(tensor)
        self._count(live)
        self.hidden.advance(live)

    def _sparsify(self, live: LiveBlock, tensors: frozenset[str]) -> None:
        """Prune weight by weight, stage by stage.

        Each linear sees the inputs that the pruned linears before it make.
        """
        for stage in live.block.stages:
            linears = [
                linear for linear in stage if linear.tensor in self._patterns and linear.tensor in tensors
            ]
            if not linears:
                continue
            stats = collect(live, linears, self.hidden, self._method.needs, self._plan.execution.seed)
            give_back()
            # Bfloat16 products are good enough for activations; a solver would keep their error in the
            # weights.
            with arithmetic("float32"):
                for linear in linears:
                    weight = live.weight(linear.tensor)
                    pattern = self._patterns[linear.tensor]
                    weight.copy_(
                        self._method.solver(
                            weight, stats[linear.tensor], pattern, self._method.scorer, self._method.scope
                        )
                    )

    def _stored(self, live: LiveBlock, place: int) -> dict[str, Tensor]:
        block = live.block
        model = self._model
        whole = {
            name: model.stored(name) if name in model.folds else live.weight(name).to(model.dtype)
            for name in _present(block, self._plan)
        }
        return {
            _renamed(name, block, place): tensor
            for name, tensor in cut(whole, self._groups(block), self._plan.keep).items()
        }

    def _groups(self, block: Block) -> list[Group]:
        """Return the groups that cut the tensors which a block keeps."""
        removed = dropped_halves(block, self._plan.drop)
        return [*(group for group in block.groups if group.half not in removed), self._model.graph.hidden]

    def _count(self, live: LiveBlock) -> None:
        for name in _present(live.block, self._plan):
            if name in self._patterns:
                weight = live.weight(name)
                self.weights += weight.numel()
                self.zeros += int((weight == 0).sum())


def _present(block: Block, plan: Plan) -> list[str]:
    """Return the tensors of a block that are not in a dropped sub-block."""
    removed = {name for part in dropped_halves(block, plan.drop) for name in block.halves[part]}
    return [name for name in block.tensors if name not in removed]


def _renamed(name: str, block: Block, place: int) -> str:
    return block.prefix.replace(f".{block.index}.", f".{place}.") + name.removeprefix(block.prefix)
