"""`secateur recover` as a user meets it."""

from __future__ import annotations

from pathlib import Path

from tests.cli.command import SMALL, Secateur, json_of
from tests.conftest import Maker

from secateur.cli.model.recover import RecoveryText, TrainingOptions


def test_recover(secateur: Secateur, tiny: Maker, tmp_path: Path) -> None:
    teacher, student, out = tiny("llama"), tmp_path / "student", tmp_path / "out"
    json_of(
        secateur("prune", teacher, "-o", student, "--method", "wanda", "--sparsity", "0.5", *SMALL, "--json")
    )
    options = ["--teacher", teacher, "--samples", "16", "--calib-window", "64"]
    made = json_of(secateur("recover", student, "-o", out, *options, "--steps", "20", "--json"))
    assert made["kl_after"] < made["kl_before"]
    assert json_of(secateur("verify", out, "--json"))["verdict"] == "ok"
    code, printed, error = secateur("recover", student, "-o", tmp_path / "no", *options, "--method", "locl")
    assert (code, printed) == (2, "")
    assert "unknown --method 'locl' (did you mean local?)" in error


def test_recover_refuses_options_of_another_method(secateur: Secateur, tiny: Maker, tmp_path: Path) -> None:
    for options, message in (
        (["--rank", "4"], "--rank belongs to --method lora, not to local"),
        (["--method", "lora", "--sparsity", "0.5"], "--sparsity belongs to --method distill, not to lora"),
        (["--method", "distill", "--stages", "3"], "--stages needs --ratio"),
        (["--method", "distill", "--criterion", "wanda"], "--criterion needs --sparsity"),
        (["--method", "distill", "--loss", "backward"], "unknown --loss 'backward'"),
    ):
        code, printed, error = secateur(
            "recover", tiny("llama"), "-o", tmp_path / "no", "--teacher", tiny("llama"), *options
        )
        assert (code, printed) == (2, "")
        assert message in error
        assert error.count("\n") == 1


def test_options_become_the_recovery() -> None:
    from secateur.pipeline.prune.width.decide import Width
    from secateur.pipeline.recover.distill import Distill
    from secateur.pipeline.recover.iterative_pruning import Interleaved
    from secateur.pipeline.recover.local_reconstruction import Local

    assert TrainingOptions().recovery() == Local()
    assert TrainingOptions(steps=3, rate=0.1, batch=64).recovery() == Local(steps=3, rate=0.1, batch=64)
    lora = TrainingOptions(method="lora", rank=4, states=0.0, checkpointing=True)
    assert lora.recovery() == Distill(trains="lora", rank=4, states=0.0, checkpointing=True)
    staged = TrainingOptions(method="distill", ratio=0.3, stages=2, loss="both")
    assert staged.recovery() == Interleaved(
        width=Width(ratio=0.3, allocation="adapt"), distill=Distill(schedule="wsd", loss="both"), stages=2
    )


def test_windows_are_those_of_the_method_unless_given() -> None:
    assert RecoveryText().calibration(512).samples == 512
    assert RecoveryText(samples=8).calibration(512).samples == 8
