"""Policies, one per file: an observation in, the parts to remove out."""

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
    "untrained",
    "usual",
]


class Policy(Protocol):
    """Decides which parts of a model to remove.

    The decision fits whenever any decision of that kind fits, unless it is registered otherwise. A policy
    takes under a millisecond, keeps no state that later decisions depend on, and never raises for a valid
    observation.
    """

    def __call__(self, seen: Observation) -> Decision:
        """Return what to remove from the model."""


Maker = Callable[[Choices, Path | None], Policy]
"""Makes a policy for one ladder; the file holds a trained network, for policies that need one."""

POLICIES: Registry[Maker] = Registry(
    "policy", "secateur_runtime.policies", "secateur.policies", needs={"levels", "file"}
)
AUTO = "auto"
"""The name that selects a policy by the kind of ladder; see `usual`."""


def usual(*, priced: bool) -> str:
    """Return the name of the policy that did best in our measurements.

    priced: whether the ladder holds a price for every step, or only measured levels.
    """
    return "cost-aware" if priced else "greedy"


def policy(
    name: str, *, levels: bool, trained: bool = False, fits: bool = True, paper: str = ""
) -> Callable[[Maker], Maker]:
    """Return a decorator that registers the maker of a policy.

    levels: whether it only chooses levels of the ladder. trained: whether it needs the file of a network.
    fits: whether its decision fits whenever any decision of that kind does.
    """
    needs = {word for word, wanted in (("levels", levels), ("file", trained)) if wanted}
    return POLICIES.register(name, needs=needs, paper=paper, trait=fits)


def untrained(*, fits: bool = False) -> list[str]:
    """Return the names of the policies that need no file; fits: only those that fit whenever any does."""
    return [
        name for name, entry in POLICIES.items() if "file" not in entry.needs and (entry.trait or not fits)
    ]


def make_policy(name: str, choices: Choices, file: Path | None = None) -> Policy:
    """Return a policy for a ladder.

    Raises UsageError for an unknown name, SourceError or PlanError for a file that does not fit.
    """
    return POLICIES[name].function(choices, file)
