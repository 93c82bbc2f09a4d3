"""What a recipe will roughly take.

Sizes are counted; memory and time are estimated from the model's shape and this machine's speed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import torch

from secateur.calibrate.self_sampled import PROBE
from secateur.core.context import Arithmetic
from secateur.core.estimated_size import EstimatedSize
from secateur.core.graph import Graph
from secateur.core.target import Target
from secateur.model.handle import open_model
from secateur.pipeline.prune.kinds import Goal, kind_of
from secateur.pipeline.quantize.quantize import Quantization
from secateur.pipeline.recipe.runner import check_texts, keys, record_of
from secateur.pipeline.recipe.schema import Eval, Export, Recipe, Stage
from secateur.pipeline.recover.distill import Distill
from secateur.pipeline.recover.local_reconstruction import Local
from secateur.tensors.precision import arithmetic
from secateur_runtime.kernels.quantized import Grid

_IMPORTS = 390 << 20
"""Resident bytes before a weight is read."""
_QUANTIZE_PASSES = 2.2
"""Forward passes over the calibration text that quantization takes, measured on SmolLM2-135M: half of them
inputs, half what follows.
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


def forecast(recipe: Recipe, out: Path) -> list[Forecast]:
    """Return what each stage of `recipe` will roughly take.

    Memory and time are right within a factor of two or three, sizes to a few percent. Raises TextError if a
    text is too short to train on.
    """
    check_texts(recipe)
    graph = open_model(recipe.model).graph
    inside = sum(linear.out_features * linear.in_features for linear in graph.linears)
    size = EstimatedSize(inside, graph.parameters - inside)
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


def _resized(stage: Stage, size: EstimatedSize, graph: Graph, grid: Grid) -> EstimatedSize:
    match stage.options:
        case Quantization(budget=Target(limits=(limit, *_))):
            most = float(limit.value) * (size.bytes if limit.unit == "%" else 1)
            return replace(size, bits=max(8 * most - size.outside * size.embedding_bits, 0.0) / size.inside)
        case Quantization():
            return replace(size, bits=grid.bits_per_weight)
        case Export(type=kind) as how:
            stored = how.exporter.bits(kind, size.bits, size.zeros)
            return replace(size, bits=stored.inside, embedding_bits=stored.outside)
    if stage.kind != "prune":
        return size
    goal = cast("Goal", stage.options)
    return kind_of(goal).estimate(goal, size, graph)


def _work(stage: Stage, size: EstimatedSize, graph: Graph) -> Iterator[float]:
    """Yield operations of floating point, as sums and products."""
    tokens = stage.calibration.samples * stage.calibration.window
    match stage.options:
        case Local() as how:
            yield 6 * size.inside * how.steps * how.batch + 8 * size.inside * tokens
        case Distill() as how:
            yield (size.inside + size.outside) * (6 * how.steps * how.batch + 2 * tokens)
        case Eval() as how:
            yield 3 * 2 * (size.inside + size.outside) * how.count * how.window
        case Export():
            yield 2 * (size.inside + size.outside) * _CHECK_TOKENS
        case Quantization():
            yield from _solved(_QUANTIZE_PASSES * tokens, size, graph)
        case goal if stage.kind == "prune":
            if passes := kind_of(cast("Goal", goal)).passes:
                yield from _solved(passes * tokens, size, graph)
            else:
                yield 4 * size.inside * math.prod(PROBE)


def _solved(tokens: float, size: EstimatedSize, graph: Graph) -> Iterator[float]:
    """Yield operations of passes over `tokens` tokens, and of a solver for every linear."""
    yield 2 * size.inside * tokens
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
