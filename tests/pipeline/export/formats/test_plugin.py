"""An export format that the product does not know, in an installed distribution, through the command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from tests.conftest import Maker
from tests.plugins import install_plugin, run_secateur

from secateur.model.full_model import load_whole
from secateur.model.handle import open_registered
from secateur.model.transformers_model import build_model

MINE = '''
"""One safetensors file with all weights."""

from secateur.pipeline.export.formats import (
    AdvisedFormat, AdvisedType, Exporter, ExportResult, StoredBits, add_exporter
)

BYTES = {"whole-f32": 4, "whole-bf16": 2}


def write(request):
    import torch
    from safetensors.torch import load_file, save_file

    from secateur.model.full_model import load_whole
    from secateur.model.handle import open_registered
    from secateur.model.transformers_model import build_model
    from secateur_runtime.errors import OutputError, VerificationError

    if request.out.exists() and not request.overwrite:
        raise OutputError(f"{request.out} exists: pass --overwrite")
    kind = "whole-bf16" if request.type == "auto" else request.type
    dtype = torch.float32 if kind == "whole-f32" else torch.bfloat16
    model = open_registered(request.src)
    meant = load_whole(model, dtype).float()
    save_file({name: model.source.read(name).to(dtype) for name in model.graph.tensors}, request.out)
    read = build_model(model.source.config).eval()
    read.load_state_dict({name: part.float() for name, part in load_file(request.out).items()}, strict=False)
    read.tie_weights()
    tokens = torch.arange(32).reshape(1, 32)
    with torch.no_grad():
        off = float((read(tokens).logits - meant(tokens).logits).abs().max())
    if off > 1e-4:
        request.out.unlink()
        raise VerificationError(f"{request.out} differs from the model by {off}")
    size = request.out.stat().st_size
    facts = {"type": kind, "bytes": size, "largest_difference": off}
    return ExportResult(out=request.out, type=kind, bytes=size, facts=facts, figures={"off": off})


def bits(kind, before, zeros):
    each = 8.0 * BYTES.get(kind, 2)
    return StoredBits(each, each)


add_exporter(
    Exporter(
        name="mine",
        about="one safetensors file",
        runtime="my runtime",
        types=tuple(BYTES),
        bits=bits,
        write=write,
        suffix=".safetensors",
        advised=AdvisedFormat(
            types={"whole-f32": AdvisedType(1.0)},
            nbytes=lambda shape, count, kind, output: count * BYTES[kind],
            holds=lambda shape, kind: True,
            overhead=lambda model: 0,
        ),
    )
)
'''


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return install_plugin(tmp_path_factory.mktemp("plugin"), "mine", "secateur.exporters", MINE)


def body_of(environment: dict[str, str], *arguments: object) -> Any:
    done = run_secateur(environment, *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(torch.arange(32).reshape(1, 32)).logits
    return found


def read_mine(file: Path, like: Path) -> Any:
    """Return the model in a file, whose config is that of the folder `like`."""
    model = build_model(open_registered(str(like)).source.config).eval()
    model.load_state_dict({name: part.float() for name, part in load_file(file).items()}, strict=False)
    return model


def test_a_model_is_exported_and_pruned_into_it_by_name(
    environment: dict[str, str], tiny: Maker, tmp_path: Path
) -> None:
    model = tiny("llama")
    out = tmp_path / "a.safetensors"
    body = body_of(environment, "export", model, "-o", out, "--format", "mine", "--type", "whole-f32")
    assert (body["output"], body["type"], body["bytes"]) == (str(out), "whole-f32", out.stat().st_size)
    assert body["largest_difference"] < 1e-4
    torch.testing.assert_close(logits(read_mine(out, model)), logits(load_whole(open_registered(str(model)))))
    by_type = tmp_path / "b.safetensors"
    assert (
        body_of(environment, "export", model, "-o", by_type, "--type", "whole-bf16")["type"] == "whole-bf16"
    )
    half = tmp_path / "c.safetensors"
    chosen = ["--method", "magnitude", "--sparsity", "0.5", "--export", "mine"]
    body_of(environment, "prune", model, "-o", half, *chosen)
    weight = load_file(half)["model.layers.1.mlp.up_proj.weight"]
    assert float((weight == 0).float().mean()) == pytest.approx(0.5, abs=0.01)


@pytest.mark.slow
@pytest.mark.ci
def test_what_does_not_match_is_refused(environment: dict[str, str], tiny: Maker, tmp_path: Path) -> None:
    done = run_secateur(environment, "export", tiny("llama"), "-o", tmp_path / "a", "--format", "mien")
    assert done.returncode == 2
    assert "unknown --format 'mien' (did you mean mine?); known: dense, gguf, mine, sparse" in done.stderr
    chosen = ["--method", "magnitude", "--sparsity", "0.5", "--export", "mine"]
    done = run_secateur(environment, "prune", tiny("llama"), "-o", tmp_path / "a", *chosen)
    assert done.returncode == 2
    assert "does not end in .safetensors" in done.stderr


@pytest.mark.slow
@pytest.mark.ci
def test_a_recipe_exports_and_estimates_it(environment: dict[str, str], tiny: Maker, tmp_path: Path) -> None:
    stages = [
        {"prune": {"method": "width", "ratio": 0.3}},
        {"export": {"format": "mine", "type": "whole-f32"}},
        {"gate": {"size": "1MB"}},
    ]
    recipe = tmp_path / "recipe.yaml"
    text = {"samples": 4, "window": 64}
    recipe.write_text(yaml.safe_dump({"model": str(tiny("llama")), "calibration": text, "stages": stages}))
    out = tmp_path / "out"
    expected = body_of(environment, "run", recipe, "-o", out, "--dry-run")[1]
    body = body_of(environment, "run", recipe, "-o", out)
    export = body["stages"][1]
    assert body["file"] == str(out / "model.safetensors")
    assert export["bytes"] == (out / "model.safetensors").stat().st_size
    assert export["bytes"] == pytest.approx(expected["bytes"], rel=0.1)
    assert (export["type"], export["off"] < 1e-4) == ("whole-f32", True)
    torch.testing.assert_close(
        logits(read_mine(out / "model.safetensors", out / "model")),
        logits(load_whole(open_registered(str(out / "model")))),
    )


@pytest.mark.slow
@pytest.mark.ci
def test_advise_weighs_its_types_and_help_lists_it(environment: dict[str, str], tiny: Maker) -> None:
    found = body_of(environment, "advise", tiny("llama"), "--device", "pi5", "--ram", "2G")
    assert "whole-f32" in {option["type"] for option in found["options"]}
    shown = run_secateur(environment, "export", "--help").stdout
    assert "mine: one safetensors file" in " ".join(shown.split())
