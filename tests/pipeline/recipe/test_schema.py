"""Recipes: options become goals, and every mistake is one line before anything runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.pipeline.recipe.recipes import BODY, with_stages, write

from secateur.pipeline.prune.auto.decide import Auto
from secateur.pipeline.prune.depth.decide import Depth
from secateur.pipeline.prune.weights.decide import Sparsity
from secateur.pipeline.prune.width.decide import Width
from secateur.pipeline.quantize.quantize import Quantization
from secateur.pipeline.recipe.schema import KINDS, read_recipe
from secateur.pipeline.recover.distill import Distill
from secateur.pipeline.recover.local_reconstruction import Local
from secateur_runtime.errors import MissingExtraError, SecateurError, UsageError

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
                "stage 1 .recover. trains the scales of a quantized model",
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

    @settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.too_slow])
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
