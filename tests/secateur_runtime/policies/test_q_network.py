"""The file of a network: written, read back, and refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save_file
from tests.adapt.ladders import choices_of

from secateur_runtime.errors import OutputError, PolicyError, SecateurError, UsageError
from secateur_runtime.ladder_costs import Choices
from secateur_runtime.policies import make_policy
from secateur_runtime.policies.observation_features import NAMES
from secateur_runtime.policies.q_network import Formulation, Network, load_network

CHOICES = choices_of(
    ["1.ffn:64", "2.attn", "1.ffn"], [(400, 0), (100, 200), (600, 0)], [0.1, 0.3, 0.2], [2.0, 2.1, 2.5, 3.0]
)


def network_for(choices: Choices, formulation: Formulation, *, hidden: int = 5, seed: int = 0) -> Network:
    random, actions = np.random.default_rng(seed), len(choices.units) + 1
    seen = len(NAMES) + (actions if formulation == "units" else 0)

    def draw(*shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        return random.normal(size=shape).astype(np.float32)

    layers = ((draw(hidden, seen), draw(hidden)), (draw(actions, hidden), draw(actions)))
    return Network(
        ladder=choices.ladder,
        formulation=formulation,
        offset=draw(seen),
        scale=draw(seen),
        layers=layers,
        trained="by hand",
    )


@pytest.mark.parametrize("formulation", ["units", "level"])
def test_a_network_reads_back_as_it_was_written(formulation: Formulation, tmp_path: Path) -> None:
    network = network_for(CHOICES, formulation)
    network.save(tmp_path / "policy.safetensors")
    again = load_network(tmp_path / "policy.safetensors", CHOICES)
    seen = np.linspace(-1, 1, len(network.offset), dtype=np.float32)
    assert again(seen).tolist() == network(seen).tolist()
    assert (again.parameters, again.trained, again.formulation) == (
        network.parameters,
        "by hand",
        formulation,
    )
    with pytest.raises(OutputError, match="exists"):
        network.save(tmp_path / "policy.safetensors")


def test_a_file_is_the_same_byte_for_byte(tmp_path: Path) -> None:
    written = []
    for number in range(8):
        network_for(CHOICES, "units").save(tmp_path / f"{number}.safetensors")
        written.append((tmp_path / f"{number}.safetensors").read_bytes())
    assert len(set(written)) == 1
    with safe_open(tmp_path / "0.safetensors", framework="numpy") as file:
        assert sorted(file.metadata()) == ["features", "format", "formulation", "ladder", "trained"]


def test_the_outputs_are_those_of_the_formula() -> None:
    network = network_for(CHOICES, "level")
    seen = np.arange(9, dtype=np.float64)
    (first, bias), (second, last) = [
        (weight.astype(np.float64), offset.astype(np.float64)) for weight, offset in network.layers
    ]
    inner = first @ ((seen - network.offset) * network.scale) + bias
    assert network(seen.astype(np.float32)) == pytest.approx(second @ (inner * (inner > 0)) + last, rel=1e-5)


def test_a_file_for_another_ladder_is_refused(tmp_path: Path) -> None:
    network_for(CHOICES, "level").save(tmp_path / "policy.safetensors")
    with pytest.raises(PolicyError, match="trained for another ladder"):
        make_policy("dqn", replace(CHOICES, ladder="sha256:other"), tmp_path / "policy.safetensors")
    with pytest.raises(UsageError, match="needs the file of its network"):
        make_policy("dqn", CHOICES)


def test_what_is_no_network_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "policy.safetensors"
    with pytest.raises(PolicyError, match="cannot read"):
        load_network(path, CHOICES)
    save_file({"a": np.zeros(2, np.float32)}, path)
    with pytest.raises(PolicyError, match="no policy of this version"):
        load_network(path, CHOICES)
    for broken in (
        {"offset": np.zeros(3, np.float32)},
        {"layers": ()},
        {"layers": ((np.zeros((4, 9), np.float32), np.zeros(3, np.float32)),)},
        {"layers": ((np.zeros((5, 9), np.float32), np.zeros(5, np.float32)),)},
        {"layers": ((np.full((4, 9), np.nan, np.float32), np.zeros(4, np.float32)),)},
    ):
        replace(network_for(CHOICES, "level"), **broken).save(path, overwrite=True)
        with pytest.raises(PolicyError, match="damaged"):
            load_network(path, CHOICES)


@given(cut=st.integers(0, 600), flip=st.integers(0, 600))
def test_a_damaged_file_is_refused_or_whole(
    tmp_path_factory: pytest.TempPathFactory, cut: int, flip: int
) -> None:
    path = tmp_path_factory.mktemp("network") / "policy.safetensors"
    network_for(CHOICES, "level").save(path)
    body = bytearray(path.read_bytes())
    body[flip % len(body)] ^= 0x5A
    path.write_bytes(bytes(body[: len(body) - cut % 2 * cut]))
    try:
        load_network(path, CHOICES)
    except SecateurError as error:
        assert "\n" not in str(error)
