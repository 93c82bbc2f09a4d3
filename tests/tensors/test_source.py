"""A source made from another one passes on whatever it does not replace."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tests.conftest import Maker
from torch import Tensor

from secateur.model.formats.open_source import open_source
from secateur.tensors.source import Derived, Source


class Doubled(Derived):
    """Every weight times two."""

    def read(self, name: str) -> Tensor:
        return self._source.read(name) * 2

    def pieces(self, name: str) -> Iterator[Tensor]:
        for piece in self._source.pieces(name):
            yield piece * 2


def test_all_but_the_weights_is_that_of_the_source(tiny: Maker, tmp_path: Path) -> None:
    source = open_source(str(tiny("qwen2")))
    derived: Source = Doubled(source)
    assert (derived.ref, derived.config, derived.tensors) == (source.ref, source.config, source.tensors)
    assert derived.digest() == source.digest()
    assert derived.tokenizer()("a tree").input_ids == source.tokenizer()("a tree").input_ids
    derived.copy_companions(tmp_path)
    assert (tmp_path / "tokenizer.json").read_bytes() == (tiny("qwen2") / "tokenizer.json").read_bytes()
    name = "model.norm.weight"
    assert torch.equal(derived.read(name), source.read(name) * 2)


def test_a_derived_source_must_say_how_it_reads(tiny: Maker) -> None:
    source = open_source(str(tiny("qwen2")))
    with pytest.raises(TypeError, match="abstract"):
        Derived(source)  # type: ignore[abstract]
