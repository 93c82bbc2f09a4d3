"""Which linears get which sparsity, and which options cannot work."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.conftest import Maker

import secateur
from secateur.calibrate.calibration import Calibration
from secateur_runtime.errors import UsageError

CALIBRATION = Calibration(samples=6, window=64)


def test_protected_blocks_stay_dense(tiny: Maker, tmp_path: Path) -> None:
    plan = secateur.plan(
        str(tiny("llama")), sparsity=0.5, method="magnitude", protect=["first=1,last=1", "*.k_proj.weight"]
    )
    assert plan.sparsity.keys() == {
        f"model.layers.1.{name}.weight"
        for name in (
            "self_attn.q_proj",
            "self_attn.v_proj",
            "self_attn.o_proj",
            "mlp.gate_proj",
            "mlp.up_proj",
            "mlp.down_proj",
        )
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sparsity": 1.0}, "outside"),
        ({"sparsity": "5:7"}, "not a multiple of 7"),
        ({"sparsity": 0.5, "method": "wonda"}, "did you mean wanda"),
        ({"sparsity": 0.5, "protect": ["*.lm_haed"]}, "matches no prunable tensor"),
        ({"sparsity": 0.5, "protect": ["first=99"]}, "nothing to prune"),
        ({"sparsity": "2:4", "allocation": "owl"}, "cannot spread the pattern"),
        ({"sparsity": 0.5, "allocation": "olw"}, "did you mean owl"),
    ],
)
def test_options_that_cannot_work_are_refused(tiny: Maker, options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        secateur.plan(str(tiny("llama")), calibration=CALIBRATION, **options)  # type: ignore[arg-type]
