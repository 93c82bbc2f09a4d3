"""What a run needs to resume after a kill: safetensors and JSON, each written whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from secateur_runtime.files import written_whole

_RANDOM = "random"


def save(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write tensors and plain data to one file that exists whole or not at all."""
    with written_whole(path) as scratch:
        save_file(
            {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()},
            scratch,
            metadata={"facts": json.dumps(facts)},
        )
        with scratch.open("rb") as handle:
            os.fsync(handle.fileno())


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return what `save` wrote."""
    with safe_open(path, framework="pt") as file:
        facts = json.loads(file.metadata()["facts"])
        return {name: file.get_tensor(name) for name in file.keys()}, facts  # noqa: SIM118 - not a mapping


def read(path: Path, name: str) -> Tensor:
    """Return one of the tensors that `save` wrote."""
    with safe_open(path, framework="pt") as file:
        found: Tensor = file.get_tensor(name)
        return found


def of_training(
    parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer
) -> dict[str, Tensor]:
    """Return the trained weights, the optimizer's state of each, and the state of the random numbers."""
    found: dict[str, Tensor] = {_RANDOM: torch.get_rng_state()}
    for name, parameter in parameters.items():
        found[f"weight/{name}"] = parameter
        found |= {f"{key}/{name}": value for key, value in optimizer.state.get(parameter, {}).items()}
    return found


@torch.no_grad()
def restore(
    parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer, stored: Mapping[str, Tensor]
) -> None:
    """Put back what `of_training` returned."""
    torch.set_rng_state(stored[_RANDOM])
    for name, parameter in parameters.items():
        parameter.copy_(stored[f"weight/{name}"])
        keys = [
            key.partition("/")
            for key in stored
            if key.partition("/")[2] == name and not key.startswith("weight/")
        ]
        optimizer.state[parameter] = {key: stored[f"{key}/{name}"].to(parameter.device) for key, _, _ in keys}
