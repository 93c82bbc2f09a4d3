"""What every row of the family table must do: read, stream, and go through GGUF and back."""

from __future__ import annotations

import ast
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.conftest import Maker
from tests.model.formats.gguf.gguf_variants import logits

import secateur
from secateur.core.progress import Silent
from secateur.export.gguf.description import describe, naming_of
from secateur.export.gguf.layout import lay_out
from secateur.model.families import FAMILIES
from secateur.model.formats.gguf.config import stored_family
from secateur.model.formats.gguf.header import read_header
from secateur.model.handle import open_model
from secateur_runtime.errors import UsageError

SRC = Path(secateur.__file__).parents[1]
NAMING = {
    "secateur/adapt/serving/llamacpp_backend.py",  # the name of a thread
    "secateur/device/synthetic_gguf.py",  # a file that only llama.cpp times
    "secateur/export/gguf/tokenizer.py",  # "llama" and "qwen2" are kinds of tokenizers too
    "secateur/model/formats/gguf/tokenizer.py",
}
"""Files where a family's name is a string and means something else."""
STORED = [name for name in FAMILIES if FAMILIES[name].gguf]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_graph_has_every_tensor_once(tiny: Maker, family: str) -> None:
    model = open_model(str(tiny(family)))
    names = [*model.graph.outside, *(name for block in model.graph.blocks for name in block.tensors)]
    assert sorted(names) == sorted(model.source.tensors)
    linears = [linear.module for linear in model.graph.blocks[0].linears]
    assert linears == [module for stage in FAMILIES[family].stages for module in stage]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_streamed_logits_are_those_of_transformers(tiny: Maker, family: str) -> None:
    from transformers import AutoModelForCausalLM

    stream = open_model(str(tiny(family))).stream()
    (states,) = stream.embed([torch.arange(40).reshape(1, 40)])
    for index in range(len(stream)):
        with stream.open(index) as block:
            states = block(states)
    whole = AutoModelForCausalLM.from_pretrained(tiny(family), dtype=torch.float32).eval()
    found = torch.cat(list(stream.logits(states[0])))
    torch.testing.assert_close(found, logits(whole)[0], rtol=0, atol=2e-5)


@pytest.mark.parametrize("family", STORED)
def test_gguf_and_back_is_the_same_model(tiny: Maker, tmp_path: Path, family: str) -> None:
    path = tmp_path / "a.gguf"
    model = open_model(str(tiny(family)))
    describe(model, lay_out(model.graph, naming_of(model)), "f32").write(path, Silent())
    again = open_model(str(path))
    assert again.graph.family == (FAMILIES[family].in_gguf().read_as or family)
    assert set(again.source.tensors) == set(model.source.tensors)
    for name in model.source.tensors:
        # A norm is stored with its offset, which rounds it.
        torch.testing.assert_close(again.source.read(name), model.source.read(name), rtol=0, atol=3e-7)
    assert again.graph.blocks == model.graph.blocks


@pytest.mark.parametrize("family", STORED)
def test_a_file_is_read_as_the_family_that_its_row_says(tiny: Maker, tmp_path: Path, family: str) -> None:
    path = tmp_path / "a.gguf"
    model = open_model(str(tiny(family)))
    describe(model, lay_out(model.graph, naming_of(model)), "f32").write(path, Silent())
    stored = FAMILIES[family].in_gguf()
    found = stored_family(read_header(path))
    assert found.name == (stored.read_as or family)
    assert found.in_gguf().loader == stored.loader


def test_two_families_that_claim_one_architecture(tiny_gguf: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    twin = replace(FAMILIES["llama"], name="twin")
    monkeypatch.setattr(FAMILIES, "_rows", {"llama": FAMILIES["llama"], "twin": twin})
    with pytest.raises(UsageError, match="'llama' is claimed by llama and twin: uninstall"):
        stored_family(read_header(tiny_gguf("llama")))


def test_a_module_without_a_name_in_gguf_is_found_when_the_row_is_made() -> None:
    stored = replace(FAMILIES["phi3"].in_gguf(), names={})
    with pytest.raises(ValueError, match=r"family phi3: gguf.names has no name for self_attn.qkv_proj"):
        replace(FAMILIES["phi3"], gguf=stored)


def test_no_other_file_of_the_product_names_a_family() -> None:
    names = {name for family in FAMILIES for name in (family, FAMILIES[family].architecture)}
    names |= {FAMILIES[family].in_gguf().loader.name for family in STORED}
    found = {
        str(path.relative_to(SRC))
        for path in SRC.rglob("*.py")
        if path.parent.name != "families"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and node.value in names
    }
    assert found == NAMING


def test_help_imports_no_family() -> None:
    code = (
        "import sys\nimport secateur.cli.main as main\n"
        "try:\n    sys.argv = ['secateur', '--help']; main.run()\nexcept SystemExit: pass\n"
        "print([name for name in sys.modules if name.startswith('secateur.model.families')], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def test_reading_formats_imports_no_family() -> None:
    """Rows are read on first use."""
    code = (
        "import sys, secateur.model.formats.gguf.gguf_source, secateur.model.formats.open_source\n"
        "print([name for name in sys.modules if name.startswith('secateur.model.families.')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
