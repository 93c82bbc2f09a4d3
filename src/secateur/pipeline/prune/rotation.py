"""Rotate a model before pruning, so that what matters gathers in fewer weights or channels.

Its predictions stay.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from secateur.calibrate.input_statistics import HiddenStates, collect_passing
from secateur.calibrate.text import calibration_digest
from secateur.core.context import RunContext
from secateur.core.graph import Block
from secateur.core.progress import Progress
from secateur.model.formats.compressed_tensors import PackedSource
from secateur.model.handle import ModelHandle
from secateur.model.views.rotated import Rotated, Rotation, check_rotation, values_start
from secateur.model.written.reload_check import difference, last_states
from secateur.tensors.precision import arithmetic
from secateur.transform.rotate.entropy import Heads, Readings, gathered, head_spread, spread
from secateur.transform.rotate.pca import principal
from secateur_runtime.errors import UsageError, VerificationError, nearest

WAYS = ("learned", "heads", "pca")
"""`learned`: states and heads, by least entropy of importance; `heads`: the values of heads alone; `pca`:
states, along principal axes.
"""
_STEPS = 240
_HEAD_STEPS = 60
_RATE = 0.002
_TOLERANCE = 1e-4
_CHECKED = 64


def rotated(model: ModelHandle, way: str, tokens: Tensor, seed: int, context: RunContext) -> ModelHandle:
    """Return `model` rotated by `way` for what it computes on `tokens` `[windows, tokens]`.

    way: of `WAYS`; empty leaves the model as it is.
    The same arguments give the same rotation, found once in a run. The digest stays that of the model.
    Raises UsageError for a way there is none of or that the family cannot take, VerificationError if the
    rotated model does not predict what the model does.
    """
    if not way:
        return model
    check_way(model, way)
    key = ("rotation", model.digest, way, calibration_digest(tokens), seed)
    if key not in context.results:
        if more := shaped(model, way).graph.parameters - model.graph.parameters:
            context.progress.note(
                f"a rotated model cannot share its embedding with its head: {more:,} parameters more are"
                " stored"
            )
        rotation = _rotation(model, way, tokens, seed, context.progress)
        _check(model, _turned(model, rotation), tokens[:1, :_CHECKED], context.progress)
        context.results[key] = rotation
    return _turned(model, context.results[key])


def check_way(model: ModelHandle, way: str) -> None:
    """Raise UsageError for a way of rotating that there is not, or not for this model; empty is none."""
    if not way:
        return
    if way not in WAYS:
        raise UsageError(f"unknown --rotate {way!r}{nearest(way, WAYS)}; known: {', '.join(WAYS)}")
    if isinstance(model.source, PackedSource):
        raise UsageError(
            f"{model.source.ref} is quantized, and a rotation would round it once more: rotate the model it"
            " was made from"
        )
    if way != "heads":
        check_rotation(model.source.config)


def shaped(model: ModelHandle, way: str) -> ModelHandle:
    """Return a model with the tensors that rotating it by `way` leaves, whatever they hold.

    For counting, not for computing.
    """
    if not way:
        return model
    return _turned(model, Rotation(None if way == "heads" else torch.empty(0)))


def _turned(model: ModelHandle, rotation: Rotation) -> ModelHandle:
    return model.view(Rotated(model.source, model.graph, rotation))


def _rotation(model: ModelHandle, way: str, tokens: Tensor, seed: int, progress: Progress) -> Rotation:
    with tempfile.TemporaryDirectory() as folder:
        looks = _Looks(model, Path(folder), seed)
        looks.gather(tokens, progress)
        if way == "pca":
            return Rotation(looks.principal())
        states = looks.gathered(progress) if way == "learned" else None
        return Rotation(states, looks.heads(states, progress))


def _check(model: ModelHandle, turned: ModelHandle, tokens: Tensor, progress: Progress) -> None:
    streams = [model.stream(), turned.stream()]
    with arithmetic("float32"):
        logits = [torch.cat(list(stream.logits(last_states(stream, tokens)[0]))) for stream in streams]
    found = difference(logits[1], logits[0])
    if not found <= _TOLERANCE:
        raise VerificationError(
            f"the rotated model does not predict what the model does (relative difference {found:.1e})"
        )
    progress.note(f"rotated: the largest change of a logit is {found:.1e} of the largest logit")


class _Looks:
    """What every block looks like to a rotation.

    Its weights, read when they are needed, and moments of its inputs in a folder.
    """

    def __init__(self, model: ModelHandle, folder: Path, seed: int) -> None:
        self._model = model
        self._folder = folder
        self._seed = seed
        self._family = model.family

    def gather(self, tokens: Tensor, progress: Progress) -> None:
        """Measure the inputs of every linear of the dense model."""
        stream = self._model.stream()
        family = self._family
        hidden = HiddenStates(stream, tokens)
        progress.start("measure inputs", len(stream))
        with arithmetic("bfloat16"):
            for index, block in enumerate(self._model.graph.blocks):
                needs = {
                    linear.tensor: {"input_sq"} if linear.module == family.down else {"gram"}
                    for linear in block.linears
                }
                with stream.open(index) as live:
                    found = collect_passing(live, needs, hidden, self._seed)
                moments = {
                    name: stats.input_sq if stats.gram is None else stats.gram
                    for name, stats in found.items()
                }
                first = {linear.stage: linear.tensor for linear in reversed(block.linears)}
                save_file({name: moments[name].clone() for name in first.values()}, self._path(block))
                progress.step(f"block {index}")

    def principal(self) -> Tensor:
        """Return the principal axes of the normed states, those of every sub-block weighted alike."""
        size = self._model.graph.hidden_size
        total = torch.zeros(size, size, dtype=torch.float64)
        for block in self._model.graph.blocks:
            moments = load_file(self._path(block))
            for modules in (self._family.qkv, self._family.gate_up):
                if (name := f"{block.prefix}{modules[0]}.weight") in moments:
                    total += self._normed(block, modules, moments[name])[1].double()
        return principal(total)

    def gathered(self, progress: Progress) -> Tensor:
        """Return the rotation of the states of least entropy.

        The descent starts at the axes as they are and at the principal ones.
        """
        blocks = self._model.graph.blocks
        size = self._model.graph.hidden_size
        starts = [torch.eye(size, dtype=torch.float64), self.principal()]
        progress.start("rotate states", _STEPS)
        with arithmetic("bfloat16"):
            totals = [
                sum(float(spread(start.float(), self._readings(block))) for block in blocks) / len(blocks)
                for start in starts
            ]
            order = _order(len(blocks), _STEPS, self._seed)
            losses = (
                partial(spread, block=self._readings(blocks[index])) for index in _told(order, progress)
            )
            turn = gathered(starts[totals.index(min(totals))], losses, _rates(_STEPS))
            after = sum(float(spread(turn.float(), self._readings(block))) for block in blocks) / len(blocks)
        progress.note(
            f"entropy of importance: {totals[0]:.3f} as it is, {totals[1]:.3f} along principal axes,"
            f" {after:.3f} learned"
        )
        return turn

    def heads(self, states: Tensor | None, progress: Progress) -> dict[int, Tensor]:
        """Return the rotations of each block's values, the states being rotated already."""
        found: dict[int, Tensor] = {}
        blocks = [block for block in self._model.graph.blocks if block.shape.n_heads]
        progress.start("rotate heads", len(blocks))
        for block in blocks:
            loss = partial(head_spread, heads=self._heads(block, states))
            start = torch.eye(block.shape.head_dim, dtype=torch.float64).expand(
                block.shape.n_kv_heads, -1, -1
            )
            found[block.index] = gathered(start, [loss] * _HEAD_STEPS, _rates(_HEAD_STEPS))
            progress.step(f"block {block.index}")
        return found

    def _path(self, block: Block) -> Path:
        return self._folder / f"{block.index}.safetensors"

    def _read(self, block: Block, module: str) -> Tensor:
        return self._model.source.read(f"{block.prefix}{module}.weight").float()

    def _normed(self, block: Block, modules: Sequence[str], moments: Tensor) -> tuple[Tensor, Tensor]:
        """Return the scale of the norm before `modules`, and the second moments of its inputs."""
        norm = self._family.attn_norms[0] if modules == self._family.qkv else self._family.ffn_norms[0]
        scale = self._read(block, norm) + self._family.norm_offset
        inverse = torch.where(scale == 0, 0.0, 1 / scale)
        return scale, moments * inverse[:, None] * inverse

    def _readings(self, block: Block) -> Readings:
        family = self._family
        moments = load_file(self._path(block))
        reads = list[tuple[Tensor, Tensor]]()
        writes = list[tuple[Tensor, Tensor]]()
        for modules in (family.qkv, family.gate_up):
            if (name := f"{block.prefix}{modules[0]}.weight") in moments:
                scale, normed = self._normed(block, modules, moments[name])
                reads += [(self._read(block, module) * scale, normed) for module in modules]
        for module in (family.o, family.down):
            if (name := f"{block.prefix}{module}.weight") in moments:
                square = moments[name] if moments[name].dim() == 1 else moments[name].diagonal()
                writes.append((self._read(block, module), square))
        return Readings(tuple(reads), tuple(writes))

    def _heads(self, block: Block, states: Tensor | None) -> Heads:
        family = self._family
        moments = load_file(self._path(block))
        shape = block.shape
        turn = torch.eye(self._model.graph.hidden_size) if states is None else states.float()
        scale, normed = self._normed(block, family.qkv, moments[f"{block.prefix}{family.qkv[0]}.weight"])
        values = self._read(block, family.qkv[-1])
        outputs = self._read(block, family.o)
        start = values_start(block, f"{block.prefix}{family.qkv[-1]}.weight", family.qkv[-1])
        values = (values[start:] * scale) @ turn
        own = moments[f"{block.prefix}{family.o}.weight"].view(
            shape.n_heads, shape.head_dim, shape.n_heads, shape.head_dim
        )
        grouped = (shape.n_kv_heads, shape.n_heads // shape.n_kv_heads)
        return Heads(
            values=values.view(shape.n_kv_heads, shape.head_dim, -1),
            value_sq=((normed @ turn) * turn).sum(0).clamp_min(0),
            outputs=(turn.T @ outputs)
            .view(len(outputs), shape.n_heads, shape.head_dim)
            .transpose(0, 1)
            .unflatten(0, grouped),
            moments=torch.stack([own[head, :, head] for head in range(shape.n_heads)]).unflatten(0, grouped),
        )


def _order(blocks: int, steps: int, seed: int) -> list[int]:
    """Return which block each step looks at: every one once before any a second time."""
    draw = torch.Generator().manual_seed(seed)
    rounds = -(-steps // blocks)
    return torch.cat([torch.randperm(blocks, generator=draw) for _ in range(rounds)])[:steps].tolist()


def _rates(steps: int) -> list[float]:
    return [_RATE * (1 - step / steps) for step in range(steps)]


def _told(order: Sequence[int], progress: Progress) -> Iterator[int]:
    for step, index in enumerate(order):
        yield index
        progress.step(f"step {step + 1}")
