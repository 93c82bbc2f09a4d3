"""Train a policy network by deep Q-learning, and keep the best one seen during training."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from secateur.adapt.replay.reward import observed, quality_left
from secateur.adapt.replay.traces import SCENARIOS, Moment, synthetic
from secateur.core.progress import Progress
from secateur_runtime.errors import MissingExtraError
from secateur_runtime.ladder_costs import Choices
from secateur_runtime.policies import Policy
from secateur_runtime.policies.dqn import follow
from secateur_runtime.policies.observation_features import NAMES, Vector
from secateur_runtime.policies.q_network import Formulation, Network

if TYPE_CHECKING:
    import gymnasium

MOST_PARAMETERS = 18_000
"""Most parameters of a network; RAP's agent has about as many (arXiv:2505.17138)."""
MOST_SHARE = 1e-4
"""Largest cost of one pass as a share of the operations of one token."""
WIDEST = 128
BUDGETS = (0.4, 1.05)
_JUDGED = 8
_LOOKS = 20
_SELDOM = 500
_SAMPLED = 2_000
_WORTH = 10.0


@dataclass(frozen=True, slots=True)
class TrainedPolicy:
    """The best network of a training.

    quality: mean of `quality_left` on moments that it was not trained on. curve: steps and quality of every
    network that was evaluated.
    """

    network: Network
    quality: float
    curve: tuple[tuple[int, float], ...]


def require_training() -> None:
    """Raise MissingExtraError unless gymnasium and stable-baselines3 are installed."""
    if any(importlib.util.find_spec(name) is None for name in ("gymnasium", "stable_baselines3")):
        raise MissingExtraError(
            "training a policy needs gymnasium and stable-baselines3: pip install 'secateur[adapt]'"
        )


def train(
    choices: Choices,
    *,
    formulation: Formulation = "units",
    steps: int = 100_000,
    seed: int = 0,
    progress: Progress,
) -> TrainedPolicy:
    """Return a network trained on synthetic traces with bursts, at budgets of 40 to 105 % of the need.

    It has one hidden layer of `hidden_width`. The same seed gives the same network. Raises
    MissingExtraError without the extra `adapt`.
    """
    require_training()
    from stable_baselines3 import DQN

    game = _game(choices, formulation)
    offset, scale = _scaling(game, seed)
    agent = DQN(
        "MlpPolicy",
        _scaled(game, offset, scale),
        seed=seed,
        device="cpu",
        **_settings(choices, formulation, steps),
    )
    every = max(_SELDOM, steps // _LOOKS)
    watcher = _Watcher(
        choices,
        formulation,
        offset,
        scale,
        held_out(choices, seed),
        every,
        f"DQN, {formulation}, seed {seed}",
        progress,
    )
    progress.start("train", -(-steps // every))
    agent.learn(steps, callback=watcher)
    watcher.look(agent)
    network, quality = watcher.best
    return TrainedPolicy(network, quality, tuple(watcher.curve))


def mean_quality(choices: Choices, policy: Policy, moments: Sequence[Moment]) -> float:
    """Return the mean quality that a policy leaves, each moment decided from the whole model."""
    whole = np.zeros(len(choices.units), dtype=bool)
    seen = [observed(moment, choices, whole) for moment in moments]
    return float(
        np.mean(
            [
                quality_left(choices, choices.mask(decision.units), one)
                for one in seen
                for decision in [policy(one)]
            ]
        )
    )


def held_out(choices: Choices, seed: int) -> list[Moment]:
    """Return moments that training with this seed does not see.

    They are the ten scenarios at eight budgets from 40 to 105 % of the need.
    """
    budgets = np.linspace(*BUDGETS, _JUDGED)
    return [
        moment
        for number, budget in enumerate(budgets)
        for moment in _trace(choices, np.random.default_rng([seed, 1, number]), float(budget))
    ]


def hidden_width(choices: Choices, formulation: Formulation) -> int:
    """Return the width of the hidden layer.

    It is 128, or less to stay within 18,000 parameters and 0.01 % of the operations of a token; at least 8.
    """
    actions = len(choices.units) + 1
    seen = len(NAMES) + (actions if formulation == "units" else 0)
    most = min(MOST_PARAMETERS, int(MOST_SHARE * choices.flops[0] / 2))
    return max(8, min(WIDEST, (most - actions) // (seen + 1 + actions)))


@dataclass
class _Watcher:
    """A callback that evaluates the network every `every` steps and keeps the best one."""

    choices: Choices
    formulation: Formulation
    offset: Vector
    scale: Vector
    moments: Sequence[Moment]
    every: int
    trained: str
    progress: Progress
    curve: list[tuple[int, float]] = field(default_factory=list)
    best: tuple[Network, float] = field(init=False)

    def __call__(self, local: dict[str, Any], _: dict[str, Any]) -> bool:
        """Evaluate the network if it is due; always continue the training."""
        agent = local["self"]
        if agent.num_timesteps % self.every == 0:
            self.look(agent)
        return True

    def look(self, agent: Any) -> None:
        """Evaluate the network, and keep it if it is the best so far."""
        if self.curve and self.curve[-1][0] == agent.num_timesteps:
            return
        said = f"{self.trained}, {agent.num_timesteps} steps"
        network = Network(
            ladder=self.choices.ladder,
            formulation=self.formulation,
            offset=self.offset,
            scale=self.scale,
            layers=layers_of(agent),
            trained=said,
        )
        quality = mean_quality(self.choices, follow(self.choices, network), self.moments)
        if not self.curve or quality > self.best[1]:
            self.best = (network, quality)
        self.curve.append((agent.num_timesteps, quality))
        self.progress.step(f"quality {quality:.4f}")


def layers_of(agent: Any) -> tuple[tuple[Vector, Vector], ...]:
    """Return weight and bias of each linear layer of a DQN agent's network."""
    state = agent.q_net.q_net.state_dict()
    numbers = sorted({int(name.partition(".")[0]) for name in state})
    return tuple(
        (state[f"{number}.weight"].cpu().numpy().copy(), state[f"{number}.bias"].cpu().numpy().copy())
        for number in numbers
    )


def _game(choices: Choices, formulation: Formulation) -> gymnasium.Env[Vector, np.int64]:
    from secateur.adapt.training.environment import LevelGame, UnitGame

    def traces(seed: int) -> list[Moment]:
        random = np.random.default_rng([seed, 0])
        return _trace(choices, random, float(random.uniform(*BUDGETS)))

    return UnitGame(choices, traces) if formulation == "units" else LevelGame(choices, traces)


def _trace(choices: Choices, random: np.random.Generator, budget: float) -> list[Moment]:
    """Return the ten scenarios once, under a budget that moves in bursts."""
    return synthetic(
        "bursts", choices.whole, budget=budget, requests=len(SCENARIOS), seed=int(random.integers(2**31))
    )


def _scaling(game: gymnasium.Env[Vector, np.int64], seed: int) -> tuple[Vector, Vector]:
    """Return the mean and the inverse standard deviation of observations at the start of episodes.

    Constant inputs, such as the mask of removed steps, keep the scale 1.
    """
    seen = np.array([game.reset(seed=seed if number == 0 else None)[0] for number in range(_SAMPLED)])
    offset = seen.mean(0)
    deviation = seen.std(0)
    scale = np.where(deviation > 1e-6, 1 / np.maximum(deviation, 1e-6), 1.0)
    return offset.astype(np.float32), scale.astype(np.float32)


def _scaled(
    game: gymnasium.Env[Vector, np.int64], offset: Vector, scale: Vector
) -> gymnasium.Env[Vector, np.int64]:
    """Return the game with standardized observations, and rewards larger than untrained outputs."""
    from gymnasium.wrappers import TransformObservation, TransformReward

    return TransformReward(
        TransformObservation(game, lambda seen: (seen - offset) * scale, game.observation_space),
        lambda reward: _WORTH * float(reward),
    )


def _settings(choices: Choices, formulation: Formulation, steps: int) -> dict[str, Any]:
    """Return the settings of stable-baselines3's DQN.

    Choosing a level has no later consequences, so that formulation uses a discount of 0.
    """
    return {
        "gamma": 1.0 if formulation == "units" else 0.0,
        "learning_rate": lambda left: 1e-3 * left + 1e-5,
        "buffer_size": min(steps, 100_000),
        "learning_starts": min(1_000, steps // 4),
        "batch_size": 128,
        "target_update_interval": 500,
        "exploration_fraction": 0.4,
        "exploration_final_eps": 0.03,
        "policy_kwargs": {"net_arch": [hidden_width(choices, formulation)]},
    }
