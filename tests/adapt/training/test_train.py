"""Training: the same seed twice, the same outputs without the library, better than not training at all."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.adapt.ladders import choices_of

from secateur.adapt.training.train import (
    MOST_PARAMETERS,
    held_out,
    hidden_width,
    layers_of,
    mean_quality,
    train,
)
from secateur.core.progress import Silent
from secateur_runtime.errors import MissingExtraError
from secateur_runtime.policies import make_policy
from secateur_runtime.policies.dqn import follow
from secateur_runtime.policies.q_network import Formulation, Network, load_network

CHOICES = choices_of(
    ["1.ffn", "2.attn", "3.ffn", "4.attn", "2.ffn"],
    [(2_000, 100), (500, 300), (2_000, 100), (500, 300), (2_000, 100)],
    [0.05, 0.4, 0.1, 0.02, 0.9],
    [2.0, 2.05, 2.5, 2.7, 2.8, 4.0],
)
# as many operations as a real model has, so that its network is as wide
CHOICES = replace(CHOICES, flops=CHOICES.flops * (2.69e8 / CHOICES.flops[0]))

needs_extra = pytest.mark.skipif(
    importlib.util.find_spec("stable_baselines3") is None, reason="stable-baselines3 is not installed"
)


@needs_extra
@pytest.mark.parametrize("formulation", ["units", "level"])
def test_the_same_seed_trains_the_same_network_and_it_learns(
    formulation: Formulation, tmp_path: Path
) -> None:
    one, same = (
        train(CHOICES, formulation=formulation, steps=700, seed=0, progress=Silent()) for _ in range(2)
    )
    for (weight, bias), (other, offset) in zip(one.network.layers, same.network.layers, strict=True):
        assert (weight == other).all()
        assert (bias == offset).all()
    moments = held_out(CHOICES, 0)
    assert (
        one.quality
        == mean_quality(CHOICES, follow(CHOICES, one.network), moments)
        == max(quality for _, quality in one.curve)
    )
    weight, bias = one.network.layers[-1]
    worst = replace(one.network, layers=(*one.network.layers[:-1], (-weight, -bias)))
    assert one.quality > mean_quality(CHOICES, follow(CHOICES, worst), moments) + 0.02
    one.network.save(tmp_path / "policy.safetensors")
    assert (
        mean_quality(CHOICES, make_policy("dqn", CHOICES, tmp_path / "policy.safetensors"), moments)
        == one.quality
    )


@needs_extra
def test_numpy_gives_what_the_library_gives(tmp_path: Path) -> None:
    import gymnasium
    import torch
    from stable_baselines3 import DQN

    class Still(gymnasium.Env[np.ndarray[tuple[int], np.dtype[np.float32]], np.int64]):
        observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (9,), np.float32)
        action_space = gymnasium.spaces.Discrete(6)

    agent = DQN("MlpPolicy", Still(), policy_kwargs={"net_arch": [7, 5]}, device="cpu", buffer_size=10)
    plain = np.zeros(9, np.float32), np.ones(9, np.float32)
    network = Network(
        ladder=CHOICES.ladder, formulation="level", offset=plain[0], scale=plain[1], layers=layers_of(agent)
    )
    network.save(tmp_path / "policy.safetensors")
    again = load_network(tmp_path / "policy.safetensors", CHOICES)
    for seen in np.random.default_rng(0).normal(size=(20, 9)).astype(np.float32):
        with torch.no_grad():
            theirs = agent.q_net(torch.from_numpy(seen)[None])[0].numpy()
        assert again(seen) == pytest.approx(theirs, abs=1e-6)


@pytest.mark.parametrize("count", [1, 10, 56, 200, 1000])
@pytest.mark.parametrize("formulation", ["units", "level"])
def test_a_network_stays_as_small_as_the_papers(count: int, formulation: Formulation) -> None:
    choices = choices_of(
        [f"{block}.ffn" for block in range(count)], [(1, 0)] * count, [0] * count, [1] * (count + 1)
    )
    choices = replace(choices, flops=np.full(count + 1, 2.69e8))
    width, actions = hidden_width(choices, formulation), count + 1
    seen = 9 + (actions if formulation == "units" else 0)
    parameters = (seen + 1) * width + (width + 1) * actions
    assert width == 8 or (parameters <= MOST_PARAMETERS and 2 * parameters <= 1e-4 * 2.69e8)
    assert count != 56 or width > 100


def test_without_the_extra_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'secateur\[adapt\]'"):
        train(CHOICES, progress=Silent())
