"""Recipes: every mistake is one line before anything runs, only what changed runs again, a killed run ends with the same artefacts."""

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
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.conftest import Maker

import secateur
from secateur.cli.main import run as main
from secateur.model.written.checkpoint import Checkpoint
from secateur.pipeline.prune.auto.decide import Auto
from secateur.pipeline.prune.depth.decide import Depth
from secateur.pipeline.prune.weights.decide import Sparsity
from secateur.pipeline.prune.width.decide import Width
from secateur.pipeline.quantize.quantize import Quantization
from secateur.pipeline.recipe.estimate import forecast
from secateur.pipeline.recipe.runner import STAGES, RecipeResult, keys
from secateur.pipeline.recipe.schema import KINDS, read_recipe
from secateur.pipeline.recover.distill import Distill
from secateur.pipeline.recover.local_reconstruction import Local
from secateur_runtime.errors import (
    MissingExtraError,
    OutputError,
    SecateurError,
    UsageError,
    VerificationError,
)

SHIPPED = sorted((Path(__file__).parents[3] / "recipes").glob("*.yaml"))
SMALL = ("calibration.samples=6", "calibration.window=64")
BODY: dict[str, Any] = {
    "model": "smollm2-135m",
    "calibration": {"samples": 6, "window": 64},
    "stages": [
        {"prune": {"method": "width", "ratio": 0.2}},
        {"quantize": {"bits": 4, "method": "imatrix"}},
        {"eval": {"window": 64, "count": 2}},
        {"gate": {"perplexity_ratio": 2.0, "size": "1MB"}},
    ],
}


def write(path: Path, body: object) -> Path:
    path.write_text(yaml.safe_dump(body))
    return path


def run(
    tiny: Maker, tmp_path: Path, *changes: str, resume: bool = False, body: object = BODY
) -> RecipeResult:
    return secateur.run(
        write(tmp_path / "recipe.yaml", body),
        tmp_path / "out",
        model=str(tiny("llama")),
        changes=changes,
        resume=resume,
    )


def with_stages(*stages: object) -> dict[str, Any]:
    return {**BODY, "stages": list(stages)}


_WORDS = st.sampled_from([*KINDS, "model", "stages", "x"])
_LEAVES = st.none() | st.integers() | st.text(max_size=5) | _WORDS
_ANYTHING = st.recursive(
    _LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_WORDS, inner, max_size=3),
    max_leaves=8,
)


class TestReading:
    def test_options_become_the_goals_of_the_command(self, tmp_path: Path) -> None:
        path = write(
            tmp_path / "r.yaml",
            with_stages(
                {"prune": {"method": "width", "ratio": 0.2, "units": ["ffn", "kv"]}},
                {"prune": {"method": "depth", "drop_layers": 2}},
                {"prune": {"target": ["params=80%", "size=200MB"]}},
                {"prune": {"method": "wanda", "pattern": "2:4", "calibration": {"samples": 9}}},
                "recover",
                {"recover": {"method": "lora", "steps": 7}},
                {"quantize": {"bits": 3, "symmetric": False}},
                {"recover": {"method": "scales", "steps": 9}},
            ),
        )
        stages = read_recipe(path).stages
        assert [stage.options for stage in stages] == [
            Width(ratio=0.2, units=("ffn", "kv")),
            Depth(drop_layers=2),
            Auto(target="params=80%,size=200MB"),
            Sparsity(method="wanda", sparsity="2:4"),
            Local(),
            Distill(trains="lora", steps=7),
            Quantization(bits=3, symmetric=False),
            Distill(trains="scales", steps=9),
        ]
        assert [stage.calibration.samples for stage in stages] == [6, 6, 6, 9, 6, 6, 6, 6]
        changed = read_recipe(
            path,
            model="org/name",
            changes=["quantize.bits=5", "calibration.samples=3", "seed=7", "prune.protect=[first=1]"],
        )
        assert (changed.model, changed.seed) == ("org/name", 7)
        assert [stage.calibration.samples for stage in changed.stages] == [3, 3, 3, 9, 3, 3, 3, 3]
        assert all(
            stage.options.protect == ["first=1"]
            for stage in changed.stages
            if isinstance(stage.options, Width | Depth | Auto | Sparsity)
        )

    @pytest.mark.parametrize(
        ("body", "message"),
        [
            ([], "recipe is list, not a mapping"),
            ({**BODY, "sed": 1}, r"recipe: unknown key 'sed' \(did you mean seed\?\)"),
            ({**BODY, "seed": -1}, "seed -1 is no whole number"),
            ({**BODY, "model": None}, "names no model"),
            ({**BODY, "stages": []}, "has no stages"),
            (
                {**BODY, "calibration": {"sample": 1}},
                r"calibration: unknown key 'sample' \(did you mean samples\?\)",
            ),
            (with_stages({"prun": {}}), r"stage 1: unknown key 'prun' \(did you mean prune\?\)"),
            (with_stages({"prune": {"sparsity": 0.5}, "eval": {}}), "stage 1 names 2 stages: one each"),
            (with_stages({"prune": [1]}), r"stage 1 \(prune\) is list, not a mapping of options"),
            (
                with_stages({"prune": {"method": "width", "ration": 0.2}}),
                r"stage 1 \(prune\): unknown key 'ration' \(did you mean ratio\?\)",
            ),
            (with_stages({"prune": {"method": "widht"}}), r"unknown method 'widht' \(did you mean width\?\)"),
            (
                with_stages({"prune": {"method": "width", "ratio": "much"}}),
                r"stage 1 \(prune\): ratio: .*'much'",
            ),
            (
                with_stages({"prune": {"target": "parms=80%"}}),
                r"target 'parms=80%' is none of .*did you mean params",
            ),
            (with_stages({"prune": {}}), r"stage 1 \(prune\): sparsity: field required"),
            (
                with_stages({"prune": {"sparsity": 0.5}}, {"recover": {"method": "lcal"}}),
                r"unknown method 'lcal' \(did you mean local\?\)",
            ),
            (with_stages("recover"), "comes before any prune"),
            (with_stages({"prune": {"method": "vocab", "ratio": 0.2}}, "recover"), "comes before any prune"),
            (
                with_stages({"prune": {"sparsity": 0.5}}, {"prune": {"method": "vocab", "ratio": 0.2}}),
                r"stage 2 \(prune\) prunes tokens.*move it first",
            ),
            (with_stages(*2 * [{"prune": {"method": "vocab", "ratio": 0.2}}]), "move it first"),
            (with_stages({"prune": {"method": "vocab"}}), "either --ratio"),
            (with_stages({"prune": {"method": "width"}}), "either --ratio 0.2 or --target"),
            (with_stages({"prune": {"method": "width", "ratio": 0.2, "repair": "lsp"}}), "mean lsq"),
            (with_stages({"prune": {"method": "width", "ratio": 0.2, "units": ["fnn"]}}), "mean ffn"),
            (with_stages({"prune": {"method": "width", "ratio": 0.2, "allocation": "unifrom"}}), "uniform"),
            (with_stages({"prune": {"method": "width", "ratio": 0.2, "criterion": "wnda"}}), "'wnda'"),
            (with_stages({"prune": {"method": "depth"}}), "one of --drop-layers 8"),
            (with_stages({"prune": {"method": "depth", "ratio": 1.5}}), r"--ratio 1.5 is outside \(0, 1\)"),
            (
                with_stages({"prune": {"target": "params=80%", "units": ["hidden"]}}),
                "--method width for others",
            ),
            (with_stages({"prune": {"sparsity": "half"}}), "half"),
            (with_stages({"prune": {"sparsity": 0.5, "criterion": "wnda"}}), r"did you mean wanda\?"),
            (with_stages({"prune": {"sparsity": 0.5, "scope": "rows"}}), r"did you mean row\?"),
            (with_stages({"prune": {"sparsity": 0.5, "allocation": "owls"}}), r"did you mean owl\?"),
            (with_stages({"prune": {"sparsity": "2:4", "allocation": "owl"}}), "cannot spread the pattern"),
            (with_stages({"quantize": {"method": "gtpq"}}), r"did you mean gptq\?"),
            (with_stages({"quantize": {"method": "rtn", "sparsity": "0.5"}}), "only --method gptq can"),
            (with_stages("quantize", {"prune": {"sparsity": 0.5}}), "stage 2 .prune. comes after quantize"),
            (with_stages("quantize", "quantize"), "comes after quantize"),
            (
                with_stages({"prune": {"sparsity": 0.5}}, "quantize", "recover"),
                "stage 3 .recover. comes after quantize",
            ),
            (
                with_stages({"recover": {"method": "scales"}}, "quantize"),
                "stage 1 .recover. trains the scales of a quantised model",
            ),
            (with_stages("export", "quantize"), "comes after export"),
            (with_stages("export", "export"), "exports twice"),
            (with_stages({"quantize": {"bits": 9}}), "9 bits"),
            (
                with_stages({"prune": {"method": "width", "ratio": 0.2}}, {"quantize": {"group": 64}}),
                (
                    r"stage 2 \(quantize\) has groups of 64, and prune leaves multiples of 32 inputs: add"
                    r" `align: 64`"
                ),
            ),
            (with_stages({"gate": {"kl": 1.0}}), "no stage before it measures"),
            (with_stages({"gate": {}}), "asks for nothing"),
            (with_stages({"gate": {"size": "80%"}}), "no number of bytes"),
            (with_stages({"gate": {"size": "much"}}), "holds no amount"),
        ],
    )
    def test_a_mistake_is_one_line(self, tmp_path: Path, body: object, message: str) -> None:
        with pytest.raises(SecateurError, match=message) as caught:
            read_recipe(write(tmp_path / "r.yaml", body))
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        "change",
        [
            "bits=3",
            "quantize.bits",
            "recover.steps=1",
            "quantize.bist=3",
            "quantise.bits=3",
            "quantize.bits=[",
            "stages=1",
        ],
    )
    def test_a_change_that_meets_nothing(self, tmp_path: Path, change: str) -> None:
        with pytest.raises(UsageError):
            read_recipe(write(tmp_path / "r.yaml", BODY), changes=[change])

    @settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
    @given(_ANYTHING)
    def test_anything_else_is_an_error_of_ours(
        self, tmp_path_factory: pytest.TempPathFactory, body: object
    ) -> None:
        path = tmp_path_factory.mktemp("any") / "r.yaml"
        for whole in (body, {"model": "m", "stages": body}, {"model": "m", "stages": [body]}):
            try:
                read_recipe(write(path, whole))
            except SecateurError as error:
                assert "\n" not in str(error)

    def test_files_that_are_no_recipes(self, tmp_path: Path) -> None:
        for content in (b"stages: [", b"\xff\xfe", b"a: b: c"):
            (tmp_path / "r.yaml").write_bytes(content)
            with pytest.raises(UsageError, match="is not YAML"):
                read_recipe(tmp_path / "r.yaml")
        with pytest.raises(UsageError, match="cannot read recipe"):
            read_recipe(tmp_path / "none.yaml")

    def test_a_missing_extra_is_named_before_anything_runs(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        prune = {"sparsity": 0.5}
        for extra, *stages in (
            ("quantize", "quantize"),
            ("llamacpp", "export"),
            ("datasets", {"prune": {**prune, "calibration": {"text": "hf:a:b:c"}}}),
            ("recover", {"prune": prune}, {"recover": {"method": "distill"}}),
        ):
            with pytest.raises(MissingExtraError, match=rf"pip install 'secateur\[{extra}\]'"):
                read_recipe(write(tmp_path / "r.yaml", with_stages(*stages)))


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


class TestShipped:
    def test_they_are_the_ones_that_are_promised(self) -> None:
        assert {path.stem for path in SHIPPED} == {
            "pi5-4bit",
            "phone",
            "jetson-2to4",
            "laptop-cpu",
            "fastest",
            "smallest",
        }

    @pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
    def test_they_are_sound_and_can_be_reckoned(self, smollm2: str, tmp_path: Path, path: Path) -> None:
        recipe = read_recipe(path)
        assert recipe.model == smollm2
        rows = forecast(recipe, tmp_path / "out")
        assert [row.kind for row in rows] == [stage.kind for stage in recipe.stages]
        assert all(
            1e7 < row.bytes < 6e8 and 1e8 < row.memory < 6e9 and row.seconds >= 0 and not row.cached
            for row in rows
        )
        assert not (tmp_path / "out").exists()

    @pytest.mark.slow
    @pytest.mark.timeout(3600)
    @pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
    def test_end_to_end_at_a_reduced_budget(self, smollm2: str, tmp_path: Path, path: Path) -> None:
        kinds = {stage.kind for stage in read_recipe(path).stages}
        reduced = [
            "calibration.samples=4",
            "calibration.window=256",
            "eval.count=1",
            "eval.window=512",
            "gate.perplexity_ratio=1000",
        ]
        reduced += ["recover.steps=2", "recover.calibration={samples: 8, window: 256}"]
        done = secateur.run(path, tmp_path / "out", changes=reduced)
        assert done.model is not None
        assert secateur.verify(str(done.model)).stock_difference < 1e-3
        assert (done.file is not None) == ("export" in kinds)


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
    assert "reckoned, not measured" in out
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
