"""The recovery methods by name: what each trains, how fast, and which packages it needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Trains = Literal["all", "lora", "bias", "scales"]
"""What `Distill` trains: all weights, adapters, biases, or the scales of a quantized model."""


@dataclass(frozen=True, slots=True)
class RecoveryMethod:
    """One row of the table.

    trains: what it trains of a whole model; None for a method that trains one sub-block at a time.
    rate: highest learning rate unless the user gives one.
    packages: what must be installed, all part of the extra `recover`.
    """

    trains: Trains | None
    rate: float
    packages: tuple[str, ...] = ()


METHODS: Mapping[str, RecoveryMethod] = {
    "local": RecoveryMethod(None, 0.0175),
    "distill": RecoveryMethod("all", 5e-4, ("accelerate",)),
    "lora": RecoveryMethod("lora", 2e-3, ("accelerate", "peft")),
    "bias": RecoveryMethod("bias", 1e-3, ("accelerate",)),
    "scales": RecoveryMethod("scales", 2e-3, ("accelerate",)),
}

WHOLE_MODEL = tuple(name for name, method in METHODS.items() if method.trains)
"""Names of the methods that train a whole model."""


def method_training(trains: Trains) -> str:
    """Return the name of the method that trains `trains` of a whole model."""
    return next(name for name, method in METHODS.items() if method.trains == trains)
