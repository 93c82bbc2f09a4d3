"""Write a model of which weights changed but no shapes, shard by shard."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from safetensors.torch import load_file
from torch import Tensor

from secateur.core.plan import Plan
from secateur.model.formats.compressed_tensors import PackedSource, packed_tensors, quantization_config
from secateur.model.formats.open_source import read_as
from secateur.model.formats.quantized_source import CONFIG_KEY
from secateur.model.handle import ModelHandle
from secateur.model.written.checkpoint import Checkpoint
from secateur.model.written.folder_writer import FolderWriter
from secateur_runtime.kernels.quantized import Codes


class Rewrite:
    """The folder of a model like `student`.

    What lies outside the blocks is shard 0; then comes a shard for each block.
    Quantized weights keep their quantized values: only their scales change.
    """

    def __init__(self, student: ModelHandle, checkpoint: Checkpoint, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.folder = checkpoint.partial
        self.writer = FolderWriter(checkpoint, student, dtype)
        self._student = student
        self._checkpoint = checkpoint
        self._reverting = self.folder / "model-reverting.tmp"
        self.resumed = max(self.finished - 1, 0)

    @property
    def reverting(self) -> bool:
        """Whether a run that was killed had begun to put the student's own weights back."""
        return self._reverting.exists()

    @property
    def finished(self) -> int:
        """How many shards are there already."""
        return self._checkpoint.finished()

    def names(self, shard: int) -> tuple[str, ...]:
        """Return the tensors of a shard."""
        return self._student.graph.blocks[shard - 1].tensors if shard else self._student.graph.outside

    def write(self, shard: int, changed: Mapping[str, Tensor]) -> None:
        """Write a shard: the tensors in `changed`, and the student's own for all others.

        changed: by name; of a quantized weight it holds the scales.
        """
        self._checkpoint.write(
            shard,
            {
                part: tensor
                for name in self.names(shard)
                for part, tensor in self._parts(name, changed).items()
            },
        )

    def codes(self, name: str, changed: Mapping[str, Tensor]) -> Codes | None:
        """Return the quantized values of a weight with the scales in `changed`, or its own.

        None where the weight is not quantized.
        """
        source = self._student.source
        if not isinstance(source, PackedSource) or name not in source.grids:
            return None
        codes = source.codes(name)
        return replace(codes, scales=changed[name]) if name in changed else codes

    def meant(self, name: str, changed: Mapping[str, Tensor]) -> Tensor:
        """Return a tensor as the folder means it, float32."""
        codes = self.codes(name, changed)
        return codes.dense() if codes else self._stored(name, changed).float()

    def _stored(self, name: str, changed: Mapping[str, Tensor]) -> Tensor:
        return (
            changed[name].to(self.dtype)
            if name in changed
            else read_as(self._student.source, name, self.dtype)
        )

    def read(self, shard: int) -> dict[str, Tensor]:
        """Return the tensors of a finished shard."""
        return load_file(self._checkpoint.shard(shard))

    def changed(self) -> int:
        """Return how many sub-blocks are not as they were."""
        count = 0
        for block in self._student.graph.blocks:
            now = self.read(block.index + 1)
            for names in block.halves.values():
                count += any(
                    not torch.equal(now[part], tensor)
                    for name in names
                    for part, tensor in self._parts(name, {}).items()
                )
        return count

    def _parts(self, name: str, changed: Mapping[str, Tensor]) -> dict[str, Tensor]:
        codes = self.codes(name, changed)
        return packed_tensors(name, codes) if codes else {name: self._stored(name, changed)}

    def revert(self) -> None:
        """Write the student's own weights over what was trained."""
        self._reverting.touch()
        for shard in range(len(self._student.graph.blocks) + 1):
            self.write(shard, {})

    def finish(self, teacher: ModelHandle, said: Mapping[str, str], plan: Plan | None) -> None:
        """Write everything in the folder that is not weights.

        `said` is how they came about, `plan` what made their zeros and shapes.
        """
        for shard in range(len(self._student.graph.blocks) + 1):
            self.writer.enter(shard, self.read(shard))
        source = self._student.source
        linears = self._student.graph.linears
        config = dict(source.config)
        if isinstance(source, PackedSource):
            config[CONFIG_KEY] = quantization_config(
                source.grids, [linear.tensor for linear in linears if linear.tensor not in source.grids]
            )
        made = {"plan": plan.digest() if plan else "", "teacher": teacher.digest, "recovery": dict(said)}
        self.writer.describe(config, made, plan=plan)
