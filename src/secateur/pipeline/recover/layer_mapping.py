"""Which part of a dense teacher each part of its pruned student maps to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from secateur.core.graph import TensorInfo
from secateur.core.plan import Plan
from secateur.model.formats.open_source import read_as
from secateur.model.handle import ModelHandle
from secateur.model.written.pruned_config import surviving_blocks
from secateur.pipeline.prune.depth.gap_repair import SubBlock, gaps
from secateur.tensors.storage_dtype import storage_type
from secateur_runtime.errors import UsageError

_PROBE = "The gardener cut 30 of 100 branches in 1990;\n\tDon't ask why — naïve, isn't it?"


@dataclass(frozen=True, slots=True)
class Pairing:
    """The teacher's sub-blocks that each of the student's stands for.

    Its own, then those that were dropped behind it.

    channels: those of the teacher's hidden channels that the student has, in order; None for all of them.
    """

    sub_blocks: Mapping[SubBlock, tuple[SubBlock, ...]]
    channels: Tensor | None


def check_tokenizers(student: ModelHandle, teacher: ModelHandle) -> None:
    """Raise UsageError unless both models read the same tokens."""
    ours = student.source.tokenizer()
    theirs = teacher.source.tokenizer()
    same = student.graph.vocab_size == teacher.graph.vocab_size and ours.get_vocab() == theirs.get_vocab()
    if (
        not same
        or ours(_PROBE, add_special_tokens=False)["input_ids"]
        != theirs(_PROBE, add_special_tokens=False)["input_ids"]
    ):
        raise UsageError(
            f"{student.source.ref} and {teacher.source.ref} have different tokenizers: a teacher must read"
            " the same tokens as its student"
        )


def pair(student: ModelHandle, teacher: ModelHandle, plan: Plan | None) -> Pairing:
    """Return which parts of `teacher` the parts of `student` stand for.

    plan: what made the student, where that is known: it says which blocks and hidden channels are left.
    Without one made from this teacher, both must have as many of them. Raises UsageError if the models cannot
    be teacher and student.
    """
    mine = student.graph
    whole = teacher.graph
    if mine.family != whole.family:
        raise UsageError(
            f"{student.source.ref} is a {mine.family} model and {teacher.source.ref} a {whole.family} model:"
            " give the model that it was pruned from"
        )
    known = plan if plan is not None and plan.model == teacher.digest else None
    alive = surviving_blocks(whole, known) if known else tuple(range(len(whole.blocks)))
    channels = known.keep.get(whole.hidden.name) if known else None
    for what, ours, theirs in (
        ("blocks", len(mine.blocks), len(alive)),
        ("channels", mine.hidden_size, len(channels or range(whole.hidden_size))),
    ):
        if ours != theirs:
            reason = (
                "what its plan.json leaves of it"
                if known
                else "and no plan.json made from it says which are left"
            )
            raise UsageError(
                f"{student.source.ref} has {ours} {what}, {teacher.source.ref} {theirs}, {reason}: give the"
                " model that it was pruned from"
            )
    return Pairing(_sub_blocks(student, teacher, alive), None if channels is None else torch.tensor(channels))


def _sub_blocks(
    student: ModelHandle, teacher: ModelHandle, alive: tuple[int, ...]
) -> dict[SubBlock, tuple[SubBlock, ...]]:
    places = {
        (alive[block.index], part): (block.index, part)
        for block in student.graph.blocks
        for part in block.halves
        if block.halves[part]
    }
    whole = [
        (block.index, part)
        for block in teacher.graph.blocks
        for part in ("attn", "ffn")
        if block.halves[part]
    ]
    unknown = [sub_block for sub_block in places if sub_block not in whole]
    if unknown:
        raise UsageError(
            f"{student.source.ref} has {unknown[0][1]} where block {unknown[0][0]} of {teacher.source.ref}"
            " has none: give the model it was pruned from"
        )
    behind = gaps(teacher.graph, [f"{index}.{part}" for index, part in whole if (index, part) not in places])
    return {ours: (sub_block, *behind.get(sub_block, ())) for sub_block, ours in places.items()}


def damaged(student: ModelHandle, teacher: ModelHandle, pairing: Pairing) -> frozenset[SubBlock]:
    """Return the sub-blocks of `student` that differ from their teacher's, or stand for more than one of its.

    Stored rounding is no difference.
    """
    dtype = storage_type("auto", student.graph.tensors)
    found = set[SubBlock]()
    for (index, part), behind in pairing.sub_blocks.items():
        mine = student.graph.blocks[index]
        theirs = teacher.graph.blocks[behind[0][0]]
        names = {name: theirs.prefix + name.removeprefix(mine.prefix) for name in mine.halves[part]}
        if len(behind) > 1 or not all(
            _same(student, name, teacher, other, dtype) for name, other in names.items()
        ):
            found.add((index, part))
    return frozenset(found)


def _same(student: ModelHandle, name: str, teacher: ModelHandle, other: str, dtype: torch.dtype) -> bool:
    if teacher.graph.tensors.get(other, TensorInfo((), "")).shape != student.graph.tensors[name].shape:
        return False
    return torch.equal(read_as(student.source, name, dtype), read_as(teacher.source, other, dtype))
