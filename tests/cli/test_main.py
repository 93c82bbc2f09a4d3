"""The whole command: verbs one after another."""

from __future__ import annotations

from pathlib import Path

from tests.cli.command import SMALL, Secateur, json_of
from tests.conftest import Maker


def test_prune_eval_verify_inspect(secateur: Secateur, tiny: Maker, tmp_path: Path) -> None:
    model, out = tiny("llama"), tmp_path / "out"
    pruned = json_of(
        secateur("prune", model, "-o", out, "--method", "wanda", "--sparsity", "0.5", *SMALL, "--json")
    )
    assert (pruned["sparsity"], pruned["criterion"], pruned["target"]) == (0.5, "wanda", "0.5")
    quality = json_of(secateur("eval", out, "--window", 64, "-n", 2, "--reference", model, "--json"))
    assert quality["kl"] > 0
    assert quality["tokens"] == 2 * 63
    assert json_of(secateur("verify", out, "--reference", model, "--json"))["verdict"] == "ok"
    assert json_of(secateur("inspect", out, "--json"))["sparsity_of_prunable"] == 0.5
