"""Policies, one per file: what is sensed in, what goes out of the model out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from secateur.adapt.choices import Choices, Decision, Observation
from secateur.core.registry import Registry

__all__ = ["DEFAULT", "POLICIES", "Choices", "Decision", "Observation", "Policy", "make_policy", "policy"]


class Policy(Protocol):
    """Decides what goes; what it decides fits whenever anything of its kind fits, except for `none` and `threshold`.

    Takes under a millisecond, keeps no state that a later decision needs to be right, and never raises for a valid observation.
    """

    def __call__(self, seen: Observation) -> Decision:
        """Return what is to be taken out of the model."""


Maker = Callable[[Choices, Path | None], Policy]
"""Makes a policy for one ladder; the file is of a trained network, for those that need one."""

POLICIES: Registry[Maker] = Registry("policy", "secateur.adapt.policies")
DEFAULT = "greedy"
"""Goes by measured levels alone. The two that leave the ladder's order go by prices, which add up only roughly, and need a ladder that was priced."""


def policy(name: str, *, levels: bool, trained: bool = False, paper: str = "") -> Callable[[Maker], Maker]:
    """Return a decorator that registers the maker of a policy.

    levels: whether all it chooses are levels of the ladder. trained: whether it needs a file of a network.
    """
    needs = {word for word, wanted in (("levels", levels), ("file", trained)) if wanted}
    return POLICIES.register(name, needs=needs, paper=paper)


def make_policy(name: str, choices: Choices, file: Path | None = None) -> Policy:
    """Return a policy for a ladder; raises UsageError for an unknown name, SourceError or PlanError for a file that does not fit."""
    return POLICIES[name].function(choices, file)
