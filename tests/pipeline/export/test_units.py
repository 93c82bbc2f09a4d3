"""Models cut in query heads and hidden channels.

Llama.cpp computes from their files what the folders compute, and so do we.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.conftest import Maker
from tests.tiny_models import FAMILIES
from transformers import AutoModelForCausalLM

from secateur.calibrate.calibration import Calibration, calibration_tokens, text_of
from secateur.core.context import Settings
from secateur.core.execution import Execution
from secateur.core.plan import Plan
from secateur.model.formats.gguf.header import read_header
from secateur.model.handle import ModelHandle, open_model
from secateur.pipeline.export.gguf import export
from secateur.pipeline.prune.apply import apply
from secateur_runtime.errors import UnsupportedModelError

pytest.importorskip("xllamacpp", reason="pip install 'secateur[llamacpp]'")
pytestmark = pytest.mark.usefixtures("here")

WIDE = {"hidden_size": 96, "num_attention_heads": 6, "num_key_value_heads": 2}
HIDDEN = {"hidden": tuple(channel for channel in range(96) if channel % 3 or not channel)}
TEXT = Calibration(samples=4, window=64)
TOKENS = torch.randint(200, (1, 12), generator=torch.Generator().manual_seed(3))


def _cut(
    source: Path,
    out: Path,
    keep: dict[str, tuple[int, ...]],
    drop: tuple[str, ...] = (),
    repair: str = "none",
) -> ModelHandle:
    model = open_model(str(source))
    text = text_of(TEXT, calibration_tokens(model, TEXT, 0)) if repair != "none" else None
    how = Execution(unit_repair=repair, calibration=text)
    plan = Plan(model=model.digest, keep=keep, drop=drop, execution=how)
    apply(plan, str(source), out, settings=Settings(dtype="float32"))
    return open_model(str(out))


def _heads(model: ModelHandle) -> dict[str, tuple[int, ...]]:
    return {f"{block.index}.head": (0, 2, 3, 5) for block in model.graph.blocks}


def _logits(model: ModelHandle) -> torch.Tensor:
    stream = model.stream()
    (states,) = stream.embed([TOKENS])
    for index in range(len(stream)):
        with stream.open(index) as live:
            states = live(states)
    return torch.cat(list(stream.logits(states[0])))


def _exported(model: ModelHandle, out: Path) -> str:
    """Export; compare in llama.cpp, and by reading the file back; return the architecture."""
    done = export(model.source.ref, out, kind="f32")
    assert done.kl is not None
    assert done.kl <= 1e-5
    if done.arch not in ("deci", "openelm"):
        again = open_model(str(out))
        assert [block.shape for block in again.graph.blocks] == [block.shape for block in model.graph.blocks]
        torch.testing.assert_close(_logits(again), _logits(model), rtol=1e-4, atol=1e-4)
    return done.arch


# Both in every family; one alone where llama.cpp has a loader for fewer heads (llama), has none (qwen2), and
# where there are four norms (gemma2).
CASES = [
    *((family, "both") for family in FAMILIES if family != "phi3"),
    *((family, units) for family in ("llama", "qwen2", "gemma2") for units in ("head", "hidden")),
]


@pytest.mark.parametrize(("family", "units"), CASES)
def test_equal_blocks(tiny: Maker, tmp_path: Path, family: str, units: str) -> None:
    """65 channels for 6 heads: some of transformers' classes refuse them, llama.cpp's loaders do not."""
    config = {**WIDE, "num_hidden_layers": 6 if family == "gemma3_text" else 4} | (
        {"sliding_window": None} if family == "mistral" else {}
    )
    source = tiny(family, **config)
    keep = (_heads(open_model(str(source))) if units != "hidden" else {}) | (
        HIDDEN if units != "head" else {}
    )
    model = _cut(source, tmp_path / "cut", keep)
    arch = _exported(model, tmp_path / "a.gguf")
    assert arch == {"mistral": "llama", "gemma3_text": "gemma3", "qwen2": "deci"}.get(family, family)
    header = read_header(tmp_path / "a.gguf")
    epsilon = header.number(f"{arch}.attention.layer_norm_rms_epsilon")
    ratio = 96 / model.graph.hidden_size
    assert epsilon == pytest.approx({"llama": 1e-5, "mistral": 1e-5}.get(family, 1e-6) * ratio, rel=1e-5)


def test_phi3_needs_all_its_heads(tiny: Maker, tmp_path: Path) -> None:
    model = _cut(tiny("phi3", **WIDE), tmp_path / "cut", HIDDEN)
    with pytest.raises(
        UnsupportedModelError, match="only where all its query heads are as wide as its hidden states"
    ):
        export(model.source.ref, tmp_path / "a.gguf")


def test_phi3_with_heads_as_wide_as_its_channels(tiny: Maker, tmp_path: Path) -> None:
    """Four heads of 16 beside 64 channels: the one cut of both that its loader takes."""
    source = tiny("phi3", **WIDE)
    model = _cut(
        source,
        tmp_path / "cut",
        _heads(open_model(str(source))) | {"hidden": tuple(channel for channel in range(96) if channel % 3)},
    )
    assert _exported(model, tmp_path / "a.gguf") == "phi3"


@pytest.mark.parametrize(("family", "arch"), [("llama", "deci"), ("qwen2", "deci"), ("qwen3", "openelm")])
def test_unequal_blocks(tiny: Maker, tmp_path: Path, family: str, arch: str) -> None:
    keep = HIDDEN | {
        "0.head": (0, 1, 4, 5),
        "2.head": (1, 5),
        "1.kv": (1,),
        "1.head": (0, 3, 5),
        "0.ffn": tuple(range(32)),
    }
    model = _cut(tiny(family, **WIDE), tmp_path / "cut", keep, ("1.ffn",))
    assert [block.shape.n_heads for block in model.graph.blocks][:3] == [4, 2, 2]
    assert _exported(model, tmp_path / "a.gguf") == arch


@pytest.mark.parametrize("repair", ["bias", "affine"])
@pytest.mark.parametrize(("drop", "arch"), [((), "llama"), (("1.ffn", "2.attn"), "deci")])
def test_biases_that_a_repair_filled(
    tiny: Maker, tmp_path: Path, drop: tuple[str, ...], arch: str, repair: str
) -> None:
    source = tiny("llama")
    keep = {
        f"{index}.{kind}": units
        for index in range(3)
        for kind, units in (("kv", (1,)), ("ffn", tuple(range(64))))
    }
    model = _cut(source, tmp_path / "cut", keep, drop, repair)
    assert float(model.source.read("model.layers.0.mlp.down_proj.bias").abs().max()) > 0
    assert _exported(model, tmp_path / "a.gguf") == arch


@pytest.mark.parametrize(
    ("family", "drop", "loader"),
    [("smollm3", (), "smollm3"), ("qwen3", (), "qwen3"), ("qwen3", ("1.ffn",), "openelm")],
)
def test_biases_that_no_loader_reads(
    tiny: Maker, tmp_path: Path, family: str, drop: tuple[str, ...], loader: str
) -> None:
    source, group = tiny(family), (1,)
    keep: dict[str, tuple[int, ...]] = {
        f"{block.index}.kv": group for block in open_model(str(source)).graph.blocks
    }
    model = _cut(source, tmp_path / "cut", keep, drop, "bias")
    with pytest.raises(
        UnsupportedModelError,
        match=(
            rf"loader of {loader} reads no model.layers.0.self_attn.\w+.bias: prune the original with"
            r" --repair lsq"
        ),
    ):
        export(model.source.ref, tmp_path / "a.gguf")
    assert [path.name for path in tmp_path.iterdir()] == ["cut"]
    # An affine repair needs no bias where it may not have one, and this file can be written.
    scaled = _cut(
        tiny("qwen2"), tmp_path / "scaled", {f"{index}.kv": group for index in range(3)}, (), "affine"
    )
    _exported(scaled, tmp_path / "b.gguf")


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_cut_from_a_gguf_file(tiny: Maker, tmp_path: Path, family: str) -> None:
    """What is cut out of a file equals what is cut out of the folder it was made of."""
    source = tiny(family, **WIDE)
    export(str(source), tmp_path / "whole.gguf", kind="f32")
    folder = _cut(source, tmp_path / "folder", HIDDEN)
    file = _cut(tmp_path / "whole.gguf", tmp_path / "file", HIDDEN)
    torch.testing.assert_close(_logits(file), _logits(folder), rtol=1e-4, atol=1e-4)
    stock = AutoModelForCausalLM.from_pretrained(tmp_path / "file", dtype=torch.float32).eval()
    with torch.no_grad():
        torch.testing.assert_close(stock(TOKENS).logits[0], _logits(file), rtol=1e-4, atol=1e-4)
