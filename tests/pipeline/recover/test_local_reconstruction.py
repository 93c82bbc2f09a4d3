"""Local reconstruction: nearer to the teacher, zeros kept, any shape, equal bytes after a kill."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.conftest import Maker
from torch import Tensor
from torch.nn.functional import kl_div, log_softmax
from transformers import AutoModelForCausalLM

import secateur
from secateur.calibrate.calibration import Calibration, calibration_tokens
from secateur.core.context import Settings
from secateur.core.plan import Plan
from secateur.model.handle import open_model
from secateur.model.written.checkpoint import Checkpoint
from secateur.pipeline.evaluate.verify import verify
from secateur.pipeline.prune.depth.decide import Depth
from secateur.pipeline.prune.prune import prune
from secateur.pipeline.prune.weights.decide import Sparsity
from secateur.pipeline.prune.width.decide import Width
from secateur.pipeline.recover import local_reconstruction
from secateur.pipeline.recover.layer_mapping import damaged, pair
from secateur.pipeline.recover.local_reconstruction import Local
from secateur.pipeline.recover.recover import recover
from secateur.pipeline.recover.training_run import Recovered
from secateur.pipeline.recover.weight_writer import Rewrite
from secateur.train.block_reconstruction import Course, Fit, reconstruct
from secateur_runtime.errors import OutputError, TextError, UsageError, VerificationError

PRUNING = Calibration(samples=8, window=48)
TEXT = Calibration(samples=24, window=48)
EXACT = Settings(dtype="float32", arithmetic="float32")
DEEP = {"num_hidden_layers": 6}
SHORT = Local(steps=15, batch=96, rate=0.02, dense=1.0)


def _bytes(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def _weights(folder: Path) -> dict[str, Tensor]:
    source = open_model(str(folder)).source
    return {name: source.read(name) for name in source.tensors}


def _divergence(student: Path, teacher: Path, tokens: Tensor) -> float:
    """An independent judge: whole models of stock transformers."""

    def logs(folder: Path) -> Tensor:
        with torch.no_grad():
            return log_softmax(
                AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
                .eval()(tokens)
                .logits[:, :-1],
                -1,
            )

    return float(kl_div(logs(student), logs(teacher), log_target=True, reduction="none").sum(-1).mean())


def _recover(
    student: Path, teacher: Path, out: Path, how: Local = SHORT, settings: Settings = EXACT
) -> Recovered:
    return recover(str(student), out, how, teacher=str(teacher), calibration=TEXT, settings=settings)


PRUNED: dict[str, Any] = {
    "wanda": Sparsity(sparsity=0.5, method="wanda", repair="lsq"),
    "2:4": Sparsity(sparsity="2:4", method="wanda"),
    "width": Width(units=("ffn", "kv"), ratio=0.4, align=8),
    "uneven": Width(units=("ffn",), ratio=0.4, align=8, allocation="knapsack"),
    "channels": Width(units=("hidden",), ratio=0.25, align=8),
    "depth": Depth(drop_layers=2),
    "halves": Depth(drop_layers=2, sub_blocks=True),
    "merged": Depth(drop_layers=2, criterion="laco"),
}


@pytest.mark.parametrize("kind", PRUNED)
def test_students_of_every_shape_come_nearer_to_their_teacher_and_keep_their_zeros(
    tiny: Maker, tmp_path: Path, kind: str
) -> None:
    teacher = tiny("llama", **DEEP)
    prune(str(teacher), tmp_path / "student", PRUNED[kind], calibration=PRUNING, settings=EXACT)
    # Behind a block that took in others, what 192 tokens say of directions in states of random weights is
    # noise.
    made = _recover(
        tmp_path / "student",
        teacher,
        tmp_path / "out",
        replace(SHORT, weighed=0) if kind == "merged" else SHORT,
    )
    assert made.changed > 0
    held = calibration_tokens(open_model(str(teacher)), TEXT, 0)[-3:]
    before, after = (_divergence(tmp_path / name, teacher, held) for name in ("student", "out"))
    assert after < before
    assert made.before.kl == pytest.approx(before, rel=1e-3)
    assert made.after.kl == pytest.approx(after, rel=1e-3)
    start, end = _weights(tmp_path / "student"), _weights(tmp_path / "out")
    assert start.keys() == end.keys()
    for name, weight in start.items():
        if isinstance(PRUNED[kind], Sparsity):
            assert torch.equal(weight == 0, end[name] == 0), name
        if "proj" not in name:
            assert torch.equal(weight, end[name]), name
    verify(str(tmp_path / "out"))


@pytest.fixture(scope="module")
def pruned(tiny: Maker, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prune(
        str(tiny("llama")),
        tmp_path_factory.mktemp("pruned") / "out",
        sparsity=0.5,
        method="wanda",
        calibration=PRUNING,
    ).out


@pytest.fixture
def student(pruned: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pruned, tmp_path / "student"))


@pytest.mark.parametrize("dense", [0.0, 0.5])
def test_targets_of_the_students_own_states(tiny: Maker, student: Path, tmp_path: Path, dense: float) -> None:
    made = secateur.recover(
        str(student),
        tmp_path / "out",
        Local(steps=20, batch=96, dense=dense),
        teacher=str(tiny("llama")),
        calibration=TEXT,
    )
    assert made.after.kl is not None
    assert made.before.kl is not None
    assert made.after.kl < made.before.kl
    assert {name: weight.dtype for name, weight in _weights(tmp_path / "out").items()} == {
        name: weight.dtype for name, weight in _weights(student).items()
    }


@pytest.mark.parametrize("family", ["gemma3_text", "phi3", "qwen2"])
def test_other_families(tiny: Maker, tmp_path: Path, family: str) -> None:
    teacher = tiny(family)
    prune(
        str(teacher),
        tmp_path / "student",
        sparsity="2:4",
        method="wanda",
        calibration=PRUNING,
        settings=EXACT,
    )
    assert _recover(tmp_path / "student", teacher, tmp_path / "out").changed
    assert verify(str(tmp_path / "out")).pruned > 0


@pytest.mark.parametrize(("memory", "stop"), [(1 << 30, 2), (0, 3)])
def test_an_interrupted_run_goes_on_and_gives_the_same_bytes(
    tiny: Maker, student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory: int, stop: int
) -> None:
    settings = Settings(memory=memory)
    whole = _recover(student, tiny("llama"), tmp_path / "whole", settings=settings)
    write, written = Checkpoint.write, list[int]()

    def interrupt(self: Checkpoint, index: int, tensors: dict[str, Tensor]) -> None:
        if len(written) == stop:
            raise KeyboardInterrupt
        written.append(index)
        write(self, index, tensors)

    monkeypatch.setattr(Checkpoint, "write", interrupt)
    with pytest.raises(KeyboardInterrupt):
        _recover(student, tiny("llama"), tmp_path / "out", settings=settings)
    monkeypatch.undo()
    resumed = _recover(student, tiny("llama"), tmp_path / "out", settings=settings)
    assert (resumed.resumed_blocks, resumed.changed) == (stop - 1, whole.changed)
    assert _bytes(tmp_path / "out") == _bytes(tmp_path / "whole")


def test_what_is_no_better_is_not_written_and_a_kill_then_does_not_mix_both(
    tiny: Maker, student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Random weights, kept by force, are worse as a whole.

    The student's own are put back, also when that is interrupted.
    """

    def harm(live: Any, masks: dict[str, Tensor | None], *_: object) -> Fit:
        for name in masks:
            live.weight(name).mul_(-1)
        return Fit(2.0, 1.0)

    monkeypatch.setattr("secateur.pipeline.recover.local_reconstruction.reconstruct", harm)
    write, again = Rewrite.write, list[int]()

    def interrupt(self: Rewrite, shard: int, changed: dict[str, Tensor]) -> None:
        again.extend([shard] if not changed and shard else [])
        if len(again) == 2:
            raise KeyboardInterrupt
        write(self, shard, changed)

    with monkeypatch.context() as patch:
        patch.setattr(Rewrite, "write", interrupt)
        with pytest.raises(KeyboardInterrupt):
            _recover(student, tiny("llama"), tmp_path / "out")
    made = _recover(student, tiny("llama"), tmp_path / "out")
    assert (made.changed, made.after) == (0, made.before)
    start, end = _weights(student), _weights(tmp_path / "out")
    assert all(torch.equal(weight.float(), end[name]) for name, weight in start.items())


def test_the_card_and_the_manifest_say_what_was_done(tiny: Maker, student: Path, tmp_path: Path) -> None:
    made = _recover(student, tiny("llama"), tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / "secateur.json").read_text())
    assert manifest["recovery"]["method"] == "local"
    assert manifest["teacher"] == open_model(str(tiny("llama"))).digest
    card = (tmp_path / "out" / "README.md").read_text()
    assert card.startswith((student / "README.md").read_text().rstrip())
    assert f"| divergence from the teacher | {made.before.kl:.4f} | {made.after.kl:.4f} |" in card
    assert (tmp_path / "out" / "plan.json").read_bytes() == (student / "plan.json").read_bytes()


@pytest.mark.parametrize(
    ("how", "calibration", "error", "message"),
    [
        ({"steps": 0}, TEXT, UsageError, "must all be above 0"),
        ({"rate": -1.0}, TEXT, UsageError, "must all be above 0"),
        ({"dense": 2.0}, TEXT, UsageError, "from 0 to 1"),
        ({"weighed": -1}, TEXT, UsageError, "weighed -1 not below 0"),
        ({}, Calibration(samples=1, window=16), TextError, "some are learned from, others judge"),
    ],
)
def test_options_that_cannot_work(
    tiny: Maker,
    student: Path,
    tmp_path: Path,
    how: dict[str, Any],
    calibration: Calibration,
    error: type[Exception],
    message: str,
) -> None:
    with pytest.raises(error, match=message):
        recover(
            str(student), tmp_path / "out", Local(**how), teacher=str(tiny("llama")), calibration=calibration
        )
    with pytest.raises(TextError, match="needed: give a longer text"):
        (tmp_path / "text.txt").write_text("too short")
        recover(
            str(student),
            tmp_path / "out",
            teacher=str(tiny("llama")),
            calibration=Calibration(text=str(tmp_path / "text.txt")),
        )


def test_a_folder_that_computes_something_else_is_not_kept(
    tiny: Maker, student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Checkpoint.write

    def corrupt(self: Checkpoint, index: int, tensors: dict[str, Tensor]) -> None:
        write(
            self,
            index,
            {name: tensor * (1.02 if "down_proj" in name else 1) for name, tensor in tensors.items()},
        )

    monkeypatch.setattr(Checkpoint, "write", corrupt)
    with pytest.raises(VerificationError, match="does not compute what was meant"):
        _recover(student, tiny("llama"), tmp_path / "out")
    assert not (tmp_path / "out.partial").exists()


def test_where_most_were_cut_the_others_are_left_alone_and_leave_them_their_steps(
    tiny: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of all halves is most; where one block went, whole halves learn too."""
    teacher, steps = tiny("llama", **DEEP), set[int]()
    learn = reconstruct

    def counted(live: Any, masks: Any, inputs: Tensor, aim: Any, course: Course, *rest: Any) -> Fit:
        steps.add(course.steps)
        return learn(live, masks, inputs, aim, course, *rest)

    monkeypatch.setattr(local_reconstruction, "reconstruct", counted)
    for name, goal, expected in (
        ("narrow", Width(units=("ffn",), ratio=0.4, align=8), 30),
        ("shallow", Depth(drop_layers=1), 15),
    ):
        prune(str(teacher), tmp_path / name, goal, calibration=PRUNING, settings=EXACT)
        student, whole = open_model(str(tmp_path / name)), open_model(str(teacher))
        cut = damaged(
            student, whole, pair(student, whole, Plan.from_json((tmp_path / name / "plan.json").read_text()))
        )
        steps.clear()
        made = _recover(tmp_path / name, teacher, tmp_path / f"{name}-healed")
        assert steps == {expected}
        if name == "narrow":
            assert cut == {(index, "ffn") for index in range(6)}
            start, end = _weights(tmp_path / name), _weights(tmp_path / "narrow-healed")
            assert {weight for weight in start if not torch.equal(start[weight], end[weight])} <= {
                weight for weight in start if ".mlp." in weight
            }
        else:
            assert len(cut) == 1
            assert made.changed > 1


def test_another_run_in_the_way(tiny: Maker, student: Path, tmp_path: Path) -> None:
    _recover(student, tiny("llama"), tmp_path / "out")
    with pytest.raises(OutputError, match="exists"):
        _recover(student, tiny("llama"), tmp_path / "out")
