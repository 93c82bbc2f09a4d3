"""Every kind of unit, cut out of every family.

The written model computes what the whole one does with the units silent.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.conftest import Maker
from tests.killed import assert_same_files, killed_at
from tests.pipeline.prune.masking import logits, masked_model
from tests.tiny_models import FAMILIES
from transformers import AutoModelForCausalLM

import secateur
from secateur.calibrate.calibration import Calibration
from secateur.core.context import Settings
from secateur.core.execution import Execution
from secateur.core.plan import Plan
from secateur.model.handle import open_model
from secateur.model.views.hidden_channels import Fold
from secateur.model.written.checkpoint import Checkpoint
from secateur_runtime.errors import VerificationError

WIDE = {"hidden_size": 96, "num_attention_heads": 6, "num_key_value_heads": 2}
EXACT = Settings(dtype="float32")
CHANNELS = tuple(channel for channel in range(96) if channel % 3 or not channel)
EVEN = tuple(channel for channel in range(96) if channel % 8)
# Their own config classes want a hidden size that the number of heads divides; that of Phi-3 with long rope,
# heads as wide as it together.
PARTICULAR = ("llama", "gemma2", "gemma3_text")
LONG = {
    "rope_type": "longrope",
    "rope_theta": 1e4,
    "partial_rotary_factor": 1.0,
    "long_factor": [2.0] * 8,
    "short_factor": [1.5] * 8,
}


def _plan(
    folder: Path,
    keep: dict[str, tuple[int, ...]],
    drop: tuple[str, ...] = (),
    execution: Execution = Execution(),  # noqa: B008
) -> Plan:
    return Plan(model=open_model(str(folder)).digest, keep=keep, drop=drop, execution=execution)


def _calibrated(folder: Path, calibration: Calibration, repair: str) -> Execution:
    read = secateur.plan(str(folder), sparsity=0.5, method="wanda", calibration=calibration)
    return Execution(unit_repair=repair, calibration=read.execution.calibration)


def _keep(case: str, blocks: int) -> tuple[dict[str, tuple[int, ...]], tuple[str, ...]]:
    heads: dict[str, tuple[int, ...]] = {
        f"{index}.head": ((0, 2, 4, 5), (1, 2, 3, 4))[index % 2] for index in range(blocks)
    }
    grouped: dict[str, tuple[int, ...]] = {f"{index}.kv": (index % 2,) for index in range(blocks)}
    grouped |= {f"{index}.head": (0, 2, 3, 5) for index in range(blocks)}
    cases: dict[str, tuple[dict[str, tuple[int, ...]], tuple[str, ...]]] = {
        "head": (heads, ()),
        "hidden": ({"hidden": CHANNELS}, ()),
        "kv+head": (grouped, ()),
        "hidden+ffn+drop": (
            {"hidden": EVEN, "0.ffn": tuple(range(0, 96, 2)), "1.head": (0, 5)},
            ("1.ffn", f"{blocks - 1}.attn", "2"),
        ),
        "hidden+ffn+kv+block": (
            {"hidden": EVEN} | {f"{index}.ffn": tuple(range(30, 70)) for index in range(blocks)} | grouped,
            ("1",),
        ),
    }
    return cases[case]


VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *((family, {}) for family in FAMILIES),
    ("llama", {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}),
    ("smollm3", {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": False}),
    ("qwen3", {"attention_bias": True, "tie_word_embeddings": False}),
    ("gemma2", {"attention_bias": True, "tie_word_embeddings": False}),
    ("gemma3_text", {"tie_word_embeddings": False}),
    ("phi3", {"rope_parameters": LONG, "max_position_embeddings": 512, "tie_word_embeddings": True}),
    ("phi3", {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}}),
]


# Every variant with both cases of many units; one unit alone where projections are apart, in one, have
# biases, and stand behind four norms.
CASES = [(*variant, case) for variant in VARIANTS for case in ("hidden+ffn+drop", "hidden+ffn+kv+block")]
CASES += [
    (family, {}, case)
    for family in ("llama", "phi3", "qwen2", "gemma2")
    for case in ("head", "hidden", "kv+head")
]


@pytest.mark.parametrize(
    ("family", "config", "case"),
    CASES,
    ids=[f"{family}{'+' * bool(config)}{'+'.join(config)}-{case}" for family, config, case in CASES],
)
def test_surgery_equals_masking(
    tiny: Maker, tmp_path: Path, family: str, config: dict[str, Any], case: str
) -> None:
    folder = tiny(family, **WIDE, **config)
    plan = _plan(folder, *_keep(case, len(open_model(str(folder)).graph.blocks)))
    made = secateur.apply(plan, str(folder), tmp_path / "out", settings=EXACT)
    assert made.reload_difference < 1e-5
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32).eval()
    torch.testing.assert_close(logits(model), logits(masked_model(folder, plan)), rtol=1e-4, atol=1e-4)
    stored = json.loads((tmp_path / "out" / "config.json").read_text())
    hidden, heads = stored["hidden_size"], stored["num_attention_heads"]
    refused = (family in PARTICULAR and hidden % heads) or (
        "max_position_embeddings" in config and hidden // heads != 16
    )
    assert stored["model_type"] == ("secateur_" if refused or case == "hidden+ffn+drop" else "") + family
    assert stored["hidden_size"] == len(plan.keep.get("hidden", range(96)))
    assert made.parameters == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("family", ["llama", "gemma2", "phi3"])
def test_bfloat16_folders_are_what_the_run_computed(tiny: Maker, tmp_path: Path, family: str) -> None:
    """The run computes with the rounded, rescaled norms and embeddings, so nothing is left to a tolerance."""
    folder = tiny(family, **WIDE)
    made = secateur.apply(
        _plan(folder, *_keep("hidden+ffn+drop", 3)),
        str(folder),
        tmp_path / "out",
        settings=Settings(dtype="bfloat16"),
    )
    assert made.reload_difference < 1e-5
    assert {info.dtype for info in open_model(str(tmp_path / "out")).graph.tensors.values()} == {"BF16"}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", ["qwen2", "gemma3_text"])
def test_an_interrupted_cut_of_channels_goes_on_with_the_same_bytes(
    tiny: Maker, tmp_path: Path, family: str, dtype: str
) -> None:
    folder, settings = tiny(family, **WIDE), Settings(dtype=dtype)
    calibration = Calibration(samples=4, window=64)
    keep = {
        "hidden": CHANNELS,
        "0.ffn": tuple(range(50)),
        "1.kv": (0,),
        "1.head": (1, 2),
        "2.head": (0, 1, 4, 5),
        "2.ffn": tuple(range(20, 60)),
    }
    plan = _plan(folder, keep, ("1.ffn",), _calibrated(folder, calibration, "lsq"))
    secateur.apply(plan, str(folder), tmp_path / "whole", settings=settings)
    with killed_at(3):
        secateur.apply(plan, str(folder), tmp_path / "out", settings=settings)
    assert secateur.apply(plan, str(folder), tmp_path / "out", settings=settings).resumed_blocks == 2
    assert_same_files(tmp_path / "out", tmp_path / "whole")


def test_repair_answers_for_heads_and_groups_together(tiny: Maker, tmp_path: Path) -> None:
    """Refitting after one kind of unit must not bring back what the other took."""
    folder = tiny("llama", **WIDE)
    calibration = Calibration(samples=8, window=64)
    keep: dict[str, tuple[int, ...]] = {f"{index}.kv": (1,) for index in range(3)}
    keep |= {f"{index}.head": (0, 3, 5) for index in range(3)}
    whole = logits(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval())
    errors = {}
    for repair in ("none", "lsq"):
        plan = _plan(folder, keep, (), _calibrated(folder, calibration, repair))
        made = secateur.apply(plan, str(folder), tmp_path / repair, settings=EXACT)
        assert made.reload_difference < 1e-5
        pruned = AutoModelForCausalLM.from_pretrained(tmp_path / repair, dtype=torch.float32).eval()
        errors[repair] = float((logits(pruned) - whole).square().mean())
    assert errors["lsq"] < errors["none"]


def test_a_final_norm_stored_wrongly_is_found(
    tiny: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The states before the head do not show it, so the logits are compared."""
    folder, write = tiny("llama", **WIDE), Checkpoint.write

    def corrupt(self: Checkpoint, index: int, tensors: dict[str, torch.Tensor]) -> None:
        write(
            self,
            index,
            {name: tensor * (1.01 if name == "model.norm.weight" else 1) for name, tensor in tensors.items()},
        )

    monkeypatch.setattr(Checkpoint, "write", corrupt)
    with pytest.raises(VerificationError, match="does not compute what was meant"):
        secateur.apply(_plan(folder, {"hidden": EVEN}), str(folder), tmp_path / "out", settings=EXACT)


@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_a_fold_is_undone(offset: float) -> None:
    weight = torch.randn(50, generator=torch.Generator().manual_seed(0))
    fold = Fold(1.3, offset)
    torch.testing.assert_close(fold.meant(fold.stored(weight)), weight)
    torch.testing.assert_close(fold.stored(weight) + offset, (weight + offset) * 1.3)
