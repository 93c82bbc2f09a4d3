"""`secateur inspect` counts what the files hold."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tests.cli.command import Secateur, json_of
from tests.conftest import Maker


def test_figures_are_those_of_the_file(secateur: Secateur, tiny: Maker, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny("llama"), model)
    tensors = load_file(model / "model.safetensors")
    name = "model.layers.1.mlp.down_proj.weight"
    tensors[name] = torch.where(torch.arange(tensors[name].shape[1]) % 4 == 0, 0.0, 1.0).expand_as(
        tensors[name]
    )
    tensors[name] = tensors[name].contiguous()
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    body = json_of(secateur("inspect", model, "--json"))
    assert body["parameters"] == sum(tensor.numel() for tensor in tensors.values())
    assert body["bytes_as_bfloat16"] == 2 * body["parameters"]
    rows = {row["tensor"]: row for row in body["tensors"]}
    assert rows.keys() == tensors.keys()
    assert rows[name] == {
        "tensor": name,
        "shape": list(tensors[name].shape),
        "dtype": rows[name]["dtype"],
        "sparsity": 0.25,
    }
    prunable = [one for one in tensors if one.endswith("_proj.weight")]
    zeros = sum(int((tensors[one] == 0).sum()) for one in prunable)
    assert body["prunable_parameters"] == sum(tensors[one].numel() for one in prunable)
    assert body["sparsity_of_prunable"] == round(zeros / body["prunable_parameters"], 5)


def test_equal_blocks_share_a_line(secateur: Secateur, tiny: Maker, tmp_path: Path) -> None:
    code, out, _ = secateur("inspect", tiny("phi3"), "--tensors")
    assert code == 0
    assert "qkv_proj" in out
    assert any(line.split()[:1] == ["0-2"] for line in out.splitlines())
    narrow = [
        "--method",
        "width",
        "--ratio",
        "0.4",
        "--layers",
        "1",
        "--align",
        "8",
        "--criterion",
        "magnitude",
    ]
    done = secateur("prune", tiny("llama"), "-o", tmp_path / "out", *narrow, "--repair", "none")
    assert done[0] == 0, done[2]
    blocks = [
        line.split()[0] for line in secateur("inspect", tmp_path / "out")[1].splitlines() if "FFN" not in line
    ]
    assert [word for word in blocks if word in ("0", "1", "2", "0-2")] == ["0", "1", "2"]


def test_a_missing_model_is_one_line(secateur: Secateur, tmp_path: Path) -> None:
    code, out, error = secateur("inspect", tmp_path / "none")
    assert (code, out, error.count("\n")) == (2, "", 1)
    assert "does not exist" in error
