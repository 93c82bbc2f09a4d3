"""A run that is stored and restored continues bit by bit as one that was not interrupted."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from secateur.train import training_state

Run = tuple[dict[str, nn.Parameter], torch.optim.Optimizer]


def started() -> Run:
    """Return two parameters, one with a name that begins like the other's, and their optimizer."""
    draw = torch.Generator().manual_seed(0)
    parameters = {
        name: nn.Parameter(torch.randn(3, 4, generator=draw)) for name in ("a.weight", "a.weight.more")
    }
    return parameters, torch.optim.AdamW(parameters.values(), lr=0.1)


def step(run: Run) -> None:
    """Take a step towards random targets."""
    parameters, optimizer = run
    optimizer.zero_grad()
    for parameter in parameters.values():
        (parameter - torch.randn(3, 4)).square().sum().backward()
    optimizer.step()


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    torch.manual_seed(5)
    whole = started()
    for _ in range(2):
        step(whole)
    path = tmp_path / "state.safetensors"
    training_state.save(path, training_state.of_training(*whole), {"step": 2, "best": 0.5})
    for _ in range(3):
        step(whole)
    torch.manual_seed(99)
    resumed = started()
    stored, facts = training_state.load(path)
    training_state.restore(*resumed, stored)
    assert facts == {"step": 2, "best": 0.5}
    for _ in range(3):
        step(resumed)
    for name, parameter in whole[0].items():
        assert torch.equal(parameter, resumed[0][name])


def test_one_tensor_can_be_read_alone(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    training_state.save(path, {"a": torch.arange(3), "b": torch.ones(2, 2).T}, {})
    assert torch.equal(training_state.read(path, "a"), torch.arange(3))
    assert training_state.load(path)[0].keys() == {"a", "b"}


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    training_state.save(path, {"a": torch.arange(3)}, {"step": 1})
    before = path.read_bytes()
    with pytest.raises(TypeError):
        training_state.save(path, {"a": torch.arange(9)}, {"step": object()})
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
