"""Only what changed runs again, and a killed run ends with the same artefacts."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.conftest import Maker
from tests.pipeline.recipe.recipes import run, with_stages, write

import secateur
from secateur.cli.main import run as main
from secateur.model.written.checkpoint import Checkpoint
from secateur.pipeline.recipe.estimate import forecast
from secateur.pipeline.recipe.runner import STAGES, check_texts, conduct, keys
from secateur.pipeline.recipe.schema import read_recipe
from secateur_runtime.errors import OutputError, TextError, VerificationError


class TestRunning:
    def test_a_key_changes_with_what_its_stage_is_made_of(self, tiny: Maker, tmp_path: Path) -> None:
        path = write(
            tmp_path / "r.yaml",
            with_stages(
                {"prune": {"sparsity": 0.5}},
                {"recover": {"method": "distill"}},
                "quantize",
                {"eval": {"window": 64}},
            ),
        )

        def changed(*changes: str) -> list[bool]:
            before, after = (
                keys(read_recipe(path, model=str(tiny("llama")), changes=some)) for some in ((), changes)
            )
            return [one != other for one, other in zip(before, after, strict=True)]

        assert changed() == [False] * 4
        assert changed("recover.steps=3") == [False, True, True, True]
        assert changed("calibration.samples=7") == [True] * 4
        assert changed("eval.count=3") == [False, False, False, True]
        assert changed("seed=1") == [True] * 4

    def test_only_what_changed_runs_again(self, tiny: Maker, tmp_path: Path) -> None:
        pytest.importorskip("compressed_tensors", reason="pip install 'secateur[quantize]'")
        first = run(tiny, tmp_path)
        assert [step.cached for step in first.steps] == [False] * 4
        assert first.model is not None
        assert secateur.verify(str(first.model)).stock_difference < 1e-5
        with pytest.raises(OutputError, match="pass --resume"):
            run(tiny, tmp_path)
        assert [step.cached for step in run(tiny, tmp_path, resume=True).steps] == [True, True, True, False]
        changed = run(tiny, tmp_path, "quantize.bits=3", resume=True)
        assert [step.cached for step in changed.steps] == [True, False, False, False]
        assert changed.steps[2].figures["kl"] > first.steps[2].figures["kl"]
        assert [step.cached for step in run(tiny, tmp_path, "eval.count=1", resume=True).steps] == [
            True,
            True,
            False,
            False,
        ]
        report = json.loads((tmp_path / "out" / "report.json").read_text())
        assert [row["stage"] for row in report["stages"]] == ["prune", "quantize", "eval", "gate"]
        assert all(0 <= row["processor_seconds"] < 1000 for row in report["stages"])
        # what a finished stage took is kept with it
        assert report["stages"][0]["processor_seconds"] == first.steps[0].processor_seconds > 0

    def test_an_artefact_that_was_changed_is_made_again(self, tiny: Maker, tmp_path: Path) -> None:
        body = with_stages({"prune": {"method": "magnitude", "sparsity": 0.5}})
        made = run(tiny, tmp_path, body=body).steps[0].artefact
        assert made is not None
        shard = next(made.glob("*.safetensors"))
        whole = shard.read_bytes()
        shard.write_bytes(whole[:-4] + b"abcd")
        assert not run(tiny, tmp_path, body=body, resume=True).steps[0].cached
        assert shard.read_bytes() == whole

    def test_a_gate_that_does_not_hold_fails_and_keeps_what_was_made(
        self, tiny: Maker, tmp_path: Path
    ) -> None:
        body = with_stages(
            {"prune": {"method": "magnitude", "sparsity": 0.5}},
            {"eval": {"window": 64, "count": 1}},
            {"gate": {"kl": 1e-9}},
        )
        with pytest.raises(VerificationError, match=r"the gate does not hold: kl is .*, and at most 1e-09"):
            run(tiny, tmp_path, body=body)
        assert not (tmp_path / "out" / "report.json").exists()
        assert [step.cached for step in run(tiny, tmp_path, "gate.kl=9", body=body, resume=True).steps] == [
            True,
            True,
            False,
        ]

    def test_an_interrupted_stage_goes_on_and_ends_with_the_same_artefacts(
        self, tiny: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pytest.importorskip("compressed_tensors", reason="pip install 'secateur[quantize]'")
        body, model = (
            with_stages({"prune": {"method": "wanda", "sparsity": 0.5}}, {"quantize": {"method": "imatrix"}}),
            str(tiny("llama")),
        )
        recipe = write(tmp_path / "recipe.yaml", body)
        secateur.run(recipe, tmp_path / "whole", model=model)
        write_shard, written, stops = Checkpoint.write, list[int](), [3, 5]

        def stop(self: Checkpoint, index: int, tensors: dict[str, torch.Tensor]) -> None:
            written.append(index)
            if len(written) == stops[0]:
                raise KeyboardInterrupt
            write_shard(self, index, tensors)

        monkeypatch.setattr(Checkpoint, "write", stop)
        # in the middle of the first stage, and of the second
        while stops:
            written.clear()
            with pytest.raises(KeyboardInterrupt):
                secateur.run(recipe, tmp_path / "out", model=model, resume=True)
            stops.pop(0)
        monkeypatch.setattr(Checkpoint, "write", write_shard)
        assert [
            step.cached for step in secateur.run(recipe, tmp_path / "out", model=model, resume=True).steps
        ] == [True, False]
        assert artefacts(tmp_path / "out") == artefacts(tmp_path / "whole")

    def test_after_tokens_are_pruned_the_teacher_is_the_dense_model_in_those_that_are_left(
        self, tiny: Maker, tmp_path: Path
    ) -> None:
        stages = [
            {"prune": {"method": "vocab", "ratio": 0.2}},
            {"prune": {"method": "width", "ratio": 0.2}},
            {"recover": {"steps": 2, "batch": 64}},
        ]
        done = run(
            tiny,
            tmp_path,
            body=with_stages(*stages, {"quantize": {"method": "rtn"}}, {"eval": {"window": 64, "count": 2}}),
        )
        first, *others = (step.artefact for step in done.steps)
        measured = done.steps[-1].figures
        assert measured["per_token_of"] == str(tiny("llama"))
        assert measured["perplexity_ratio"] == pytest.approx(
            measured["perplexity"] / measured["dense_perplexity"]
        )
        assert first is not None
        assert {json.loads((one / "config.json").read_text())["vocab_size"] for one in others if one} == {288}
        forecasts = forecast(
            read_recipe(tmp_path / "recipe.yaml", model=str(tiny("llama"))), tmp_path / "other"
        )
        assert forecasts[0].bytes == pytest.approx(2 * done.steps[0].figures["parameters"], rel=0.1)

    @pytest.mark.parametrize("method", ["distill", "lora"])
    def test_the_command_trains_whole_models(self, tiny: Maker, tmp_path: Path, method: str) -> None:
        """A process of our own keeps packages out of the way that training needs."""
        body = with_stages(
            {"prune": {"method": "wanda", "sparsity": 0.5}},
            {"recover": {"method": method, "steps": 1, "batch": 128, "micro": 1}},
        )
        command = [
            sys.executable,
            "-m",
            "secateur",
            "run",
            str(write(tmp_path / "recipe.yaml", body)),
            "--model",
            str(tiny("llama")),
            "--quiet",
        ]
        done = subprocess.run(
            [*command, "-o", str(tmp_path / "out")], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr

    @pytest.mark.slow
    def test_kill_minus_nine_anywhere_ends_with_the_same_artefacts(self, tiny: Maker, tmp_path: Path) -> None:
        body = with_stages(
            {"prune": {"method": "wanda", "sparsity": 0.5}},
            {"recover": {"steps": 5}},
            {"quantize": {"method": "gptq"}},
        )
        model = tiny("llama", num_hidden_layers=6)
        recipe = write(tmp_path / "recipe.yaml", body)
        command = [
            sys.executable,
            "-m",
            "secateur",
            "run",
            str(recipe),
            "--model",
            str(model),
            "--quiet",
            "--resume",
        ]
        subprocess.run([*command, "-o", str(tmp_path / "whole")], check=True, capture_output=True)
        for shards in (2, 9, 17):
            killed = subprocess.Popen(
                [*command, "-o", str(tmp_path / "out")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            while (
                killed.poll() is None and len(list((tmp_path / "out").rglob("model-*.safetensors"))) < shards
            ):
                time.sleep(0.005)
            os.kill(killed.pid, signal.SIGKILL)
            killed.wait()
        subprocess.run([*command, "-o", str(tmp_path / "out")], check=True, capture_output=True)
        assert artefacts(tmp_path / "out") == artefacts(tmp_path / "whole")


def artefacts(out: Path) -> dict[str, str]:
    """Return the digest of every file that a stage made."""
    files = [path for folder in (out / STAGES).iterdir() if folder.is_dir() for path in folder.iterdir()]
    return {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_command(
    tiny: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write(
        tmp_path / "recipe.yaml",
        with_stages(
            {"prune": {"method": "magnitude", "sparsity": 0.5}}, {"eval": {"window": 64, "count": 1}}
        ),
    )
    command = ["secateur", "run", str(recipe), "-o", str(tmp_path / "out"), "--model", str(tiny("llama"))]

    def done(*more: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [*command, *more])
        with pytest.raises(SystemExit) as stopped:
            main()
            sys.exit(0)
        output = capsys.readouterr()
        return int(stopped.value.code or 0), output.out, output.err

    code, out, _ = done("--dry-run")
    assert code == 0
    assert "estimated, not measured" in out
    assert not (tmp_path / "out").exists()
    code, out, _ = done()
    assert code == 0
    assert all(word in out for word in ("prune", "eval", "perplexity", "model: "))
    code, out, _ = done("--resume", "--json")
    stages: Sequence[dict[str, Any]] = json.loads(out)["stages"]
    assert [stage["cached"] for stage in stages] == [True, True]
    code, out, error = done("--set", "prune.sparsty=0.4")
    assert (code, out) == (2, "")
    assert "did you mean sparsity?" in error


def test_a_text_too_short_to_train_on_is_told_before_anything_runs(tiny: Maker, tmp_path: Path) -> None:
    stages = (
        {"prune": {"method": "magnitude", "sparsity": 0.5}},
        {"recover": {"calibration": {"samples": 9999}}},
    )
    recipe = read_recipe(write(tmp_path / "r.yaml", with_stages(*stages)), model=str(tiny("llama")))
    for started in (lambda: conduct(recipe, tmp_path / "out"), lambda: forecast(recipe, tmp_path / "out")):
        with pytest.raises(TextError, match=r"^stage 2 \(recover\): .* and 9999 are needed"):
            started()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "recipe", sorted((Path(__file__).parents[3] / "recipes").glob("*.yaml")), ids=lambda path: path.stem
)
def test_a_recipe_that_we_ship_has_text_enough(smollm2: str, recipe: Path) -> None:
    check_texts(read_recipe(recipe))
