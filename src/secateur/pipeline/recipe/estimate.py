"""What a recipe will roughly take.

Sizes are counted; memory and time are estimated from the model's shape and this machine's speed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from secateur.calibrate.self_sampled import PROBE
from secateur.core.graph import Graph
from secateur.core.target import Limit, Target
from secateur.core.write_settings import Arithmetic
from secateur.model.handle import open_model
from secateur.pipeline.prune.auto.decide import Auto
from secateur.pipeline.prune.depth.decide import Depth
from secateur.pipeline.prune.vocabulary import Vocab
from secateur.pipeline.prune.weights.decide import Sparsity
from secateur.pipeline.prune.width.decide import Width
from secateur.pipeline.quantize.quantize import Quantization
from secateur.pipeline.recipe.runner import keys, record_of
from secateur.pipeline.recipe.schema import Eval, Export, Recipe, Stage
from secateur.pipeline.recover.distill import Distill
from secateur.pipeline.recover.local_reconstruction import Local
from secateur.tensors.precision import arithmetic
from secateur_runtime.kernels.quantized import Grid

_IMPORTS = 390 << 20
"""Resident bytes before a weight is read."""
_PASSES = {"quantize": 2.2, "weights": 2.2, "width": 6.0, "depth": 8.0, "auto": 40.0}
"""Forward passes over the calibration text that a stage takes, measured on SmolLM2-135M: half of them inputs,
half what follows.
"""
_CHECK_TOKENS = 3 * 256
_TRIES = 10
_SHARE = 0.6
"""Of the speed of one large product that a whole stage reaches."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """One stage: bytes of what it makes, peak memory, seconds.

    `cached` where it is there already and none of it is spent.
    """

    kind: str
    bytes: int
    memory: int
    seconds: float
    cached: bool


@dataclass(frozen=True, slots=True)
class _Size:
    """Parameters inside and outside the blocks, bits that each takes, and the share of zeros inside."""

    inside: float
    outside: float
    bits: float = 16.0
    embedding_bits: float = 16.0
    zeros: float = 0.0

    @property
    def bytes(self) -> int:
        return round((self.inside * self.bits + self.outside * self.embedding_bits) / 8)


def forecast(recipe: Recipe, out: Path) -> list[Forecast]:
    """Return what each stage of `recipe` will roughly take.

    Memory and time are right within a factor of two or three, sizes to a few percent.
    """
    graph = open_model(recipe.model).graph
    inside = sum(linear.out_features * linear.in_features for linear in graph.linears)
    size = _Size(inside, graph.parameters - inside)
    speeds = {"bfloat16": _speed("bfloat16"), "float32": _speed("float32")}
    found = list[Forecast]()
    grid = Grid()
    for stage, key in zip(recipe.stages, keys(recipe), strict=True):
        if isinstance(stage.options, Quantization):
            grid = stage.options.grid
        size = _resized(stage, size, graph, grid)
        slow = isinstance(stage.options, Eval) and stage.options.compute == "float32"
        seconds = sum(_work(stage, size, graph)) / speeds["float32" if slow else "bfloat16"]
        found.append(
            Forecast(
                stage.kind,
                size.bytes,
                _memory(stage, graph),
                round(seconds, 1),
                record_of(out, key) is not None,
            )
        )
    return found


def _resized(stage: Stage, size: _Size, graph: Graph, grid: Grid) -> _Size:
    match stage.options:
        case Vocab(ratio=float(ratio)):
            return replace(size, outside=size.outside * (1 - ratio))
        case Vocab(target=str(target)):
            return replace(
                size, outside=min(_most(limit, size) - size.inside for limit in Target.parse([target]).limits)
            )
        case Width(ratio=float(ratio), units=units):
            kinds = [group for block in graph.blocks for group in block.groups if group.kind in units]
            share = sum(graph.tensors[part.tensor].numel for group in kinds for part in group.slices) / max(
                sum(one.numel for one in graph.tensors.values()), 1
            )
            return replace(size, inside=size.inside - ratio * share * (size.inside + size.outside))
        case Depth(ratio=float(ratio)):
            return replace(size, inside=size.inside * (1 - ratio))
        case Depth(drop_layers=int(layers)):
            return replace(size, inside=size.inside * (1 - layers / len(graph.blocks)))
        case Width(target=str(target)) | Depth(target=str(target)) | Auto(target=str(target)):
            return replace(size, inside=min(_left(limit, size) for limit in Target.parse([target]).limits))
        case Quantization(target=target) if target:
            limit, *_ = Target.parse([target]).limits
            most = float(limit.value) * (size.bytes if limit.unit == "%" else 1)
            return replace(size, bits=max(8 * most - size.outside * size.embedding_bits, 0.0) / size.inside)
        case Quantization():
            return replace(size, bits=grid.bits_per_weight)
        case Sparsity() as chosen:
            return replace(size, zeros=chosen.pattern.ratio)
        case Export(type=kind) as how:
            stored = how.exporter.bits(kind, size.bits, size.zeros)
            return replace(size, bits=stored.inside, embedding_bits=stored.outside)
    return size


def _left(limit: Limit, size: _Size) -> float:
    """Return the parameters inside the blocks that a budget leaves."""
    return (
        size.inside * (1 - float(limit.value))
        if limit.metric == "ratio"
        else max(_most(limit, size) - size.outside, 0.0)
    )


def _most(limit: Limit, size: _Size) -> float:
    """Return the parameters of the whole model that a budget leaves."""
    value = float(limit.value)
    return (
        value * (size.inside + size.outside)
        if limit.unit == "%"
        else value
        if limit.metric == "params"
        else 8 * value / size.bits
    )


def _work(stage: Stage, size: _Size, graph: Graph) -> Iterator[float]:
    """Yield operations of floating point, as sums and products."""
    tokens = stage.calibration.samples * stage.calibration.window
    match stage.options:
        case Local() as how:
            yield 6 * size.inside * how.steps * how.batch + 8 * size.inside * tokens
        case Distill() as how:
            yield (size.inside + size.outside) * (6 * how.steps * how.batch + 2 * tokens)
        case Eval() as how:
            yield 3 * 2 * (size.inside + size.outside) * how.count * how.window
        case Vocab():
            yield 4 * size.inside * math.prod(PROBE)
        case Export():
            yield 2 * (size.inside + size.outside) * _CHECK_TOKENS
        case Quantization() | Width() | Depth() | Auto():
            kind = "quantize" if stage.kind == "quantize" else type(stage.options).__name__.lower()
            yield _PASSES[kind] * 2 * size.inside * tokens
            yield from (
                linear.in_features**2 * (linear.in_features + linear.out_features) for linear in graph.linears
            )
        case _ if stage.kind == "prune":
            yield _PASSES["weights"] * 2 * size.inside * tokens
            yield from (
                linear.in_features**2 * (linear.in_features + linear.out_features) for linear in graph.linears
            )


def _memory(stage: Stage, graph: Graph) -> int:
    """Return peak bytes of a stage.

    Imports, states of the calibration text, a block with what a solver needs, and the head where there are
    logits.
    """
    block = max(sum(graph.tensors[name].numel for name in block.tensors) for block in graph.blocks)
    widest = max(linear.in_features for linear in graph.linears)
    states = 4 * stage.calibration.samples * stage.calibration.window * graph.hidden_size
    head = 4 * graph.vocab_size * (graph.hidden_size + 3 * 256)
    compared = (
        8 * graph.hidden_size * stage.options.count * stage.options.window
        if isinstance(stage.options, Eval)
        else 0
    )
    match stage.kind:
        case "gate":
            return _IMPORTS
        case "eval" | "export":
            return _IMPORTS + 4 * block + head + compared
        case "recover":
            if isinstance(stage.options, Distill):
                return _IMPORTS + _training(stage.options, stage.calibration.window, graph)
            return _IMPORTS + 3 * states + 20 * block + head
    return (
        _IMPORTS
        + states
        + 8 * block
        + 20 * widest**2
        + (head if not isinstance(stage.options, Quantization) else 0)
    )


def _training(how: Distill, window: int, graph: Graph) -> int:
    """Return bytes of a whole model in training.

    Weights, gradients and moments, the logits in a few forms, and what backpropagation keeps of each block.
    """
    tokens = how.micro * window
    widest = max(linear.in_features for linear in graph.linears)
    kept = 4 * len(graph.blocks) * tokens * (8 * graph.hidden_size + 3 * widest)
    return (
        graph.parameters * how.row.bytes + 16 * tokens * graph.vocab_size + (0 if how.checkpointing else kept)
    )


def _speed(kind: Arithmetic) -> float:
    """Return operations a second that a stage can be expected to reach here."""
    left = torch.ones(512, 768)
    right = torch.ones(768, 768)
    best = float("inf")
    with arithmetic(kind):
        for _ in range(_TRIES):
            started = time.perf_counter()
            for _ in range(4):
                torch.mm(left, right)
            best = min(best, time.perf_counter() - started)
    return _SHARE * 4 * 2 * 512 * 768 * 768 / best
