"""Training of the whole model.

Nearer to the teacher, zeros kept, exact resume, several processes, and everything that stops it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.conftest import Maker
from tests.pipeline.recover.test_local_reconstruction import (
    DEEP,
    EXACT,
    PRUNED,
    PRUNING,
    TEXT,
    _bytes,
    _divergence,
    _weights,
)
from torch import Tensor

import secateur
from secateur.calibrate.calibration import calibration_tokens
from secateur.core.context import Settings
from secateur.core.plan import Plan
from secateur.model.handle import open_model
from secateur.pipeline.evaluate.verify import verify
from secateur.pipeline.prune.apply import apply
from secateur.pipeline.prune.prune import prune
from secateur.pipeline.prune.weights.decide import Sparsity
from secateur.pipeline.recover.distill import Distill
from secateur.pipeline.recover.training_run import Recovered
from secateur.train.learner import Beside
from secateur.train.trainer import Trainer
from secateur_runtime.errors import UsageError

SHORT: dict[str, Any] = {"steps": 12, "batch": 192, "micro": 2, "rate": 3e-3, "checks": 4}


def _recover(student: Path, teacher: Path, out: Path, settings: Settings = EXACT, **how: Any) -> Recovered:
    return secateur.recover(
        str(student), out, Distill(**(SHORT | how)), teacher=str(teacher), calibration=TEXT, settings=settings
    )


@pytest.fixture(scope="module")
def pruned(tiny: Maker, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("pruned") / "out"
    return prune(
        str(tiny("llama")), out, sparsity=0.5, method="wanda", calibration=PRUNING, settings=EXACT
    ).out


@pytest.fixture
def student(pruned: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pruned, tmp_path / "student"))


@pytest.mark.parametrize(
    ("kind", "trains", "rate"),
    [
        ("2:4", "all", 1e-3),
        ("uneven", "all", 3e-4),
        ("channels", "all", 1e-3),
        ("wanda", "lora", 3e-3),
        ("halves", "lora", 3e-3),
    ],
)
def test_students_of_every_shape_come_nearer_to_their_teacher_and_keep_their_zeros(
    tiny: Maker, tmp_path: Path, kind: str, trains: str, rate: float
) -> None:
    teacher = tiny("llama", **DEEP)
    prune(str(teacher), tmp_path / "student", PRUNED[kind], calibration=PRUNING, settings=EXACT)
    how, text = (
        Distill(**(SHORT | {"trains": trains, "rate": rate, "steps": 16, "micro": 4})),
        replace(TEXT, samples=64),
    )
    made = secateur.recover(
        str(tmp_path / "student"),
        tmp_path / "out",
        how,
        teacher=str(teacher),
        calibration=text,
        settings=EXACT,
    )
    assert made.trained is not None
    assert made.trained.best < made.trained.start
    held = calibration_tokens(open_model(str(teacher)), text, 0)[-8:]
    assert _divergence(tmp_path / "out", teacher, held) < _divergence(tmp_path / "student", teacher, held)
    start, end = _weights(tmp_path / "student"), _weights(tmp_path / "out")
    for name, weight in start.items():
        if "proj" in name and isinstance(PRUNED[kind], Sparsity):
            assert torch.equal(weight == 0, end[name] == 0), name
        assert trains == "all" or "proj" in name or torch.equal(weight, end[name]), name
    verify(str(tmp_path / "out"))


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_biases_alone(tiny: Maker, tmp_path: Path, family: str) -> None:
    prune(
        str(tiny(family)),
        tmp_path / "student",
        sparsity=0.5,
        method="wanda",
        calibration=PRUNING,
        settings=EXACT,
    )
    made = _recover(tmp_path / "student", tiny(family), tmp_path / "out", trains="bias", rate=1e-2)
    assert made.changed
    start, end = _weights(tmp_path / "student"), _weights(tmp_path / "out")
    assert all(torch.equal(start[name], end[name]) for name in start if not name.endswith(".bias"))
    assert any(end[name].any() for name in end.keys() - start.keys())
    verify(str(tmp_path / "out"))


def test_a_family_without_biases(tiny: Maker, tmp_path: Path) -> None:
    prune(str(tiny("phi3")), tmp_path / "student", sparsity=0.5, method="magnitude", settings=EXACT)
    with pytest.raises(UsageError, match="holds no biases"):
        _recover(tmp_path / "student", tiny("phi3"), tmp_path / "out", trains="bias")
    assert not (tmp_path / "out.partial").exists()


@pytest.mark.parametrize(
    "how",
    [
        {"loss": "reverse"},
        {"loss": "both", "temperature": 2.0, "top": 8, "schedule": "wsd"},
        {"states": 0.5, "text": 0.1, "checkpointing": True},
    ],
)
def test_every_loss_and_schedule(tiny: Maker, student: Path, tmp_path: Path, how: dict[str, Any]) -> None:
    made = _recover(student, tiny("llama"), tmp_path / "out", Settings(), **how)
    assert (made.after.kl or 9) < (made.before.kl or 0)


def test_accumulated_pieces_and_recomputed_activations_give_what_one_batch_gives(
    tiny: Maker, student: Path, tmp_path: Path
) -> None:
    whole = _recover(student, tiny("llama"), tmp_path / "whole", micro=4)
    ways: dict[str, dict[str, Any]] = {"pieces": {"micro": 1}, "again": {"micro": 4, "checkpointing": True}}
    for name, how in ways.items():
        made = _recover(student, tiny("llama"), tmp_path / name, **how)
        assert made.trained is not None
        assert whole.trained is not None
        assert made.trained.best == pytest.approx(whole.trained.best, rel=1e-3)


class _Killed(BaseException):
    """Like a kill: nothing catches it."""


@pytest.mark.parametrize("trains", ["all", "lora"])
def test_a_killed_run_goes_on_and_gives_the_same_bytes(
    tiny: Maker, student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trains: str
) -> None:
    _recover(student, tiny("llama"), tmp_path / "whole", trains=trains)
    step = Trainer._step

    def kill_at(last: int) -> None:
        done = list[int]()

        def counted(self: Trainer, *given: Any) -> bool:
            if len(done) == last:
                raise _Killed
            done.append(1)
            return step(self, *given)

        monkeypatch.setattr(Trainer, "_step", counted)
        with pytest.raises(_Killed):
            _recover(student, tiny("llama"), tmp_path / "out", trains=trains)

    for last in (2, 5, 4):
        kill_at(last)
    monkeypatch.undo()
    resumed = _recover(student, tiny("llama"), tmp_path / "out", trains=trains)
    assert resumed.trained is not None
    assert resumed.trained.tokens < 12 * 192
    assert _bytes(tmp_path / "out") == _bytes(tmp_path / "whole")


def test_what_trains_to_nothing_leaves_the_student_as_it_was(
    tiny: Maker, student: Path, tmp_path: Path
) -> None:
    made = _recover(student, tiny("llama"), tmp_path / "out", rate=30.0)
    assert made.trained is not None
    assert (made.changed, made.trained.best_step) == (0, 0)
    assert made.trained.steps < 12
    start, end = _weights(student), _weights(tmp_path / "out")
    assert all(torch.equal(start[name], end[name]) for name in start)


def test_a_gradient_that_is_not_a_number_ends_the_run_and_keeps_the_best(
    tiny: Maker, student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, done = Trainer._step, list[int]()

    def poisoned(self: Trainer, tokens: Tensor, targets: Any, chosen: Tensor, number: int) -> bool:
        done.append(number)
        if number == 8:
            targets = type(targets)(targets.tokens, targets.logs * float("nan"), targets.states)
        return step(self, tokens, targets, chosen, number)

    monkeypatch.setattr(Trainer, "_step", poisoned)
    made = _recover(student, tiny("llama"), tmp_path / "out")
    assert made.trained is not None
    assert done[-1] == 8
    assert made.trained.best_step == 6
    assert made.changed


def test_out_of_memory_names_what_fits(
    tiny: Maker, student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crowded(limit: int) -> None:
        whole = Beside.forward

        def forward(self: Any, tokens: Tensor, targets: Any) -> Tensor:
            if self.training and len(tokens) > limit:
                raise RuntimeError(
                    "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate"
                    " 9999999999 bytes"
                )
            return whole(self, tokens, targets)

        monkeypatch.setattr(Beside, "forward", forward)

    with monkeypatch.context():
        crowded(1)
        with pytest.raises(
            UsageError, match="out of memory with 4 windows of 48 tokens at once: --micro 1 fits"
        ):
            _recover(student, tiny("llama"), tmp_path / "out", micro=4)
        crowded(0)
        with pytest.raises(
            UsageError, match="out of memory with one window of 48 tokens: pass --checkpointing"
        ):
            _recover(student, tiny("llama"), tmp_path / "out", micro=4)
    assert not (tmp_path / "out.partial").exists()


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"loss": "forwrd"}, "did you mean forward"),
        ({"schedule": "cosin"}, "did you mean cosine"),
        ({"temperature": 0.0}, "--temperature 0.0 must be above 0"),
        ({"rate": -1.0}, "--rate -1.0 must be above 0"),
        ({"held": 1.0}, "held must be between 0 and 1"),
    ],
)
def test_options_that_cannot_work(
    tiny: Maker, student: Path, tmp_path: Path, how: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        _recover(student, tiny("llama"), tmp_path / "out", **how)


@pytest.mark.parametrize(
    ("steps", "samples", "looks"), [(2000, 512, 10), (400, 512, 3), (60, 68, 3), (2, 512, 2)]
)
def test_held_out_text_is_looked_at_as_often_as_costs_a_sixth_of_the_training(
    steps: int, samples: int, looks: int
) -> None:
    """Steps of one window; an eighth of the windows is held out; a look costs a third of training on it."""
    assert Distill(steps=steps, batch=512, micro=1).regime(samples, 512, 1, bfloat16=False).checks == looks


def test_each_weight_learns_at_the_rate_of_its_own_size_and_embeddings_stay(
    tiny: Maker, student: Path, tmp_path: Path
) -> None:
    """The first step of Adam moves every weight by the rate."""
    made = _recover(student, tiny("llama"), tmp_path / "out", steps=1, rate=1e-2, checks=1)
    assert made.changed
    start, end = _weights(student), _weights(tmp_path / "out")
    for name, weight in start.items():
        moved = (end[name] - weight).abs()
        if "embed" in name or "lm_head" in name:
            assert not moved.any(), name
        elif "proj" in name:
            alive = weight != 0
            assert float(moved[alive].median()) == pytest.approx(
                1e-2 * float(weight[alive].square().mean().sqrt()), rel=0.02
            ), name


@pytest.mark.timeout(300)
def test_two_processes_train_what_one_does(tiny: Maker, student: Path, tmp_path: Path) -> None:
    options = [
        "--teacher",
        tiny("llama"),
        "--method",
        "distill",
        "--steps",
        "8",
        "--batch",
        "192",
        "--micro",
        "2",
        "--rate",
        "3e-3",
        "--samples",
        "24",
    ]
    command = [
        "recover",
        student,
        *options,
        "--calib-window",
        "48",
        "--dtype",
        "float32",
        "--compute",
        "float32",
        "--json",
    ]
    env = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    launch = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--cpu",
        "--num_processes",
        "2",
        "--num_machines",
        "1",
        "--mixed_precision",
        "no",
    ]
    launch += ["--dynamo_backend", "no", "--main_process_port", "0", "-m", "secateur"]
    done = subprocess.run(
        [*map(str, [*launch, *command]), "-o", str(tmp_path / "two")],
        capture_output=True,
        text=True,
        env=env,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    text, how = replace(TEXT, samples=24), Distill(steps=8, batch=192, micro=2, rate=3e-3)
    alone = secateur.recover(
        str(student), tmp_path / "one", how, teacher=str(tiny("llama")), calibration=text, settings=EXACT
    )
    assert alone.trained is not None
    assert found["steps"] == alone.trained.steps == 8
    assert found["kl_after"] == pytest.approx(alone.after.kl, rel=1e-3)
    one, two = _weights(tmp_path / "one"), _weights(tmp_path / "two")
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, rtol=1e-2, atol=1e-3)


def test_zeros_that_grow_while_it_is_trained(
    tiny: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The zeros asked for, nearer to the teacher than all at once, and the same bytes after a kill."""
    model, step = tiny("llama"), Trainer._step
    how: dict[str, Any] = {"sparsity": 0.5, "steps": 30, "checks": 6}
    made = _recover(model, model, tmp_path / "whole", **how)
    assert made.trained is not None
    assert made.trained.best_step > 18
    plan = Plan.from_json((tmp_path / "whole" / "plan.json").read_text())
    weights = _weights(tmp_path / "whole")
    for name in plan.sparsity:
        assert float((weights[name] == 0).float().mean()) == pytest.approx(0.5, abs=1e-3), name
    verify(str(tmp_path / "whole"))
    at_once = apply(plan, str(model), tmp_path / "once", settings=EXACT)
    held = calibration_tokens(open_model(str(model)), TEXT, 0)[-3:]
    assert at_once.sparsity == pytest.approx(0.5, abs=1e-3)
    assert _divergence(tmp_path / "whole", model, held) < _divergence(tmp_path / "once", model, held)

    def killed(self: Trainer, tokens: Tensor, targets: Any, chosen: Tensor, number: int) -> bool:
        if number == 13:
            raise _Killed
        return step(self, tokens, targets, chosen, number)

    monkeypatch.setattr(Trainer, "_step", killed)
    with pytest.raises(_Killed):
        _recover(model, model, tmp_path / "out", **how)
    monkeypatch.undo()
    _recover(model, model, tmp_path / "out", **how)
    assert _bytes(tmp_path / "out") == _bytes(tmp_path / "whole")


def test_zeros_grow_only_where_all_weights_are_trained(tiny: Maker, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="only where all are trained"):
        _recover(tiny("llama"), tiny("llama"), tmp_path / "out", sparsity=0.5, trains="lora")
