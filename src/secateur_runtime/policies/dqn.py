"""A policy that follows a trained Q-network, run in numpy."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from secateur_runtime.errors import UsageError
from secateur_runtime.policies import Choices, Decision, Observation, Policy, policy
from secateur_runtime.policies.observation_features import Vector, features, still_missing
from secateur_runtime.policies.q_network import Network, load_network


@policy("dqn", levels=False, trained=True, paper="arXiv:2505.17138")
def dqn(choices: Choices, file: Path | None) -> Policy:
    """Take the possible action that a network trained by `secateur adapt train` values most.

    It does not stop before the model fits and stops as soon as it does. A level that does not fit is
    skipped if another one fits.
    """
    if file is None:
        raise UsageError("the policy dqn needs the file of its network: make one with `secateur adapt train`")
    return follow(choices, load_network(file, choices))


def follow(choices: Choices, network: Network) -> Policy:
    """Return the policy that takes the action which a network values most."""
    return _by_units(choices, network) if network.formulation == "units" else _by_level(choices, network)


def _by_level(choices: Choices, network: Network) -> Policy:
    def decide(seen: Observation) -> Decision:
        needs = choices.needs(seen)
        worth = np.where(needs <= seen.available, network(features(choices, seen)), -np.inf)
        return choices.level(int(worth.argmax() if np.isfinite(worth).any() else needs.argmin()), seen)

    return decide


def _by_units(choices: Choices, network: Network) -> Policy:
    (first, bias), *rest = network.layers
    count = len(choices.units)
    start = first.shape[1] - count
    columns = (first * network.scale)[:, start:].T.copy()
    after = {before: index for index, before in enumerate(choices.before) if before is not None}

    def decide(seen: Observation) -> Decision:
        removed = np.zeros(count, dtype=bool)
        closed = np.array([before is not None for before in choices.before])
        missing = choices.missing(seen)
        frees = choices.frees(seen)
        whole = missing + seen.available
        seen_now = np.concatenate([features(choices, seen), still_missing(choices, seen, removed)])
        # Taking a step changes two inputs, so the output of the first layer is updated, not computed again.
        hidden = first @ ((seen_now - network.offset) * network.scale) + bias
        share = first[:, start - 1] * network.scale[start - 1]
        taken: list[int] = []
        while missing > 0 and len(taken) < count:
            worth = _remaining_layers(hidden, rest)[:count]
            index = int(np.where(closed, -np.inf, worth).argmax())
            taken.append(index)
            closed[index] = True
            if index in after:
                closed[after[index]] = False
            missing -= frees[index]
            hidden = hidden + columns[index] - share * np.float32(frees[index] / whole)
        return choices.decide(taken, seen)

    return decide


def _remaining_layers(hidden: Vector, layers: list[tuple[Vector, Vector]]) -> Vector:
    for weight, bias in layers:
        hidden = weight @ np.maximum(hidden, 0) + bias
    return hidden
