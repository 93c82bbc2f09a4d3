"""Unit criteria, one pure function per file: weights and statistics of a group in, a score per unit out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias, get_args

from secateur.core.graph import Kind
from secateur.tensors.moments import MOMENTS
from secateur_runtime.errors import UsageError
from secateur_runtime.registry import Entry, Registry

if TYPE_CHECKING:
    from torch import Tensor

    from secateur.tensors.unit_view import UnitView

UnitCriterion: TypeAlias = "Callable[[UnitView], Tensor]"
"""Returns `[group.size]` float32; the higher, the more a unit matters."""

ALL_KINDS: tuple[Kind, ...] = get_args(Kind)
SUB_BLOCK_KINDS: tuple[Kind, ...] = ("ffn", "kv", "head")
"""Kinds whose last slice is the input side of their sub-block's last linear."""

UNIT_CRITERIA: Registry[UnitCriterion] = Registry(
    "unit criterion", "secateur.criteria.units", "secateur.unit_criteria", needs=MOMENTS | {"gradient"}
)


def unit_criterion(
    name: str, *, kinds: Sequence[Kind], needs: frozenset[str] | set[str] = frozenset(), paper: str = ""
) -> Callable[[UnitCriterion], UnitCriterion]:
    """Return a decorator that registers a unit criterion.

    kinds: kinds of groups it can score.
    needs: of `input_sq`, `input_abs` and `gram` the fields of `LinearStats` it reads; `gradient` for
    `UnitView.gradients`.
    """
    return UNIT_CRITERIA.register(name, needs=needs, paper=paper, trait=frozenset(kinds))


def kinds_of(name: str) -> frozenset[Kind]:
    """Return the kinds of groups a criterion can score; raises UsageError for an unknown criterion."""
    kinds: frozenset[Kind] = UNIT_CRITERIA[name].trait
    return kinds


def unit_criterion_for(name: str, kind: Kind) -> Entry[UnitCriterion]:
    """Return the criterion called `name`.

    Raises UsageError, naming those that work, if it cannot score units of `kind`.
    """
    entry = UNIT_CRITERIA[name]
    if kind not in kinds_of(name):
        able = ", ".join(other for other in UNIT_CRITERIA if kind in kinds_of(other))
        raise UsageError(f"criterion {name!r} cannot score {kind} units; these can: {able}")
    return entry
