"""`secateur export`: a file or a folder, and what belongs to which."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.cli.command import Secateur, json_of
from tests.conftest import Maker


def test_a_file_that_was_not_verified_says_so(secateur: Secateur, tiny: Maker, tmp_path: Path) -> None:
    out = tmp_path / "a.gguf"
    code, printed, error = secateur("export", tiny("llama"), "-o", out, "--type", "F32", "--no-verify")
    assert code == 0
    # A narrow terminal breaks a long path into lines.
    assert f"wrote{out}" in "".join(printed.split())
    assert "f32" in printed
    assert "was NOT verified" in error
    assert out.read_bytes()[:4] == b"GGUF"


def test_figures_of_a_file(secateur: Secateur, tiny: Maker, tmp_path: Path) -> None:
    out = tmp_path / "a.gguf"
    body = json_of(secateur("export", tiny("llama"), "-o", out, "--no-verify", "--json"))
    assert {name: body[name] for name in ("type", "bytes", "blocks", "verified", "kl")} == {
        "type": "f16",
        "bytes": out.stat().st_size,
        "blocks": 3,
        "verified": False,
        "kl": None,
    }


def test_a_folder_without_zeros_and_back(secateur: Secateur, tiny: Maker, tmp_path: Path) -> None:
    pruned = tmp_path / "pruned"
    json_of(
        secateur("prune", tiny("llama"), "-o", pruned, "--method", "magnitude", "--sparsity", "0.5", "--json")
    )
    body = json_of(secateur("export", pruned, "-o", tmp_path / "sparse", "--type", "Sparse-BF16", "--json"))
    assert (body["type"], body["sparsity"]) == ("sparse-bf16", 0.5)
    assert body["share_of_dense"] == round(body["sparse_bytes"] / body["dense_bytes"], 4) < 1
    back = json_of(
        secateur("export", tmp_path / "sparse", "-o", tmp_path / "dense", "--type", "dense", "--json")
    )
    assert "sparse_weights" not in back
    assert json_of(secateur("verify", tmp_path / "dense", "--json"))["verdict"] == "ok"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--group", "32"], "--group belongs to --type sparse-int8 and sparse-int4: leave it out"),
        (["--format", "ggfu"], "unknown --format 'ggfu' (did you mean gguf?); known: dense, gguf, sparse"),
        (["--type", "q8_1"], "q8_1"),
        (["--type", "sparse-int9"], "sparse-int9"),
    ],
)
def test_a_mistake_is_one_line(
    secateur: Secateur, tiny: Maker, tmp_path: Path, options: list[str], message: str
) -> None:
    code, out, error = secateur("export", tiny("llama"), "-o", tmp_path / "a", *options)
    assert (code, out, error.count("\n")) == (2, "", 1)
    assert message in error
    assert not list(tmp_path.iterdir())
