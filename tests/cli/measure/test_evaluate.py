"""`secateur eval` with tasks and audit: JSON, tables, the gate, and what makes no sense together."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.cli.command import Secateur
from tests.conftest import Maker
from tests.measure.test_winogender import ROWS
from tests.vocabularies import save_with_fewer_tokens

from secateur_runtime.errors import ExitCode


def test_tasks_with_a_reference_and_perplexity(secateur: Secateur, tiny: Maker, mirror: Path) -> None:
    model, parent = tiny("llama", rms_norm_eps=1.0), tiny("llama")
    options = [
        "--tasks",
        "arc_easy, wikitext",
        "--limit",
        "4",
        "--few-shot",
        "1",
        "--datasets",
        mirror,
        "--reference",
        parent,
    ]
    code, out, err = secateur(
        "eval", model, *options, "--text", "builtin", "--window", "64", "-n", "2", "--json"
    )
    assert (code, err) == (0, "")
    body = json.loads(out)
    arc = body["tasks"]["arc_easy"]
    assert {field: arc[field] for field in ("kind", "items", "available", "shots")} == {
        "kind": "comprehension",
        "items": 4,
        "available": 6,
        "shots": 1,
    }
    figure = arc["metrics"]["acc"]
    assert figure["shift"] == figure["value"] - figure["reference"]
    assert body["tasks"]["wikitext"]["metrics"]["word_perplexity"]["standard_error"] is None
    assert {"perplexity", "nll", "kl", "agreement", "windows", "tokens", "seconds"} <= set(body)
    assert len(body["records"]) == 2 * len(["acc", "acc_norm", "word", "byte", "bits"]) + len(
        ["perplexity", "nll", "accuracy"]
    )
    code, out, _ = secateur("eval", model, *options, "--metrics", "acc")
    assert code == 0
    assert "comprehension" in out
    assert "word prediction" not in out
    assert "acc_norm" not in out


def test_an_audit_is_printed_and_gates(
    secateur: Secateur, tiny: Maker, mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "all_sentences.tsv").write_text(ROWS)
    model, parent = tiny("llama", rms_norm_eps=1.0), tiny("llama")
    options = ["--bias", "--datasets", mirror, "--winogender", tmp_path]
    code, out, _ = secateur("eval", model, *options)
    assert code == 0
    assert "too few items to tell" in out
    options += ["--reference", parent, "--max-bias-shift", "0.1"]
    code, out, err = secateur("eval", model, *options, "--json")
    assert (code, err.count("\n"), "every figure; raise --limit" in err) == (4, 1, True)
    body = json.loads(out)["bias"]
    assert body["verdict"] == "open"
    assert (
        body["figures"]["winogender/gap"]["reference_interval"][0]
        <= body["figures"]["winogender/gap"]["reference"]
    )
    monkeypatch.setattr("secateur.measure.social_bias.FEWEST", 1)
    code, out, err = secateur("eval", model, *options[:-1], "0", "--json")
    verdicts = {
        name: row["verdict"] for name, row in json.loads(out)["bias"]["figures"].items() if row["verdict"]
    }
    assert (code == ExitCode.FAILED) == ("fail" in verdicts.values())
    assert (code == ExitCode.DONE) == (set(verdicts.values()) == {"pass"})
    assert set(verdicts.values()) <= {"pass", "fail", "open"}
    assert err.count("\n") <= 1


def test_a_failed_gate_is_exit_3_after_the_figures(
    secateur: Secateur, tiny: Maker, mirror: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "secateur.measure.social_bias.Finding.verdict",
        lambda self, most: "fail" if self.name == "crows_pairs/age" else "pass",
    )
    code, out, err = secateur(
        "eval",
        tiny("llama"),
        "--bias",
        "--datasets",
        mirror,
        "--reference",
        tiny("llama"),
        "--max-bias-shift",
        "0.1",
        "--json",
    )
    assert code == 3
    assert json.loads(out)["bias"]["verdict"] == "fail"
    assert err.count("\n") == 1
    assert "is further from neutral than" in err
    assert err.endswith("by more than 0.1: crows_pairs/age\n")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--limit", "4"], "--limit would do nothing here: add --tasks or --bias"),
        (
            ["--bias", "--few-shot", "1", "--metrics", "acc"],
            "--metrics and --few-shot would do nothing here: add --tasks",
        ),
        (["--winogender", "here"], "--winogender would do nothing here: add --bias"),
        (["--bias", "--max-bias-shift", "0.1"], "--max-bias-shift would do nothing here: add --reference"),
        (["--tasks", ","], "no task is named"),
        (["--tasks", "arc_esy"], "unknown task 'arc_esy' (did you mean arc_easy?)"),
    ],
)
def test_what_makes_no_sense_is_one_line(
    secateur: Secateur, tiny: Maker, mirror: Path, options: list[str], message: str
) -> None:
    code, out, err = secateur("eval", tiny("llama"), *options)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


def test_a_reference_that_reads_other_tokens(secateur: Secateur, tiny: Maker, tmp_path: Path) -> None:
    parent, model = tiny("llama"), save_with_fewer_tokens(tiny("llama"), tmp_path / "fewer", 20)
    options = ["--reference", parent, "--window", "50", "-n", "3"]
    code, out, err = secateur("eval", model, *options, "--json")
    assert (code, err) == (0, "")
    body = json.loads(out)
    assert {name: body[name] for name in ("per_token_of", "reference", "tokens", "windows")} == {
        "per_token_of": str(parent),
        "reference": str(parent),
        "tokens": 3 * 49,
        "windows": 3,
    }
    assert {body[name] for name in ("kl", "agreement", "next_token_accuracy")} == {None}
    assert body["bits_per_byte"] > 0
    assert body["perplexity"] > 1
    assert body["reference_perplexity"] > 1
    assert [record["name"] for record in body["records"]] == ["perplexity", "nll", "bits_per_byte"]
    assert all(f"per token of {parent.name} (sha256:" in record["protocol"] for record in body["records"])
    code, out, err = secateur("eval", model, *options)
    assert (code, err) == (0, "")
    flat = " ".join(out.split())
    assert f"{model} reads other tokens than {parent}: figures are per token of the latter" in flat
    assert "None" not in out
    assert "agreement" not in out.replace("agreement and accuracy", "")


def test_the_same_tokens_have_no_other_unit(secateur: Secateur, tiny: Maker) -> None:
    code, out, _ = secateur(
        "eval",
        tiny("llama", rms_norm_eps=1.0),
        "--reference",
        tiny("llama"),
        "--window",
        "50",
        "-n",
        "2",
        "--json",
    )
    body = json.loads(out)
    assert code == 0
    assert body["per_token_of"] is None
    assert body["kl"] > 0
    assert not {"bits_per_byte", "reference_perplexity"} & set(body)
    code, out, _ = secateur(
        "eval", tiny("llama", rms_norm_eps=1.0), "--reference", tiny("llama"), "--window", "50", "-n", "2"
    )
    assert "per token of" not in out
