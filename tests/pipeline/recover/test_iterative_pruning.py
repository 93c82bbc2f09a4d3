"""Pruning and training in turns.

The width asked for, nearer to the teacher than all at once, the same bytes after a kill.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from tests.conftest import Maker
from tests.pipeline.recover.test_local_reconstruction import EXACT, TEXT, _bytes

from secateur.model.handle import open_model
from secateur.pipeline.evaluate.verify import verify
from secateur.pipeline.prune.width.decide import Width
from secateur.pipeline.recover.distill import Distill
from secateur.pipeline.recover.iterative_pruning import Interleaved
from secateur.pipeline.recover.recover import recover
from secateur.pipeline.recover.training_run import Recovered
from secateur.train.teacher_targets import teach
from secateur.train.trainer import Trainer
from secateur_runtime.errors import OutputError, UsageError

HOW = Interleaved(
    width=Width(ratio=0.5, align=8, allocation="adapt"),
    distill=Distill(steps=16, batch=192, rate=5e-4, checks=2, schedule="wsd"),
    stages=2,
)


def _run(tiny: Maker, out: Path, how: Interleaved = HOW) -> Recovered:
    model = str(tiny("llama"))
    return recover(model, out, how, teacher=model, calibration=TEXT, settings=EXACT)


class _Killed(BaseException):
    """Like a kill: nothing catches it."""


def test_stages_add_up_and_a_killed_run_goes_on(
    tiny: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Mock(wraps=teach)
    monkeypatch.setattr("secateur.pipeline.recover.distill.teach", asked)
    made = _run(tiny, tmp_path / "whole")
    asked.assert_called_once()
    whole, narrow = (open_model(str(folder)).graph for folder in (tiny("llama"), tmp_path / "whole"))
    left = sum(block.shape.intermediate_size for block in narrow.blocks) / sum(
        block.shape.intermediate_size for block in whole.blocks
    )
    assert left == pytest.approx(0.5, abs=0.06)
    assert made.after.kl is not None
    assert made.before.kl is not None
    assert made.after.kl <= made.before.kl
    assert not (tmp_path / "whole.stages").exists()
    verify(str(tmp_path / "whole"))
    step, done = Trainer._step, list[int]()

    def killed(self: Trainer, *given: Any) -> bool:
        done.append(1)
        if len(done) == 12:
            raise _Killed
        return step(self, *given)

    monkeypatch.setattr(Trainer, "_step", killed)
    with pytest.raises(_Killed):
        _run(tiny, tmp_path / "out")
    monkeypatch.undo()
    with pytest.raises(OutputError, match="holds an unfinished run with other settings"):
        _run(tiny, tmp_path / "out", Interleaved(width=HOW.width, distill=HOW.distill, stages=3))
    _run(tiny, tmp_path / "out")
    assert _bytes(tmp_path / "out") == _bytes(tmp_path / "whole")


def test_what_cannot_work(tiny: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="at least 2 stages"):
        _run(tiny, tmp_path / "out", Interleaved(stages=1))
    with pytest.raises(UsageError, match="needs a ratio"):
        _run(tiny, tmp_path / "out", Interleaved(width=Width(target="params=80%")))
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="runs in one process"):
        _run(tiny, tmp_path / "out")
    assert not list(tmp_path.iterdir())
