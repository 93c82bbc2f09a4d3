"""Which kinds of pruning suit a device, and the reasons in its own figures."""

from __future__ import annotations

import pytest
from tests.conftest import Maker

import secateur
from secateur.device.decode_model import Clock
from secateur.device.profile import OUTPUT, load_profile
from secateur.model.handle import open_model
from secateur.pipeline.advise.size_estimate import Sizes
from secateur.pipeline.advise.suitability import Verdict, verdicts
from secateur.pipeline.export.formats import EXPORTERS, AdvisedFormat

_ADVISED = EXPORTERS["gguf"].advised
assert _ADVISED
GGUF: AdvisedFormat = _ADVISED

ANSWERS = {
    "pi5": ("no", "no", "no"),
    "laptop": ("no", "no", "if needed"),
    "phone-flagship": ("no", "no", "if needed"),
    "rtx4090": ("no", "if needed", "no"),
    "orin-nano": ("no", "if needed", "if needed"),
    "cortex-m7": ("no", "no", "no"),
}


@pytest.mark.parametrize("device", ANSWERS)
def test_reasons_follow_from_the_device(tiny: Maker, device: str) -> None:
    advice = secateur.advise(str(tiny("llama")), device=device, context=64)
    verdicts = {one.kind: one for one in advice.verdicts}
    assert (
        tuple(verdicts[kind].answer for kind in ("unstructured", "2:4", "runtime-adaptive"))
        == ANSWERS[device]
    )
    assert all(one.reason for one in verdicts.values())
    assert "VBMI2" in verdicts["unstructured"].reason or device != "laptop"


def _verdicts(tiny: Maker, layer: float, bandwidth: float) -> dict[str, Verdict]:
    """Return the verdicts where a block costs `layer` seconds and memory gives `bandwidth` bytes a second."""
    model = open_model(str(tiny("llama", num_hidden_layers=5)))
    profile = load_profile("pi5")
    rates = dict.fromkeys(("f16", "q8_0", "q4_0", OUTPUT), bandwidth)
    clock = Clock(rates, 1.0, bandwidth, layer, 0.0, 0.0, "")
    sizes = Sizes(model, profile, 64, GGUF)
    return {one.kind: one for one in verdicts(profile, clock, sizes, "q8_0", (0.34, 0.2, 32))}


def test_where_bytes_cost_nothing_only_blocks_are_worth_their_time(tiny: Maker) -> None:
    found = _verdicts(tiny, layer=1e-3, bandwidth=1e15)
    assert found["depth"].reason.startswith("for latency; 100% of a token's time goes to blocks")
    assert "depth: 1 blocks: 1.25 times the speed" in found["depth"].reason
    assert found["width"].reason.startswith("for memory only")
    assert found["quantization"].answer == "if needed"


def test_where_bytes_cost_everything_fewer_of_them_are_faster(tiny: Maker) -> None:
    found = _verdicts(tiny, layer=0.0, bandwidth=1e6)
    assert found["width"].reason.startswith("for accuracy; cuts bytes")
    assert "0% of a token's time goes to blocks" in found["depth"].reason
    assert found["quantization"].answer == "yes"
    assert found["quantization"].reason.startswith("4 bits")
    assert (
        "no verb that serves one" in found["runtime-adaptive"].reason
        or found["runtime-adaptive"].answer == "no"
    )
