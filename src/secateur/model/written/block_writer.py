"""Write a model one block at a time: a shard as soon as a block is finished, read back after a kill."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from safetensors.torch import load_file
from torch import Tensor

from secateur.core.process_memory import give_back
from secateur.core.progress import Progress
from secateur.model.block_stream import ModelStream
from secateur.model.written.folder_writer import FolderWriter
from secateur.tensors.layer_stream import LiveBlock


class BlockWriter(ABC):
    """One pass over the blocks of a model, each of which becomes a shard of a folder.

    writer: of that folder. stream: the blocks as they are before the pass changes them.
    resumed: how many blocks a killed run has finished.
    """

    def __init__(self, writer: FolderWriter, stream: ModelStream) -> None:
        self.writer = writer
        self.stream = stream
        self.resumed = max(writer.checkpoint.finished() - 1, 0)

    @abstractmethod
    def made(self, live: LiveBlock, place: int) -> dict[str, Tensor]:
        """Change a block and return its tensors as they are stored.

        place: its index in what is written. The states that a subclass holds advance past the block.
        """

    @abstractmethod
    def restored(self, live: LiveBlock, place: int, tensors: Mapping[str, Tensor]) -> None:
        """Do with a block what `made` did to it, from the tensors that it stored."""

    @contextmanager
    def opened(self, index: int) -> Iterator[LiveBlock]:
        """Load block `index` of the model, as the pass is to run it."""
        with self.stream.open(index) as live:
            yield live

    def write_outside(self, tensors: Mapping[str, Tensor]) -> None:
        """Write what lies outside the blocks, as it is stored."""
        if self.writer.checkpoint.finished() == 0:
            self.writer.checkpoint.write(0, tensors)
        self.writer.enter(0, tensors)
        give_back()

    def write_blocks(self, task: str, indices: Sequence[int], progress: Progress) -> None:
        """Change and write the blocks `indices`; those that a killed run finished are read back instead.

        task: what is done, as the progress shows it.
        """
        progress.start(task, len(indices), self.resumed)
        for place, index in enumerate(indices):
            with self.opened(index) as live:
                if place < self.resumed:
                    tensors = load_file(self.writer.checkpoint.shard(place + 1))
                    self.restored(live, place, tensors)
                else:
                    tensors = self.made(live, place)
                    self.writer.checkpoint.write(place + 1, tensors)
                self.writer.enter(place + 1, tensors)
            if place >= self.resumed:
                progress.step(f"block {index}")
