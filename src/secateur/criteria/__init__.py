"""Saliency criteria, one pure function per file: weight and input statistics in, a score per weight out."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from secateur.core.pattern import Scope
from secateur.tensors.moments import MOMENTS
from secateur_runtime.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

    from secateur.tensors.stats import LinearStats

Criterion: TypeAlias = "Callable[[Tensor, LinearStats], Tensor]"

CRITERIA: Registry[Criterion] = Registry("criterion", "secateur.criteria", "secateur.criteria", needs=MOMENTS)


def criterion(
    name: str, *, scope: Scope = "row", needs: frozenset[str] | set[str] = frozenset(), paper: str = ""
) -> Callable[[Criterion], Criterion]:
    """Return a decorator that registers a criterion.

    scope: which weights its scores are compared with unless the user says otherwise.
    needs: fields of `LinearStats` it reads, of those that are optional or need calibration.
    """
    return CRITERIA.register(name, needs=needs, paper=paper, trait=scope)


def default_scope(name: str) -> Scope:
    """Return the comparison group `name` was registered with; raises UsageError for an unknown criterion."""
    scope: Scope = CRITERIA[name].trait
    return scope
