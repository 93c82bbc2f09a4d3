"""The model card: what it says is so, and what it says to do works."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tests.conftest import Maker

import secateur
from secateur.calibrate.calibration import Calibration
from secateur.core.plan import Plan
from secateur.export.cards.pruned_card import Facts, model_card
from secateur.model.formats.open_source import hub_name
from secateur.model.handle import open_model

FACTS: dict[str, Any] = {
    "name": "tiny",
    "base": "",
    "parameters": 1000,
    "bytes": 2000,
    "zeros": 0.0,
    "difference": 1e-7,
    "stock": True,
}


def _front(card: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(card.split("---\n")[1])
    return found


def _load(folder: Path) -> Any:
    """Do what the card says."""
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(code.replace("path/to/this/folder", str(folder)), names)
    assert names["tokenizer"]("Pruning")["input_ids"]
    return names["model"]


@pytest.mark.parametrize("stock", [True, False])
def test_a_written_folder_tells_of_itself(tiny: Maker, tmp_path: Path, stock: bool) -> None:
    source = tmp_path / "source"
    shutil.copytree(tiny("llama"), source)
    (source / "README.md").write_text("the card of the source")
    keep = {f"{index}.ffn": tuple(range(64)) for index in range(3)} | {"hidden": tuple(range(60))}
    drop = () if stock else ("1.attn",)
    plan = Plan(
        model=open_model(str(source)).digest,
        keep=keep,
        drop=drop,
        made_by={"repair": "none", "target": "ratio=0.3"},
    )
    made = secateur.apply(plan, str(source), tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert _front(card) == {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["pruned", "secateur"],
    }
    assert "the card of the source" not in card
    assert str(tmp_path) not in card
    assert f"| {open_model(str(source)).graph.parameters:,} | {made.parameters:,} |" in card
    assert f"by {made.reload_difference:.1e} of" in card
    assert "FFN neurons per block: 96 before, 64 after." in card
    assert "Hidden channels: 64 before, 60 after." in card
    assert ("Attention removed, of 3 blocks counted from 0: 1." in card) is not stock
    assert ("trust_remote_code" in card) is not stock
    assert sum(parameter.numel() for parameter in _load(tmp_path / "out").parameters()) == made.parameters


def test_zeros_and_calibration(tiny: Maker, tmp_path: Path) -> None:
    text = tmp_path / "mine.txt"
    text.write_text("the gardener cuts the branches that bear no fruit\n" * 400)
    calibration = Calibration(text=str(text), samples=2, window=64)
    plan = secateur.plan(str(tiny("llama")), sparsity=0.5, method="wanda", calibration=calibration)
    made = secateur.apply(plan, str(tiny("llama")), tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "Single weights of 21 matrices, set to zero: 0.5." in card
    assert f"| zeros in the pruned matrices | | {made.sparsity:.1%} |" in card
    assert (
        f"Calibration text: mine.txt, 2 windows of 64 tokens, digest `{plan.made_by['calibration_digest']}`"
        in card
    )
    assert "Criterion for weights: wanda" in card
    assert str(tmp_path) not in card
    stored = open_model(str(tmp_path / "out")).source.read("model.embed_tokens.weight")
    assert torch.equal(_load(tmp_path / "out").model.embed_tokens.weight.float(), stored.float())


def test_heads_and_blocks(tiny: Maker) -> None:
    graph = open_model(str(tiny("llama"))).graph
    card = model_card(
        Plan(model="sha256:0", keep={"0.head": (0, 2), "1.kv": (0,)}, drop=("2",)), graph, Facts(**FACTS)
    )
    assert "Key-value heads per block: 2 before, 1 to 2 (mean 1.5) after." in card
    assert "Query heads per block: 4 before, 2 after." in card
    assert "Whole blocks removed, of 3 blocks counted from 0: 2." in card
    assert "Hidden channels" not in card


def test_only_a_hub_id_is_a_base_model(tiny: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org" / "local").mkdir(parents=True)
    names = {"org/name": "org/name", "org/local": "", "smollm2-135m": "", "/some/where": "", "model.gguf": ""}
    assert {name: hub_name(name) for name in names} == names
    front = _front(
        model_card(
            Plan(model="sha256:0"),
            open_model(str(tiny("llama"))).graph,
            Facts(**{**FACTS, "base": "org/name"}),
        )
    )
    assert front["base_model"] == "org/name"
