"""`import secateur`, before or after transformers, is enough to load blocks of unequal width."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tests.conftest import Maker

from secateur.core.plan import Plan
from secateur.model.handle import open_model
from secateur.pipeline.prune.apply import apply

ORDERS = {
    "secateur first": "import secateur\nfrom transformers import AutoModelForCausalLM",
    "transformers first": "from transformers import AutoModelForCausalLM\nimport secateur",
}


@pytest.fixture(scope="module")
def unequal(tiny: Maker, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A written model of unequal blocks whose channels its parent's class would refuse."""
    folder, out = tiny("llama"), tmp_path_factory.mktemp("unequal") / "out"
    keep = {"0.ffn": tuple(range(40)), "hidden": tuple(range(63))}
    apply(
        Plan(model=open_model(str(folder)).digest, keep=keep, drop=("1.attn",), made_by={"repair": "none"}),
        str(folder),
        out,
    )
    return out


def _run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("order", ORDERS)
def test_no_remote_code_is_needed(unequal: Path, tmp_path: Path, order: str) -> None:
    code = f"""
{ORDERS[order]}
model = AutoModelForCausalLM.from_pretrained({str(unequal)!r})
model.save_pretrained({str(tmp_path / "again")!r})
again = AutoModelForCausalLM.from_pretrained({str(tmp_path / "again")!r})
assert all((left == right).all() for left, right in zip(model.parameters(), again.parameters(), strict=True))
print(type(model).__module__, again.config.hidden_size)
"""
    assert _run(code) == "secateur.model.unequal_blocks 63"


def test_config_and_tokenizer_alone(unequal: Path) -> None:
    code = f"""
import secateur
from transformers import AutoConfig, AutoTokenizer
AutoTokenizer.from_pretrained({str(unequal)!r})
print(AutoConfig.from_pretrained({str(unequal)!r}).model_type)
"""
    assert _run(code) == "secateur_llama"


def test_importing_the_package_imports_nothing_heavy() -> None:
    assert (
        _run(
            "import sys, secateur; print(*(name for name in ('torch', 'transformers', 'numpy') if name in"
            " sys.modules))"
        )
        == ""
    )


def test_transformers_is_imported_as_ever() -> None:
    """The watched module is imported as it is without us, and the finder is removed afterwards."""
    code = """
import sys
import secateur
from transformers import LlamaForCausalLM
from transformers.models.auto import configuration_auto as auto
watched = any("secateur" in type(each).__module__ for each in sys.meta_path)
print(auto.__loader__ is auto.__spec__.loader, type(auto.__loader__).__name__, watched)
"""
    assert _run(code) == "True SourceFileLoader False"
