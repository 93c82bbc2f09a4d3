"""The table of export formats: what every row must say and do, and how a type finds its format."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tests.conftest import Maker

import secateur
from secateur.cli.main import run as main
from secateur.core.progress import Silent
from secateur.model.full_model import load_whole
from secateur.model.handle import open_model, open_registered
from secateur.pipeline.export.formats import (
    EXPORTERS,
    USUAL,
    Exporter,
    ExportRequest,
    exporter_for,
    exporter_named,
)
from secateur.pipeline.export.sparse_folder import TYPES
from secateur.pipeline.prune.weights.decide import Sparsity
from secateur_runtime.errors import UsageError


@pytest.fixture(scope="module")
def pruned(tiny: Maker, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with half of its weights zero, which every format can write."""
    folder = tmp_path_factory.mktemp("pruned") / "model"
    model = tiny("llama", dtype="bfloat16", intermediate_size=512, num_hidden_layers=6)
    secateur.prune(str(model), folder, Sparsity(sparsity=0.5, method="magnitude"))
    return folder


def written(name: str, pruned: Path, folder: Path) -> tuple[Exporter, Path]:
    exporter = EXPORTERS[name]
    if exporter.package:
        pytest.importorskip(exporter.package, reason=f"pip install 'secateur[{exporter.extra}]'")
    out = folder / f"out{exporter.suffix}"
    request = ExportRequest(src=str(pruned), out=out, type=USUAL, progress=Silent())
    done = exporter.write(request)
    assert done.out == out
    assert done.verified
    assert done.type in exporter.types
    assert {"type", "bytes"} <= set(done.facts)
    return exporter, out


@pytest.mark.parametrize("name", EXPORTERS)
def test_what_a_format_writes_is_the_model(name: str, pruned: Path, tmp_path: Path) -> None:
    _, out = written(name, pruned, tmp_path)
    assert out.is_file() if EXPORTERS[name].suffix else out.is_dir()
    tokens = torch.arange(40).reshape(1, 40)
    with torch.no_grad():
        before, after = (load_whole(open_registered(str(path)))(tokens).logits for path in (pruned, out))
    torch.testing.assert_close(after, before, rtol=0, atol=0.02)


@pytest.mark.parametrize("name", EXPORTERS)
def test_the_bits_are_those_of_what_is_written(name: str, pruned: Path, tmp_path: Path) -> None:
    exporter, out = written(name, pruned, tmp_path)
    graph = open_model(str(pruned)).graph
    inside = sum(linear.out_features * linear.in_features for linear in graph.linears)
    bits = exporter.bits(USUAL, 16.0, 0.5)
    expected = (inside * bits.inside + (graph.parameters - inside) * bits.outside) / 8
    files = [out] if out.is_file() else sorted(out.glob("*.safetensors"))
    # Vectors of float32, counts of rows, names and the tokenizer are not weighed.
    assert sum(file.stat().st_size for file in files) == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize("name", EXPORTERS)
def test_every_type_has_its_bits_and_finds_its_format(name: str) -> None:
    exporter = EXPORTERS[name]
    for kind in exporter.types:
        assert 0 < exporter.bits(kind, 16.0, 0.5).inside <= 32
        assert kind in exporter_for("gguf", kind).types
        assert exporter_for(name, kind) is exporter
    assert exporter_for(name, USUAL) is exporter
    assert exporter_named(name) == (exporter, USUAL)


def test_no_two_formats_have_a_type() -> None:
    types = [kind for name in EXPORTERS for kind in EXPORTERS[name].types]
    assert len(set(types)) == len(types)


def test_the_types_of_folders_are_those_that_are_written() -> None:
    assert (*EXPORTERS["sparse"].types, *EXPORTERS["dense"].types) == TYPES


def test_a_format_that_is_named_does_not_give_way_to_another() -> None:
    with pytest.raises(UsageError, match=r"unknown --type 'q8_0'; known: auto, sparse-bf16, sparse-int8, sp"):
        exporter_for("sparse", "q8_0")
    with pytest.raises(UsageError, match=r"type 'q8_1' \(did you mean q8_0\?\); known: auto, .*dense"):
        exporter_for("gguf", "q8_1")
    with pytest.raises(UsageError, match=r"format 'ggfu' \(did you mean gguf\?\); known: dense, gguf"):
        exporter_for("ggfu", USUAL)
    with pytest.raises(UsageError, match=r"unknown --export 'sparse-int9' \(did you mean sparse-int8\?\)"):
        exporter_named("sparse-int9")


def test_prune_refuses_another_suffix_before_it_decides_anything(
    tiny: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["secateur", "prune", str(tiny("llama")), "-o", str(tmp_path / "a")])
    monkeypatch.setattr("secateur.pipeline.prune.plan.decide", None)
    sys.argv += ["--method", "magnitude", "--sparsity", "0.5", "--export", "q8_0"]
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2


def test_the_table_is_read_without_torch() -> None:
    code = (
        "import sys; from secateur.pipeline.export.formats import EXPORTERS; print(len(EXPORTERS));"
        "print(*sorted({'torch', 'transformers', 'numpy', 'gguf'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(len(EXPORTERS))]
