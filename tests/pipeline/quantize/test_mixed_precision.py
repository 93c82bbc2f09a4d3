"""Bits of each layer under a budget: it is met, and better than one width for all."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from tests.conftest import Maker
from tests.killed import killed_at
from tests.pipeline.quantize.quantized import contents, packed, quantize

import secateur
from secateur.pipeline.evaluate.verify import verify
from secateur.pipeline.quantize.quantize import Quantization
from secateur_runtime.errors import ExitCode, SecateurError

pytest.importorskip("compressed_tensors", reason="pip install 'secateur[quantize]'")


def test_bits_of_each_layer_meet_a_budget_and_beat_one_width(
    tiny: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many bytes as four bits everywhere would take; one block is made to matter more than the others."""
    whole = tmp_path / "model"
    shutil.copytree(tiny("llama"), whole)
    weights = load_file(whole / "model.safetensors")
    for name in weights:
        if ".0." in name and name.endswith("proj.weight"):
            weights[name] *= 3
    save_file(weights, whole / "model.safetensors", metadata={"format": "pt"})
    even = quantize(whole, tmp_path / "even", Quantization(bits=4))
    rest = even.parameters - sum(even.grids.values())
    budget = Quantization(target=f"size={4 * rest + sum(even.grids.values()) * 9 // 16}")
    made = quantize(whole, tmp_path / "out", budget)
    assert len(made.grids) > 1
    assert made.bits_per_weight <= 4.5
    grids = packed(tmp_path / "out").grids
    assert all(
        grids[f"model.layers.{index}.self_attn.q_proj.weight"]
        == grids[f"model.layers.{index}.self_attn.v_proj.weight"]
        for index in range(3)
    )
    assert verify(str(tmp_path / "out")).stock_difference <= 1e-5
    kls = [
        secateur.evaluate(str(tmp_path / name), window=64, count=8, reference=str(whole)).kl or 0.0
        for name in ("out", "even")
    ]
    assert kls[0] < kls[1]
    with killed_at(2):
        quantize(whole, tmp_path / "again", budget)
    monkeypatch.setattr("secateur.pipeline.quantize.quantize.allocate_bits", None)
    quantize(whole, tmp_path / "again", budget)
    assert contents(tmp_path / "again") == contents(tmp_path / "out")


@pytest.mark.parametrize(
    ("target", "message", "ends"),
    [
        ("size=100kB", r"out of reach: 3 bits everywhere take size=0\.2MB", ExitCode.FAILED),
        ("params=50%", "none that bits can meet", ExitCode.BAD_INPUT),
        ("size=x", "holds no amount", ExitCode.BAD_INPUT),
    ],
)
def test_budgets_that_cannot_be_met(
    tiny: Maker, tmp_path: Path, target: str, message: str, ends: ExitCode
) -> None:
    with pytest.raises(SecateurError, match=message) as caught:
        quantize(tiny("llama"), tmp_path / "out", Quantization(target=target))
    assert caught.value.exit_code == ends
