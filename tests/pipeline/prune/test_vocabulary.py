"""Vocabulary pruning: remaining tokens are predicted as before, and other text is spelled with them."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.conftest import Maker
from tests.tiny_models import FAMILIES, TEXT
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

import secateur
from secateur.calibrate.calibration import Calibration
from secateur.cli.main import app
from secateur.core.context import Settings
from secateur.core.footprint import footprint
from secateur.core.plan import Plan
from secateur.core.target import Target
from secateur.model.handle import open_model
from secateur.model.tokenizer_pruning import vocabulary
from secateur.pipeline.evaluate.verify import verify
from secateur.pipeline.prune.vocabulary import Vocab, chosen
from secateur_runtime.errors import PlanError, TargetError, UsageError, VerificationError


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("text") / "own.txt"
    path.write_text("the light of the tree and the text of the tree, before and after it\n" * 20)
    return str(path)


def _plan(model: Path, text: str, **fields: Any) -> Plan:
    return secateur.plan(str(model), Vocab(**fields), calibration=Calibration(text=text))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_tokens_that_stay_are_predicted_as_before(
    tiny: Maker, tmp_path: Path, family: str, text: str
) -> None:
    source = tiny(family)
    made = secateur.prune(
        str(source),
        tmp_path / "out",
        Vocab(ratio=0.2),
        calibration=Calibration(text=text),
        settings=Settings(dtype="float32"),
    )
    kept = list(made.plan.keep["vocab"])
    assert len(kept) % 32 == 0
    dense, found = (
        AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32) for path in (source, tmp_path / "out")
    )
    assert found.config.vocab_size == len(kept)
    assert kept[found.config.eos_token_id] == dense.config.eos_token_id
    ids = torch.arange(5, 37)[None] * 7 % len(kept)
    with torch.no_grad():
        meant, got = dense(torch.tensor(kept)[ids]).logits[..., kept], found(ids).logits
    assert torch.allclose(got, meant, atol=1e-5 * float(meant.abs().max()))
    assert made.parameters == sum(parameter.numel() for parameter in dict(found.named_parameters()).values())
    assert "Tokens: 384 before" in (tmp_path / "out" / "README.md").read_text()
    assert verify(str(tmp_path / "out")).stock_difference < 1e-4


def test_text_of_the_common_tokens_is_spelled_alike_and_other_text_comes_back(
    tiny: Maker, tmp_path: Path, text: str
) -> None:
    secateur.prune(str(tiny("llama")), tmp_path / "out", Vocab(ratio=0.2), calibration=Calibration(text=text))
    before, found = (AutoTokenizer.from_pretrained(path) for path in (tiny("llama"), tmp_path / "out"))
    common = "the light of the tree"
    assert found.tokenize(common) == before.tokenize(common)
    assert len(found(TEXT)["input_ids"]) > len(before(TEXT)["input_ids"])
    assert found.decode(found(TEXT)["input_ids"]) == TEXT
    messages = [{"role": "user", "content": "naïve 東京"}]
    assert found.apply_chat_template(messages, tokenize=False) == before.apply_chat_template(
        messages, tokenize=False
    )


@pytest.mark.parametrize("target", ["params=97%", "params=100K", "size=240kB", "ram=300KiB@ctx32"])
@pytest.mark.parametrize("align", [1, 8, 32])
def test_a_target_is_met_by_as_many_tokens_as_can_stay(
    tiny: Maker, text: str, target: str, align: int
) -> None:
    source = tiny("llama", dtype="bfloat16", tie_word_embeddings=True)
    graph = open_model(str(source)).graph
    whole, asked = footprint(graph, {}, (), 2), Target.parse([target])
    if asked.met(whole, whole):
        with pytest.raises(UsageError, match="nothing to cut"):
            _plan(source, text, target=target, align=align)
        return
    try:
        count = len(_plan(source, text, target=target, align=align).keep["vocab"])
    except TargetError as error:
        least = -(-259 // align) * align
        assert not asked.met(footprint(graph, {"vocab": range(least)}, (), 2), whole)
        assert "nearest" in str(error)
        return
    assert count % align == 0
    assert asked.met(footprint(graph, {"vocab": range(count)}, (), 2), whole)
    assert count + align > 384 or not asked.met(
        footprint(graph, {"vocab": range(count + align)}, (), 2), whole
    )


def test_the_most_counted_stay_with_what_they_are_merged_from(tiny: Maker) -> None:
    known = vocabulary(open_model(str(tiny("llama"))).source.tokenizer(), {})
    free = sorted(set(known.tokens) - known.fixed, key=lambda index: -len(known.tokens[index]))
    long, other = free[0], free[-1]
    counts = Counter({long: 5, other: 1})
    exactly = len(known.fixed | {long} | known.ancestors(long))
    assert set(chosen(known, counts, (), exactly)) == known.fixed | {long} | known.ancestors(long)
    # One too few for it: the next that fits is taken instead.
    fewer = chosen(known, counts, (), exactly - 1)
    assert long not in fewer
    assert other in fewer
    assert len(fewer) == exactly - 1
    # Of those that nobody counted, the expected ones go before those with lower ids.
    last = max(free)
    assert last in chosen(known, Counter(), [last], len(known.fixed | {last} | known.ancestors(last)))
    assert last not in chosen(known, Counter(), [], len(known.fixed | {last} | known.ancestors(last)))
    assert len(chosen(known, Counter(), (), 10**6)) == len(known.tokens)


def test_a_plan_says_what_was_counted_and_is_replayed(tiny: Maker, tmp_path: Path, text: str) -> None:
    out = tmp_path / "plan.json"
    result = CliRunner().invoke(
        app,
        [
            "plan",
            str(tiny("llama")),
            "-o",
            str(out),
            "--method",
            "vocab",
            "--ratio",
            "0.2",
            "--calib",
            text,
            "--explain",
        ],
    )
    assert "tokens: keep 288 of 384 (75.0%)" in result.output
    plan = Plan.from_json(out.read_text())
    assert plan.made_by["counted"] == text
    assert "calibration" not in plan.made_by
    made = secateur.apply(plan, str(tiny("llama")), tmp_path / "out")
    assert made.plan == plan


def test_text_that_the_model_writes_itself_can_be_counted(tiny: Maker) -> None:
    sample = Calibration(text="self", samples=2, window=32)
    plan = secateur.plan(str(tiny("llama")), Vocab(ratio=0.2), calibration=sample)
    assert plan.made_by["counted"] == "self"
    assert plan.made_by["window"] == "32"
    assert plan == secateur.plan(str(tiny("llama")), Vocab(ratio=0.2), calibration=sample)


def test_rows_without_a_token_go_first(tiny: Maker, text: str) -> None:
    source = tiny("llama", vocab_size=448)
    kept = _plan(source, text, ratio=0.1, align=1).keep["vocab"]
    assert len(kept) == 403
    assert set(range(384)) < set(kept)
    assert max(_plan(source, text, ratio=0.2, align=1).keep["vocab"]) < 384


def test_a_tokenizer_that_went_wrong_leaves_nothing(
    tiny: Maker, tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = _plan(tiny("llama"), text, ratio=0.2)
    monkeypatch.setattr("secateur.model.written.folder_writer.narrow_tokenizer", lambda *_: None)
    with pytest.raises(VerificationError, match="another way"):
        secateur.apply(plan, str(tiny("llama")), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "either --ratio"),
        ({"ratio": 0.2, "target": "params=90%"}, "either --ratio"),
        ({"ratio": 1.0}, "outside"),
        ({"ratio": 0.9}, "at most 0.25"),
        ({"ratio": 0.2, "align": 0}, "below 1"),
        ({"ratio": 0.2, "align": 512}, "no token can go"),
        ({"target": "ratio=0.2"}, "block parameters"),
        ({"target": "params=10%"}, "out of reach with --method vocab: the nearest is params="),
        ({"target": "params=110M"}, "nothing to cut"),
    ],
)
def test_what_cannot_be_is_one_line(tiny: Maker, text: str, fields: dict[str, object], message: str) -> None:
    with pytest.raises((UsageError, TargetError), match=message) as caught:
        _plan(tiny("llama"), text, **fields)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == (3 if "out of reach" in message else 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--ratio", "0.2", "--sparsity", "0.5"], "--sparsity belongs to"),
        (["--ratio", "0.2", "--repair", "lsq"], "--repair belongs to"),
        (["--ratio", "0.2", "--samples", "8"], "whole text"),
        ([], "either --ratio"),
        (["--ratio", "0.2", "--units", "ffn"], "--units belongs to"),
    ],
)
def test_options_of_other_methods_are_refused(
    tiny: Maker, tmp_path: Path, arguments: list[str], message: str
) -> None:
    result = CliRunner().invoke(
        app, ["prune", str(tiny("llama")), "-o", str(tmp_path / "out"), "--method", "vocab", *arguments]
    )
    assert isinstance(result.exception, UsageError)
    assert message in str(result.exception)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"keep": {"0.ffn": [0]}},
        {"drop": ["1"]},
        {"execution": {"calibration": {"text": "builtin", "samples": 1, "window": 8, "digest": ""}}},
        {"execution": {"rotation": "learned"}},
    ],
)
def test_tokens_go_alone(tiny: Maker, text: str, change: dict[str, dict[str, object] | list[str]]) -> None:
    body = json.loads(_plan(tiny("llama"), text, ratio=0.2).to_json())
    for key, value in change.items():
        body[key] = {**body[key], **value} if isinstance(value, dict) else value
    model = open_model(str(tiny("llama")))
    with pytest.raises(PlanError, match="prunes tokens and something else"):
        Plan.from_json(json.dumps(body)).validate(model.graph, model.digest)
