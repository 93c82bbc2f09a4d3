"""A small network that estimates the value of each action: stored in safetensors, run in numpy."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from secateur_runtime.errors import PolicyError
from secateur_runtime.files import refuse_existing, written_whole
from secateur_runtime.ladder_costs import Choices
from secateur_runtime.policies.observation_features import NAMES, Vector

Formulation = Literal["units", "level"]
_FORMAT = "secateur-policy-1"


@dataclass(frozen=True, kw_only=True)
class Network:
    """Linear layers with ReLU between them.

    ladder: digest of the ladder it was trained for. formulation: which game it was trained on.
    offset, scale: the first layer reads `(x - offset) * scale`.
    layers: weight `[out, in]` and bias `[out]` of each layer. trained: how it was trained, in words.
    """

    ladder: str
    formulation: Formulation
    offset: Vector
    scale: Vector
    layers: tuple[tuple[Vector, Vector], ...]
    trained: str = ""

    def __call__(self, seen: Vector) -> Vector:
        """Return the value of each action, `[actions]`."""
        found = (seen - self.offset) * self.scale
        for number, (weight, bias) in enumerate(self.layers):
            found = weight @ (np.maximum(found, 0) if number else found) + bias
        return found

    @property
    def parameters(self) -> int:
        """Number of weights and biases."""
        return sum(weight.size + bias.size for weight, bias in self.layers)

    def save(self, path: Path, *, overwrite: bool = False) -> None:
        """Write the network so that the file exists whole or not at all.

        Raises OutputError if it cannot be written.
        """
        refuse_existing(path, overwrite=overwrite)
        tensors = {"offset": self.offset, "scale": self.scale}
        for number, (weight, bias) in enumerate(self.layers):
            tensors |= {f"{number}.weight": weight, f"{number}.bias": bias}
        metadata = {
            "format": _FORMAT,
            "ladder": self.ladder,
            "formulation": self.formulation,
            "features": json.dumps(NAMES),
            "trained": self.trained,
        }
        content = save({name: np.ascontiguousarray(array) for name, array in tensors.items()}, metadata)
        with written_whole(path) as scratch:
            scratch.write_bytes(_in_order(content))


def _in_order(content: bytes) -> bytes:
    """Return a safetensors file with its metadata sorted; safetensors writes it in random order."""
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    # As safetensors does: numbers lie at multiples of 8 bytes.
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[8 + size :]


def load_network(path: Path, choices: Choices) -> Network:
    """Return the network of a file.

    Raises PolicyError if the file holds no network, is damaged, or was trained for another ladder.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise PolicyError(
            f"cannot read {path}: {getattr(error, 'strerror', None) or 'it is no whole safetensors file'}"
        ) from None
    if (
        metadata.get("format") != _FORMAT
        or metadata.get("features") != json.dumps(NAMES)
        or metadata.get("formulation") not in ("units", "level")
    ):
        raise PolicyError(f"{path} is no policy of this version: train one with `secateur adapt train`")
    if metadata.get("ladder") != choices.ladder:
        raise PolicyError(f"{path} was trained for another ladder: train one with `secateur adapt train`")
    count = len(choices.units)
    formulation: Formulation = "units" if metadata["formulation"] == "units" else "level"
    sizes = len(NAMES) + (1 + count if formulation == "units" else 0), count + 1
    layers = [
        (tensors.get(f"{number}.weight"), tensors.get(f"{number}.bias"))
        for number in range((len(tensors) - 2) // 2)
    ]
    if not _fit(layers, (tensors.get("offset"), tensors.get("scale")), *sizes):
        raise PolicyError(f"{path} is damaged: its tensors do not fit together")
    return Network(
        ladder=choices.ladder,
        formulation=formulation,
        offset=tensors["offset"],
        scale=tensors["scale"],
        layers=tuple((weight, bias) for weight, bias in layers if weight is not None and bias is not None),
        trained=metadata.get("trained", ""),
    )


def _fit(
    layers: list[tuple[Vector | None, Vector | None]],
    scaling: tuple[Vector | None, Vector | None],
    seen: int,
    actions: int,
) -> bool:
    """Return whether the tensors form a finite network from `seen` inputs to `actions` outputs."""
    width = seen
    if not layers or any(
        one is None or one.shape != (seen,) or not np.isfinite(one).all() for one in scaling
    ):
        return False
    for weight, bias in layers:
        if (
            weight is None
            or bias is None
            or weight.ndim != 2
            or weight.shape[1] != width
            or bias.shape != weight.shape[:1]
        ):
            return False
        if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
            return False
        width = weight.shape[0]
    return width == actions
