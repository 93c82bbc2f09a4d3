"""`secateur verify` finds what was changed, and is a gate."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.cli.command import Secateur, json_of
from tests.conftest import Maker


@pytest.mark.parametrize("damage", ["bytes", "zeros", "missing"])
def test_verify_finds_what_was_changed_after_writing(
    secateur: Secateur, tiny: Maker, tmp_path: Path, damage: str
) -> None:
    from safetensors.torch import load_file, save_file

    out = tmp_path / "out"
    json_of(
        secateur("prune", tiny("llama"), "-o", out, "--sparsity", "0.5", "--method", "magnitude", "--json")
    )
    shard = out / "model-00002-of-00004.safetensors"
    if damage == "missing":
        (out / "secateur.json").write_text("{}")
    if damage == "bytes":
        shard.write_bytes(shard.read_bytes()[:-1] + b"\x01")
    if damage == "zeros":
        save_file(
            {name: tensor + 1 for name, tensor in load_file(shard).items()}, shard, metadata={"format": "pt"}
        )
        (out / "secateur.json").unlink()
    code, _, err = secateur("verify", out)
    assert (code, len(err.splitlines())) == (2 if damage == "missing" else 3, 1)


def test_max_kl_is_a_gate(secateur: Secateur, tiny: Maker, tmp_path: Path) -> None:
    json_of(
        secateur(
            "prune",
            tiny("llama"),
            "-o",
            tmp_path / "out",
            "--sparsity",
            "0.9",
            "--method",
            "random",
            "--json",
        )
    )
    code, _, err = secateur("verify", tmp_path / "out", "--reference", tiny("llama"), "--max-kl", "1e-9")
    assert (code, len(err.splitlines())) == (3, 1)


def test_max_kl_needs_a_model_to_compare_with(secateur: Secateur, tiny: Maker) -> None:
    code, out, err = secateur("verify", tiny("llama"), "--max-kl", "1e-9")
    assert (code, out) == (2, "")
    assert err == "error: --max-kl would do nothing here: add --reference\n"
