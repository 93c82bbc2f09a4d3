"""Models whose blocks differ in width, and the traps of llama.cpp's loaders for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.conftest import Maker
from tests.uneven import save_uneven, widths

from secateur.model.formats.gguf.header import read_header
from secateur.pipeline.export.gguf import export
from secateur_runtime.errors import UnsupportedModelError, UsageError

pytest.importorskip("xllamacpp", reason="pip install 'secateur[llamacpp]'")
pytestmark = pytest.mark.usefixtures("here")

SHAPES = {
    "ffn": [(4, 2, 96), (4, 2, 64), (4, 2, 128)],
    "heads": [(4, 2, 96), (2, 1, 64), (4, 4, 96)],
    "no ffn in the middle": [(4, 2, 96), (4, 2, 0), (2, 1, 64)],
    "no attention in the middle": [(4, 2, 96), (0, 0, 96), (4, 2, 64)],
    "nothing in the middle": [(4, 2, 96), (0, 0, 0), (4, 2, 64)],
    "no attention first, no ffn last": [(0, 0, 96), (4, 2, 96), (2, 1, 0)],
}
ROUTES: list[tuple[str, dict[str, Any], str]] = [
    ("llama", {}, "deci"),
    ("mistral", {"sliding_window": None, "tie_word_embeddings": True}, "deci"),
    ("qwen2", {}, "deci"),
    ("qwen3", {}, "openelm"),
]


# Every shape through each loader; what differs by family otherwise, its biases and names, in two shapes.
CASES = [
    (*route, case)
    for route in ROUTES
    for case in (SHAPES if route[0] in ("llama", "qwen3") else ("heads", "no ffn in the middle"))
]


@pytest.mark.parametrize(
    ("family", "config", "arch", "case"), CASES, ids=[f"{case[0]}-{case[-1]}" for case in CASES]
)
def test_unequal_blocks(
    tiny: Maker, tmp_path: Path, family: str, config: dict[str, Any], arch: str, case: str
) -> None:
    shapes = widths(SHAPES[case], 32 if family == "qwen3" else 16)
    folder = save_uneven(tiny(family, **config), tmp_path / "model", shapes)
    done = export(str(folder), tmp_path / "a.gguf", kind="f32")
    assert done.kl is not None
    assert done.kl <= 1e-5
    assert done.arch == arch
    assert done.blocks == sum(1 for shape in shapes if shape.n_heads or shape.intermediate_size)


def test_biases_everywhere(tiny: Maker, tmp_path: Path) -> None:
    whole = tiny("llama", attention_bias=True, mlp_bias=True)
    folder = save_uneven(whole, tmp_path / "model", widths([(4, 2, 96), (2, 1, 0), (4, 2, 64)]))
    done = export(str(folder), tmp_path / "a.gguf", kind="f32")
    assert done.kl is not None
    assert done.kl <= 1e-5


def test_a_missing_ffn_is_one_of_zeros(tiny: Maker, tmp_path: Path) -> None:
    """The deci loader would leave out the attention of such a block, and say nothing."""
    folder = save_uneven(tiny("llama"), tmp_path / "model", widths(SHAPES["no ffn in the middle"]))
    header = read_header(export(str(folder), tmp_path / "a.gguf", kind="q8_0").out)
    assert header.get("deci.feed_forward_length") == [96, 32, 64]
    assert header.tensors["blk.1.ffn_up.weight"].shape == (32, 64)


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "phi3"])
def test_equal_blocks_that_remain_keep_their_own_loader(tiny: Maker, tmp_path: Path, family: str) -> None:
    whole = tiny(family, num_hidden_layers=3)
    folder = save_uneven(
        whole,
        tmp_path / "model",
        widths([(4, 2, 96), (4, 2, 96), (0, 0, 0)], 32 if family == "gemma3_text" else 16),
    )
    done = export(str(folder), tmp_path / "a.gguf", kind="f32")
    assert (done.arch, done.blocks) == (family.removesuffix("_text"), 2)


def test_fewer_query_heads_everywhere(tiny: Maker, tmp_path: Path) -> None:
    """llama.cpp's own loader of Qwen2 needs them all."""
    done = export(
        str(tiny("qwen2", num_attention_heads=2, num_key_value_heads=1, head_dim=16)),
        tmp_path / "a.gguf",
        kind="f32",
    )
    assert (done.arch, done.blocks) == ("deci", 3)


@pytest.mark.parametrize(
    ("family", "config", "case", "message"),
    [
        ("gemma3_text", {"num_hidden_layers": 3}, "ffn", "loads gemma3_text only with blocks of equal width"),
        ("gemma2", {}, "ffn", "loads gemma2 only with blocks of equal width"),
        ("phi3", {}, "ffn", "loads phi3 only with blocks of equal width"),
        ("qwen3", {"tie_word_embeddings": False}, "ffn", "only if its embeddings are tied"),
    ],
)
def test_models_without_a_loader(
    tiny: Maker, tmp_path: Path, family: str, config: dict[str, Any], case: str, message: str
) -> None:
    folder = save_uneven(
        tiny(family, **config), tmp_path / "model", widths(SHAPES[case], 16 if family == "phi3" else 32)
    )
    with pytest.raises(UnsupportedModelError, match=message):
        export(str(folder), tmp_path / "a.gguf")
    assert list(tmp_path.iterdir()) == [folder]


def test_no_attention_at_all(tiny: Maker, tmp_path: Path) -> None:
    folder = save_uneven(tiny("llama"), tmp_path / "model", widths([(0, 0, 96)] * 3))
    with pytest.raises(UnsupportedModelError, match="no model without attention"):
        export(str(folder), tmp_path / "a.gguf")


def test_k_quants_of_unequal_blocks(tiny: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    folder = save_uneven(tiny("llama"), tmp_path / "model", widths(SHAPES["ffn"]))
    with pytest.raises(UsageError, match="q4_k_m cannot be checked in a model with blocks of unequal width"):
        export(str(folder), tmp_path / "a.gguf", kind="q4_k_m")
