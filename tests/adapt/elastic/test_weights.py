"""The weight file: every unit in the order of the ladder, and files that do not belong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.ladders import ladder_for

from secateur.adapt.elastic.weights import elastic_groups, part_name, prepare
from secateur.model.handle import open_model
from secateur_runtime.errors import SourceError

Maker = Callable[..., Path]


@pytest.mark.parametrize("family", ["llama", "phi3"])
def test_units_lie_in_the_order_of_the_ladder(family: str, tiny: Maker, tmp_path: Path) -> None:
    model = open_model(str(tiny(family)))
    ladder = ladder_for(model.graph, model.digest, ())
    path = tmp_path / "weights.safetensors"
    spans = prepare(model, ladder, path, torch.float32)
    stored = load_file(path)
    assert set(spans) == set(stored)
    for group in elastic_groups(model.graph):
        for place, part in enumerate(group.slices):
            whole = model.source.read(part.tensor).float()
            rows = whole if part.dim == 0 else whole.T
            found = stored[part_name(group, place)]
            for at, unit in enumerate(ladder.order[group.name]):
                begin = part.offset + unit * part.block
                wanted = rows[begin : begin + part.block]
                assert torch.equal(found[at * part.block : (at + 1) * part.block], wanted)


def test_a_file_of_another_ladder_or_a_damaged_one_is_refused(tiny: Maker, tmp_path: Path) -> None:
    model = open_model(str(tiny("llama")))
    ladder = ladder_for(model.graph, model.digest, ())
    path = tmp_path / "weights.safetensors"
    prepare(model, ladder, path, torch.bfloat16)
    written = path.read_bytes()
    prepare(model, ladder, path, torch.bfloat16)
    assert path.read_bytes() == written, "it is written once"
    other = replace(ladder, order={**ladder.order, "1.ffn": tuple(range(96))})
    for change in ((other, torch.bfloat16), (ladder, torch.float32)):
        with pytest.raises(SourceError, match="another model, ladder or type: delete it"):
            prepare(model, change[0], path, change[1])
    path.write_bytes(written[:100])
    with pytest.raises(SourceError, match="damaged or cut short"):
        prepare(model, ladder, path, torch.bfloat16)
