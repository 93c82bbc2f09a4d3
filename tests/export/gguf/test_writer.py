"""Files as gguf's own reader finds them: metadata, tensors in their layout, and what cannot be written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Kind
from gguf import GGUFValueType
from torch import Tensor

from secateur.core.graph import TensorInfo
from secateur.core.progress import Silent
from secateur.export.gguf.layout import LaidTensor, Layout
from secateur.export.gguf.writer import GgufExport, QuantizedWeights, Typed
from secateur.model.formats.gguf.loaders import GgufLoader
from secateur_runtime.decoder.block_shape import BlockShape
from secateur_runtime.errors import SourceError, UsageError
from secateur_runtime.kernels.quantized import Codes, Grid

GRID = Grid(bits=4, group=32)


class _Weights:
    """A source of weights in memory."""

    ref = "memory"

    def __init__(self, weights: dict[str, Tensor]) -> None:
        self.config: dict[str, Any] = {}
        self._weights = weights
        self.tensors = {name: TensorInfo(tuple(tensor.shape), "F32") for name, tensor in weights.items()}

    def read(self, name: str) -> Tensor:
        return self._weights[name]

    def pieces(self, name: str) -> Iterator[Tensor]:
        yield from self._weights[name].split(1)


def _source() -> Any:
    generator = torch.Generator().manual_seed(0)
    sizes = {"q": (8, 32), "k": (4, 32), "norm": (32,), "head": (16, 32)}
    return _Weights({name: torch.randn(size, generator=generator) for name, size in sizes.items()})


LAYOUT = Layout(
    loader=GgufLoader(name="llama"),
    per_block=False,
    shapes=(BlockShape(2, 1, 4, 0),),
    alive=(0,),
    tensors=(
        LaidTensor(name="output.weight", shape=(16, 32), parts=("head",)),
        LaidTensor(name="blk.0.attn_q.weight", shape=(8, 32), parts=("q",), heads=2),
        LaidTensor(name="blk.0.attn_qk.weight", shape=(12, 32), parts=("q", "k")),
        LaidTensor(name="blk.0.attn_norm.weight", shape=(32,), parts=("norm",), add=1.0),
        LaidTensor(name="blk.0.ffn_up.weight", shape=(4, 32)),
    ),
)
FIELDS: dict[str, Any] = {
    "general.name": "tiny",
    "llama.block_count": 1,
    "llama.rope.freq_base": 1e4,
    "a.flag": True,
    "a.list": ["x", "y"],
    "a.typed": Typed(7, GGUFValueType.UINT64),
}


def _written(path: Path, kind: Any, source: Any = None) -> gguf.GGUFReader:
    factors = {"rope_freqs.weight": [1.0, 2.0]}
    GgufExport(source or _source(), LAYOUT, FIELDS, factors, kind, "head").write(path, Silent())
    return gguf.GGUFReader(str(path))


def test_metadata_and_plain_tensors(tmp_path: Path) -> None:
    read = _written(tmp_path / "a.gguf", Kind.F32)
    values = {name: field.contents() for name, field in read.fields.items()}
    assert values["general.architecture"] == "llama"
    assert {name: values[name] for name in FIELDS} == FIELDS | {"a.typed": 7}
    assert read.fields["a.typed"].types == [GGUFValueType.UINT64]
    weights = _source()
    found = {tensor.name: torch.from_numpy(np.array(tensor.data)) for tensor in read.tensors}
    assert found["rope_freqs.weight"].tolist() == [1.0, 2.0]
    torch.testing.assert_close(
        found["blk.0.attn_qk.weight"], torch.cat([weights.read("q"), weights.read("k")])
    )
    torch.testing.assert_close(found["blk.0.attn_norm.weight"], weights.read("norm") + 1)
    assert not found["blk.0.ffn_up.weight"].any()


def test_rows_of_heads_are_interleaved(tmp_path: Path) -> None:
    """Two heads of four rows: 0 2 1 3 of each, as llama.cpp's converter has them."""
    read = _written(tmp_path / "a.gguf", Kind.F32)
    stored = next(tensor.data for tensor in read.tensors if tensor.name == "blk.0.attn_q.weight")
    order = [0, 2, 1, 3, 4, 6, 5, 7]
    np.testing.assert_array_equal(stored, _source().read("q").numpy()[order])


def test_a_rounded_model_is_what_the_file_holds(tmp_path: Path) -> None:
    source = _source()
    export = GgufExport(source, LAYOUT, FIELDS, {}, Kind.Q4_0, "head")
    export.write(tmp_path / "a.gguf", Silent())
    stored = {tensor.name: tensor for tensor in gguf.GGUFReader(str(tmp_path / "a.gguf")).tensors}
    assert stored["output.weight"].tensor_type == Kind.Q8_0
    assert stored["blk.0.attn_qk.weight"].tensor_type == Kind.Q4_0
    expected = gguf.quants.dequantize(stored["output.weight"].data, Kind.Q8_0)
    again = export.rounded()
    np.testing.assert_array_equal(again.read("head").numpy(), expected)
    np.testing.assert_array_equal(torch.cat(list(again.pieces("head"))).numpy(), expected)
    torch.testing.assert_close(again.read("norm"), source.read("norm"))


def _codes(rows: int) -> Codes:
    generator = torch.Generator().manual_seed(rows)
    values = torch.randint(-8, 8, (rows, 32), generator=generator, dtype=torch.int8)
    return Codes(GRID, values, torch.full((rows, 1), 0.5, dtype=torch.float16), None)


def test_quantized_values_are_kept(tmp_path: Path) -> None:
    packed = QuantizedWeights({"q": GRID, "k": GRID}, lambda name: _codes(8 if name == "q" else 4))
    read = _written(tmp_path / "a.gguf", packed)
    stored = {tensor.name: tensor for tensor in read.tensors}
    joined = stored["blk.0.attn_qk.weight"]
    assert joined.tensor_type == Kind.Q4_0
    values = torch.cat([_codes(8).values, _codes(4).values]).float().numpy() * 0.5
    np.testing.assert_array_equal(gguf.quants.dequantize(joined.data, Kind.Q4_0), values)
    assert stored["output.weight"].tensor_type == Kind.Q8_0


def test_two_grids_in_one_tensor() -> None:
    packed = QuantizedWeights({"q": GRID, "k": Grid(bits=8, group=32)}, lambda name: _codes(8))
    with pytest.raises(
        UsageError, match="hold q, k as one tensor, and they lie on different grids: export with"
    ):
        GgufExport(_source(), LAYOUT, {}, {}, packed, "head")


def test_weights_that_are_not_finite(tmp_path: Path) -> None:
    source = _source()
    source.read("head")[0, 0] = torch.nan
    with pytest.raises(
        SourceError, match=r"^memory: head holds NaN or infinite weights; get the model again$"
    ):
        _written(tmp_path / "a.gguf", Kind.F32, source)


def test_widths_are_checked_before_anything_is_written() -> None:
    odd = Layout(
        loader=GgufLoader(name="llama"),
        per_block=False,
        shapes=(),
        alive=(),
        tensors=(LaidTensor(name="a.weight", shape=(4, 20), parts=("a",)),),
    )
    weights: Any = _Weights({"a": torch.zeros(4, 20)})
    with pytest.raises(UsageError, match="a is 20 wide"):
        GgufExport(weights, odd, {}, {}, Kind.Q8_0, "head")
