"""Estimated sizes come true."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.conftest import Maker

from secateur.core.context import Settings
from secateur.device.profile import OUTPUT, load_profile
from secateur.model.handle import open_model
from secateur.pipeline.advise.size_estimate import Sizes
from secateur.pipeline.export.formats import EXPORTERS, AdvisedFormat
from secateur.pipeline.export.gguf import export
from secateur.pipeline.prune.depth.decide import Depth
from secateur.pipeline.prune.prune import prune
from secateur.pipeline.prune.width.decide import Width

_ADVISED = EXPORTERS["gguf"].advised
assert _ADVISED
GGUF: AdvisedFormat = _ADVISED


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma3_text"])
@pytest.mark.parametrize("stored", ["f16", "q8_0", "q4_0"])
def test_the_size_of_the_file_comes_true(tiny: Maker, tmp_path: Path, family: str, stored: str) -> None:
    model = open_model(str(tiny(family)))
    sizes = Sizes(model, load_profile("pi5"), 64, GGUF)
    taken = sizes.taken(sizes.cuts([], [], 32)[0], stored)
    real = export(str(tiny(family)), tmp_path / "a.gguf", kind=stored, verify=False).bytes
    assert taken.file == pytest.approx(real, rel=0.05)
    again = Sizes(open_model(str(tmp_path / "a.gguf")), load_profile("pi5"), 64, GGUF)
    assert again.taken(sizes.cuts([], [], 32)[0], stored).file == pytest.approx(real, rel=0.01)


def test_the_size_after_pruning_comes_true(tiny: Maker, tmp_path: Path) -> None:
    model = tiny("llama", num_hidden_layers=5)
    sizes = Sizes(open_model(str(model)), load_profile("pi5"), 64, GGUF)
    _, width, depth = sizes.cuts([0.33], [0.2], 32)
    prune(
        str(model),
        tmp_path / "w",
        Width(ratio=0.33, criterion="magnitude", repair="none"),
        settings=Settings(),
    )
    prune(
        str(model),
        tmp_path / "d",
        Depth(drop_layers=1, criterion="influence", repair="none"),
        settings=Settings(),
    )
    for cut, folder in ((width, "w"), (depth, "d")):
        left = open_model(str(tmp_path / folder)).graph
        taken = sizes.taken(cut, "q8_0")
        assert taken.footprint.parameters == left.parameters
        assert taken.work.layers == len(left.blocks)
        assert taken.file == pytest.approx(
            export(str(tmp_path / folder), tmp_path / f"{folder}.gguf", kind="q8_0", verify=False).bytes,
            rel=0.05,
        )


def test_what_a_token_reads(tiny: Maker) -> None:
    model = open_model(str(tiny("llama")))
    sizes = Sizes(model, load_profile("pi5"), 64, GGUF)
    taken = sizes.taken(sizes.cuts([], [], 32)[0], "q4_0")
    head = model.graph.vocab_size * model.graph.hidden_size * 34 / 32
    assert taken.work.weights[OUTPUT] == pytest.approx(head, rel=1e-6)
    assert taken.file > taken.work.weights["q4_0"] + 2 * head * 0.99 - head, (
        "embeddings are stored, not read whole"
    )
    assert taken.work.cache == 64 * 3 * 2 * 2 * 16 * 2


def test_reductions_are_plans(tiny: Maker) -> None:
    """Widths keep a multiple; depths never take the first or the last block; the whole model comes first."""
    model = open_model(str(tiny("llama", num_hidden_layers=6, intermediate_size=96)))
    sizes = Sizes(model, load_profile("pi5"), 64, GGUF)
    whole, width, depth = sizes.cuts([0.4], [0.3], 32)
    assert (whole.label, whole.keep, whole.drop) == ("nothing", {}, ())
    assert {len(units) for units in width.keep.values()} == {64}
    assert width.label == "width: FFN -40%"
    assert depth.drop == ("3", "4")
    assert depth.label == "depth: 2 blocks"
    assert len(sizes.cuts([0.01], [0.01], 96)) == 1, "shares that remove nothing are left out"


def test_a_repacked_type_is_held_twice(tiny: Maker) -> None:
    model = open_model(str(tiny("llama")))
    cpu, gpu = (Sizes(model, load_profile(name), 64, GGUF) for name in ("pi5", "rtx4090"))
    whole = cpu.cuts([], [], 32)[0]
    blocks = cpu.taken(whole, "q4_0").work.weights["q4_0"]
    extra = {
        name: sizes.taken(whole, "q4_0").memory - sizes.taken(whole, "q4_0").file
        for name, sizes in (("cpu", cpu), ("gpu", gpu))
    }
    plain = {
        name: sizes.taken(whole, "q8_0").memory - sizes.taken(whole, "q8_0").file
        for name, sizes in (("cpu", cpu), ("gpu", gpu))
    }
    assert extra["cpu"] - plain["cpu"] == blocks
    assert extra["gpu"] == plain["gpu"]


def test_types_that_rows_do_not_fill(tiny: Maker) -> None:
    sizes = Sizes(open_model(str(tiny("llama", intermediate_size=100))), load_profile("pi5"), 64, GGUF)
    assert sizes.holds("f16")
    assert not sizes.holds("q4_0")
