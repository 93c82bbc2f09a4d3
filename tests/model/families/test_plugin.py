"""A family that the product does not know, as one row in an installed distribution, through the command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.cli.command import SMALL
from tests.plugins import install_plugin, run_secateur
from tests.tiny_models import TEXT, save_tiny

from secateur.model.families import FAMILIES

SEED_OSS = '''
"""Seed-OSS: Llama with flags of its own for the biases of attention."""

from secateur.model.families import QKV, Family, GgufFamily, add_family
from secateur.model.formats.gguf.loaders import GgufLoader

add_family(
    Family(
        name="seed_oss",
        architecture="SeedOssForCausalLM",
        bias_flags={"attention_bias": QKV, "attention_out_bias": ("self_attn.o_proj",)},
        gguf=GgufFamily(
            loader=GgufLoader(name="seed_oss"), names={"post_attention_layernorm": "post_attention_norm"}
        ),
    )
)
'''
WITHOUT_GGUF = SEED_OSS.partition("        gguf=")[0] + "    )\n)\n"
LOGITS = """
import json, sys, torch, secateur
from secateur.model.handle import open_model
from transformers import AutoModelForCausalLM

tokens = torch.arange(40).reshape(1, 40)
found = []
for ref in sys.argv[1:]:
    stream = open_model(ref).stream()
    (states,) = stream.embed([tokens])
    for index in range(len(stream)):
        with stream.open(index) as block:
            states = block(states)
    found.append(torch.cat(list(stream.logits(states[0]))))
    if not ref.endswith(".gguf"):
        model = AutoModelForCausalLM.from_pretrained(ref, dtype=torch.float32).eval()
        with torch.no_grad():
            found.append(model(tokens).logits[0])
print(json.dumps([logits.tolist() for logits in found]))
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    assert "seed_oss" not in FAMILIES
    folder = tmp_path_factory.mktemp("seed_oss")
    save_tiny("seed_oss", folder, None, {"head_dim": 32, "attention_bias": True})
    return folder


def logits(environment: dict[str, str], *refs: object) -> list[torch.Tensor]:
    """Return, for each model, what our stream gives, and for a folder also what transformers gives."""
    done = subprocess.run(
        [sys.executable, "-c", LOGITS, *map(str, refs)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows: list[Any] = json.loads(done.stdout)
    return [torch.tensor(row) for row in rows]


def test_one_row_prunes_and_exports(model: Path, tmp_path: Path) -> None:
    environment = install_plugin(tmp_path / "plugin", "seed_oss", "secateur.families", SEED_OSS)
    text = tmp_path / "text.txt"
    text.write_text(TEXT * 4)
    pruned = tmp_path / "pruned"
    chosen = ["--method", "width", "--ratio", "0.3", "--uniform", "--calib", text, *SMALL]
    done = run_secateur(environment, "prune", model, "-o", pruned, *chosen)
    assert done.returncode == 0, done.stderr
    width = json.loads((pruned / "config.json").read_text())["intermediate_size"]
    assert width < 96
    ours, stock, small, small_stock = logits(environment, model, pruned)
    torch.testing.assert_close(ours, stock, rtol=0, atol=2e-5)
    torch.testing.assert_close(small, small_stock, rtol=0, atol=2e-5)
    assert not torch.allclose(ours, small, atol=1e-3)

    pytest.importorskip("xllamacpp", reason="pip install 'secateur[llamacpp]'")
    file = tmp_path / "pruned.gguf"
    done = run_secateur(environment, "export", pruned, "-o", file, "--type", "f32")
    assert done.returncode == 0, done.stderr
    (again,) = logits(environment, file)
    torch.testing.assert_close(again, small, rtol=0, atol=2e-5)


@pytest.mark.slow
@pytest.mark.ci
def test_blocks_of_unequal_width_load_and_are_refused_by_an_export(model: Path, tmp_path: Path) -> None:
    environment = install_plugin(tmp_path / "plugin", "seed_oss", "secateur.families", SEED_OSS)
    pruned = tmp_path / "pruned"
    chosen = ["--method", "width", "--ratio", "0.3", "--align", "8", "--allocation", "sensitivity", *SMALL]
    done = run_secateur(environment, "prune", model, "-o", pruned, *chosen)
    assert done.returncode == 0, done.stderr
    assert json.loads((pruned / "config.json").read_text())["model_type"] == "secateur_seed_oss"
    ours, stock = logits(environment, pruned)
    torch.testing.assert_close(ours, stock, rtol=0, atol=2e-5)
    done = run_secateur(environment, "export", pruned, "-o", tmp_path / "a.gguf", "--no-verify")
    assert done.returncode == 2
    assert "llama.cpp loads seed_oss only with blocks of equal width" in done.stderr


@pytest.mark.slow
@pytest.mark.ci
def test_a_family_without_a_known_gguf_architecture_is_refused_in_one_line(
    model: Path, tmp_path: Path
) -> None:
    environment = install_plugin(tmp_path / "plugin", "seed_oss", "secateur.families", WITHOUT_GGUF)
    done = run_secateur(environment, "export", model, "-o", tmp_path / "a.gguf")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "GGUF has no known architecture for seed_oss; known: gemma2, " in done.stderr
    assert not (tmp_path / "a.gguf").exists()


def test_without_the_plug_in_the_family_is_unknown(model: Path) -> None:
    done = run_secateur(dict(os.environ), "inspect", model)
    assert done.returncode == 2
    assert "model_type 'seed_oss' is not a known family" in done.stderr
