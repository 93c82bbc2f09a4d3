"""`secateur quantize` as a user meets it."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.cli.command import SMALL, Secateur, json_of
from tests.conftest import Maker

from secateur.cli.model.quantize import QuantizationOptions
from secateur.pipeline.quantize.quantize import Quantization


def test_quantize_verify_export(secateur: Secateur, tiny: Maker, tmp_path: Path) -> None:
    pytest.importorskip("compressed_tensors", reason="pip install 'secateur[quantize]'")
    made = json_of(
        secateur(
            "quantize", tiny("llama"), "-o", tmp_path / "out", "--bits", 3, "--asymmetric", *SMALL, "--json"
        )
    )
    assert (made["grids"], made["bits_per_weight"], made["method"]) == ({"int3a-g32": 92160}, 3.5938, "gptq")
    assert json_of(secateur("verify", tmp_path / "out", "--json"))["verdict"] == "ok"
    done = json_of(secateur("export", tmp_path / "out", "-o", tmp_path / "out.gguf", "--no-verify", "--json"))
    assert done["type"] == "packed"
    code, _, error = secateur("quantize", tiny("llama"), "-o", tmp_path / "no", "--method", "gtpq")
    assert (code, error) == (
        2,
        "error: unknown quantization method 'gtpq' (did you mean gptq?); known: gptq, imatrix, rtn\n",
    )


def test_options_become_the_quantization() -> None:
    assert QuantizationOptions().quantization() == Quantization()
    given = QuantizationOptions(bits=3, group=64, asymmetric=True, method="rtn", protect=["last=1"])
    assert given.quantization() == Quantization(
        bits=3, group=64, symmetric=False, method="rtn", protect=("last=1",)
    )
    both = QuantizationOptions(target="size=1MB", sparsity="2:4", prune="wanda")
    assert both.quantization() == Quantization(target="size=1MB", sparsity="2:4", prune="wanda")
