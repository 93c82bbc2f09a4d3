"""Replay one trace with several policies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from secateur.adapt.replay.reward import observed
from secateur.adapt.replay.simulate import Simulated, simulate
from secateur.adapt.replay.speed_model import Roofline
from secateur.adapt.replay.static_policy import always, static_plan
from secateur.adapt.replay.traces import KINDS, Kind, Moment, read_trace, synthetic
from secateur.core.progress import Progress
from secateur_runtime.errors import UsageError, nearest
from secateur_runtime.ladder_costs import Choices
from secateur_runtime.policies import POLICIES, Policy, make_policy, untrained

STATIC = "static"
"""The word for the best single plan for a trace."""
ALL = "all"
"""The word for every policy."""


def trace_of(
    name: str, choices: Choices, *, budget: float, requests: int, seed: int, per: str
) -> list[Moment]:
    """Return the trace of a `.jsonl` file, or a synthetic one of the kind `name`.

    Raises UsageError for an unknown kind, TraceError for a bad file.
    """
    if name.endswith(".jsonl"):
        return read_trace(Path(name))
    if per not in ("request", "device"):
        raise UsageError(
            f"--per {per}: memory is a share of what each `request` needs, or of the largest on a `device`"
        )
    kind: Kind | None = next((kind for kind in KINDS if kind == name), None)
    if kind is None:
        raise UsageError(
            f"unknown trace {name!r}{nearest(name, KINDS)}; known: {', '.join(KINDS)}, or a .jsonl file"
        )
    return synthetic(
        kind,
        choices.whole,
        budget=budget,
        requests=requests,
        seed=seed,
        per="device" if per == "device" else "request",
    )


def policies_of(
    names: Sequence[str], choices: Choices, moments: Sequence[Moment], file: Path | None
) -> dict[str, Policy]:
    """Return the policies by name.

    names: `static` is the best single plan for this very trace, `all` every policy that `file` is enough for.
    file: network of trained policies. Raises UsageError for an unknown one.
    """
    whole = np.zeros(len(choices.units), dtype=bool)
    found: dict[str, Policy] = {}
    every = [*(POLICIES if file else untrained()), STATIC]
    wanted = [each for given in names for each in (every if given == ALL else [given])]
    for name in dict.fromkeys(wanted):
        if name == STATIC:
            found[name] = always(
                choices, static_plan(choices, [observed(moment, choices, whole) for moment in moments])
            )
        elif name not in POLICIES:
            raise UsageError(
                f"unknown policy {name!r}{nearest(name, [*POLICIES, STATIC])}; known:"
                f" {', '.join([*POLICIES, STATIC])}"
            )
        else:
            found[name] = make_policy(name, choices, file)
    return found


def replay(
    choices: Choices,
    policies: Mapping[str, Policy],
    moments: Sequence[Moment],
    speed: Roofline,
    losses: Mapping[frozenset[str], float],
    progress: Progress,
) -> Iterator[Simulated]:
    """Yield the run of each policy over the trace.

    losses: measured losses by the set of removed units.
    """
    progress.start("replay", len(policies))
    for name, policy in policies.items():
        yield simulate(choices, name, policy, moments, speed, losses)
        progress.step(name)
