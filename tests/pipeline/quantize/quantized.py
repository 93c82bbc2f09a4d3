"""Quantization on little text, and what it wrote."""

from __future__ import annotations

from pathlib import Path

import secateur
from secateur.calibrate.calibration import Calibration
from secateur.model.formats.compressed_tensors import PackedSource
from secateur.model.handle import open_model
from secateur.pipeline.quantize.quantize import Quantization, Quantized

SMALL = Calibration(samples=4, window=64)


def quantize(src: Path, out: Path, how: Quantization | None = None) -> Quantized:
    return secateur.quantize(str(src), out, how, calibration=SMALL)


def packed(path: Path) -> PackedSource:
    source = open_model(str(path)).source
    assert isinstance(source, PackedSource)
    return source


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}
