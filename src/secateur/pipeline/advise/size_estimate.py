"""Estimate the size and memory of a model on a device before it is pruned and quantized."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from secateur.core.footprint import Footprint, footprint, kept_counts
from secateur.device.decode_model import TokenWork
from secateur.device.profile import OUTPUT, Profile
from secateur.model.families import EMBED, HEAD
from secateur.model.handle import ModelHandle
from secateur.pipeline.export.formats import AdvisedFormat

_BATCH = 512
_RUNTIME = {"cpu": 60_000_000, "gpu": 500_000_000, "mcu": 0}
"""Bytes of a process with next to no model where it was not measured: llama.cpp here, a CUDA context, bare
metal.
"""
_COPIED = ("q4_0",)
"""Types that llama.cpp repacks on CPUs, so that their block weights are held twice."""


@dataclass(frozen=True, slots=True)
class Reduction:
    """One way to make a model smaller.

    kind, share: as `device.quality_model.factor` takes them. keep, drop: as in a plan.
    """

    kind: str
    share: float
    keep: Mapping[str, Sequence[int]]
    drop: tuple[str, ...]

    @property
    def label(self) -> str:
        """The reduction in words."""
        words = {
            "dense": "nothing",
            "width": f"width: FFN -{self.share:.0%}",
            "depth": f"depth: {len(self.drop)} blocks",
        }
        return words[self.kind]


@dataclass(frozen=True, slots=True)
class Taken:
    """What one reduction takes in one type.

    file, memory: bytes, the latter at the context asked for. work: what a token reads.
    """

    file: int
    memory: int
    work: TokenWork
    footprint: Footprint


class Sizes:
    """Estimates what reductions of `model` take on a device at a context of `context` tokens.

    form: the format that the model is stored in.
    """

    def __init__(self, model: ModelHandle, profile: Profile, context: int, form: AdvisedFormat) -> None:
        self._model = model
        self._profile = profile
        self._context = context
        self._format = form

    def cuts(self, widths: Sequence[float], depths: Sequence[float], align: int) -> list[Reduction]:
        """Return the whole model and its reductions.

        widths: shares of every FFN to remove. depths: shares of the blocks. align: multiple that widths keep.
        """
        graph = self._model.graph
        found = [Reduction("dense", 0.0, {}, ())]
        groups = [group for group in graph.groups.values() if group.kind == "ffn"]
        for share in widths:
            keep = {
                group.name: range(max(align, round(group.size * (1 - share) / align) * align))
                for group in groups
            }
            if all(len(keep[group.name]) < group.size for group in groups):
                found.append(Reduction("width", share, keep, ()))
        inner = [block.index for block in graph.blocks[1:-1]]
        counts = sorted({round(share * len(graph.blocks)) for share in depths})
        found += [
            Reduction("depth", count / len(graph.blocks), {}, tuple(map(str, inner[-count:])))
            for count in counts
            if 0 < count <= len(inner)
        ]
        return found

    def holds(self, stored: str) -> bool:
        """Whether rows of the model's matrices fill the blocks of a type."""
        return all(self._format.holds(info.shape, stored) for info in self._model.graph.tensors.values())

    def taken(self, cut: Reduction, stored: str) -> Taken:
        """Return what a reduction takes with weights of the type `stored`."""
        graph = self._model.graph
        left = footprint(graph, cut.keep, cut.drop, 1)
        counts = kept_counts(graph, cut.keep, cut.drop)
        head = EMBED if graph.tied else HEAD
        sizes = {
            name: self._format.nbytes(graph.tensors[name].shape, count, stored, name == head)
            for name, count in counts.items()
        }
        alive = [block for block in graph.blocks if any(name in counts for name in block.tensors)]
        blocks = sum(sizes[name] for block in alive for name in block.tensors if name in sizes)
        file = sum(sizes.values()) + self._overhead
        cache = left.kv_bytes_per_token() * self._context
        work = TokenWork(
            {stored: float(blocks), OUTPUT: float(sizes[head])}, len(alive), graph.vocab_size, float(cache)
        )
        memory = self._memory(cache, blocks, file, stored)
        return Taken(file, memory, work, left)

    @cached_property
    def _overhead(self) -> int:
        """Bytes of the tokenizer and the settings in the file."""
        return self._format.overhead(self._model)

    def _memory(self, cache: int, blocks: int, file: int, stored: str) -> int:
        graph = self._model.graph
        profile = self._profile
        inner = max((block.shape.intermediate_size for block in graph.blocks), default=0)
        states = 4 * (2 * inner + 4 * graph.hidden_size)
        if profile.processor == "mcu":
            return cache + states + 4 * graph.vocab_size
        base = profile.rates.base if profile.rates else _RUNTIME[profile.processor]
        copied = profile.rates.copied if profile.rates else _COPIED if profile.processor == "cpu" else ()
        return (
            file
            + cache
            + int(base)
            + min(_BATCH, self._context) * states
            + (blocks if stored in copied else 0)
        )
