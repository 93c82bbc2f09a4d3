"""Policies, one per file: what is sensed in, what goes out of the model out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from secateur_runtime.ladder_costs import Choices, Decision, Observation
from secateur_runtime.registry import Registry

__all__ = [
    "AUTO",
    "POLICIES",
    "Choices",
    "Decision",
    "Observation",
    "Policy",
    "make_policy",
    "policy",
    "usual",
]


class Policy(Protocol):
    """Decides what goes; what it decides fits whenever anything of its kind fits, except for `none` and `threshold`.

    Takes under a millisecond, keeps no state that a later decision needs to be right, and never raises for a valid observation.
    """

    def __call__(self, seen: Observation) -> Decision:
        """Return what is to be taken out of the model."""


Maker = Callable[[Choices, Path | None], Policy]
"""Makes a policy for one ladder; the file is of a trained network, for those that need one."""

POLICIES: Registry[Maker] = Registry("policy", "secateur_runtime.policies")
AUTO = "auto"
"""What is asked for where the ladder is to decide who decides; see `usual`."""


def usual(*, priced: bool) -> str:
    """Return the policy that did best by our measurements.

    On a ladder whose steps were priced, or on one that holds measured levels alone.
    """
    return "cost-aware" if priced else "greedy"


def policy(name: str, *, levels: bool, trained: bool = False, paper: str = "") -> Callable[[Maker], Maker]:
    """Return a decorator that registers the maker of a policy.

    levels: whether all it chooses are levels of the ladder. trained: whether it needs a file of a network.
    """
    needs = {word for word, wanted in (("levels", levels), ("file", trained)) if wanted}
    return POLICIES.register(name, needs=needs, paper=paper)


def make_policy(name: str, choices: Choices, file: Path | None = None) -> Policy:
    """Return a policy for a ladder.

    Raises UsageError for an unknown name, SourceError or PlanError for a file that does not fit.
    """
    return POLICIES[name].function(choices, file)
