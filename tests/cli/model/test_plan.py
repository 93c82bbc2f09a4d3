"""`secateur plan` writes a decision, and explains it."""

from __future__ import annotations

from pathlib import Path

from tests.cli.command import Secateur
from tests.conftest import Maker


def test_tables_for_people(secateur: Secateur, tiny: Maker, tmp_path: Path) -> None:
    model = tiny("phi3")
    code, out, _ = secateur("inspect", model, "--tensors")
    assert code == 0
    assert "qkv_proj" in out
    code, out, _ = secateur(
        "plan", model, "-o", tmp_path / "plan.json", "--method", "magnitude", "--pattern", "2:4", "--explain"
    )
    assert code == 0
    assert "gate_up_proj" in out
    assert "2:4" in out
