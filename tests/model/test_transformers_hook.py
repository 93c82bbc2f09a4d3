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

ORDERS = (
    "import secateur\nfrom transformers import AutoModelForCausalLM",
    "from transformers import AutoModelForCausalLM\nimport secateur",
)


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


FORKS = """
import os, sys, torch._dynamo, torch.distributed.tensor, torch.export
assert not {"secateur", "transformers"} & set(sys.modules)
for code in sys.argv[1:]:
    sys.stdout.flush()
    if not os.fork():
        exec(code)
        sys.exit()
    if os.wait()[1]:
        sys.exit(1)
"""


def _run(*codes: str) -> list[str]:
    """Return what each prints, a line, in a process of its own that has imported nothing but torch."""
    done = subprocess.run([sys.executable, "-c", FORKS, *codes], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.timeout(300)
def test_no_remote_code_is_needed(unequal: Path, tmp_path: Path) -> None:
    code = f"""
model = AutoModelForCausalLM.from_pretrained({str(unequal)!r})
model.save_pretrained({str(tmp_path / "again")!r})
again = AutoModelForCausalLM.from_pretrained({str(tmp_path / "again")!r})
assert all((left == right).all() for left, right in zip(model.parameters(), again.parameters(), strict=True))
print(type(model).__module__, again.config.hidden_size)
"""
    alone = f"""
import secateur
from transformers import AutoConfig, AutoTokenizer
AutoTokenizer.from_pretrained({str(unequal)!r})
print(AutoConfig.from_pretrained({str(unequal)!r}).model_type)
"""
    # The watched module is imported as it is without us, and the finder is removed afterwards.
    as_ever = """
import sys
import secateur
from transformers import LlamaForCausalLM
from transformers.models.auto import configuration_auto as auto
watched = any("secateur" in type(each).__module__ for each in sys.meta_path)
print(auto.__loader__ is auto.__spec__.loader, type(auto.__loader__).__name__, watched)
"""
    said = _run(*(f"{order}\n{code}" for order in ORDERS), alone, as_ever)
    assert said == ["secateur.model.unequal_blocks 63"] * 2 + [
        "secateur_llama",
        "True SourceFileLoader False",
    ]
