"""The call: what is used where nothing is said, and which job does what."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.conftest import Maker

from secateur.calibrate.calibration import Calibration
from secateur.pipeline.prune.prune import prune
from secateur.pipeline.recover.local_reconstruction import Local
from secateur.pipeline.recover.recover import recover
from secateur_runtime.errors import OutputError, SourceError

TEXT = Calibration(samples=6, window=32)


@pytest.fixture
def student(tiny: Maker, tmp_path: Path) -> str:
    prune(str(tiny("llama")), tmp_path / "student", sparsity=0.5, method="magnitude")
    return str(tmp_path / "student")


def test_nothing_said_is_local_reconstruction(tiny: Maker, student: str, tmp_path: Path) -> None:
    teacher = str(tiny("llama"))
    made = recover(student, tmp_path / "a", teacher=teacher, calibration=TEXT, seed=1)
    assert made.method == "local"
    assert made.trained is None
    again = recover(student, tmp_path / "b", Local(), teacher=teacher, calibration=TEXT, seed=1)
    assert again.after == made.after
    noted = json.loads((tmp_path / "a" / "secateur.json").read_text())["recovery"]
    assert (noted["samples"], noted["window"], noted["seed"]) == ("6", "32", "1")
    assert {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()} == {
        path.name: path.read_bytes() for path in (tmp_path / "b").iterdir()
    }


def test_mistakes_leave_nothing(tiny: Maker, student: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="does not exist"):
        recover(student, tmp_path / "out", teacher="no-such-model", calibration=TEXT)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("")
    with pytest.raises(OutputError, match="exists: choose another --output"):
        recover(student, tmp_path / "out", teacher=str(tiny("llama")), calibration=TEXT)
    assert (tmp_path / "out" / "mine").exists()
