"""A pass over blocks: each finished one is a shard, and a killed pass reads back what it wrote."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.conftest import Maker
from torch import Tensor

from secateur.core.progress import Silent
from secateur.model.handle import ModelHandle, open_model
from secateur.model.written.block_writer import BlockWriter
from secateur.model.written.checkpoint import Checkpoint, writing
from secateur.model.written.folder_writer import FolderWriter
from secateur.tensors.layer_stream import LiveBlock


class Doubling(BlockWriter):
    """Doubles the weights of the blocks 0 and 2 and dies before place `dies`."""

    def __init__(self, checkpoint: Checkpoint, model: ModelHandle, dies: int = 9) -> None:
        super().__init__(FolderWriter(checkpoint, model, torch.float32), model.stream())
        self.calls: list[str] = []
        self._dies = dies
        self.write_outside({name: model.source.read(name) for name in model.graph.outside})

    def made(self, live: LiveBlock, place: int) -> dict[str, Tensor]:
        if place == self._dies:
            raise KeyboardInterrupt
        self.calls.append(f"make {live.block.index} as {place}")
        return {name: 2 * live.weight(name) for name in live.block.tensors}

    def restored(self, live: LiveBlock, place: int, tensors: Mapping[str, Tensor]) -> None:
        self.calls.append(f"restore {live.block.index} from {place}")
        assert all(torch.equal(tensors[name], 2 * live.weight(name)) for name in live.block.tensors)


def run(model: ModelHandle, out: Path, told: Silent, dies: int = 9) -> Doubling:
    with writing(out, {"job": "double"}, 3, overwrite=False) as checkpoint:
        made = Doubling(checkpoint, model, dies)
        made.write_blocks("double", (0, 2), told)
        checkpoint.write_index()
        made.writer.describe(model.source.config, {})
        checkpoint.publish()
    return made


def test_a_killed_pass_goes_on_where_it_stopped(tiny: Maker, tmp_path: Path) -> None:
    model = open_model(str(tiny("llama")))
    whole = run(model, tmp_path / "whole", Silent())
    assert whole.resumed == 0
    assert whole.calls == ["make 0 as 0", "make 2 as 1"]
    with pytest.raises(KeyboardInterrupt):
        run(model, tmp_path / "out", Silent(), dies=1)
    assert not (tmp_path / "out").exists()
    told = Silent()
    again = run(model, tmp_path / "out", told)
    assert again.resumed == 1
    assert again.calls == ["restore 0 from 0", "make 2 as 1"]
    for path in (tmp_path / "whole").glob("*.safetensors"):
        found = load_file(tmp_path / "out" / path.name)
        assert all(torch.equal(found[name], tensor) for name, tensor in load_file(path).items())
    assert whole.writer.checkpoint.tensor_bytes == again.writer.checkpoint.tensor_bytes
