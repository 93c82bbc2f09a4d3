"""The bias audit: figures are those of lm-eval and of the formulas, and mistakes are one line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.conftest import Maker
from tests.measure.test_winogender import ROWS
from transformers import AutoModelForCausalLM, AutoTokenizer

from secateur.pipeline.evaluate.bias_audit import audit_bias
from secateur.pipeline.evaluate.tasks import evaluate_tasks
from secateur_runtime.errors import MissingExtraError, UsageError


@pytest.fixture
def winogender(tmp_path: Path) -> Path:
    (tmp_path / "all_sentences.tsv").write_text(ROWS)
    return tmp_path


def test_categories_equal_lm_evals_tasks_of_their_own(tiny: Maker, mirror: Path) -> None:
    found = {each.name: each for each in audit_bias(str(tiny("llama")), datasets=mirror).findings}
    tasks = evaluate_tasks(
        str(tiny("llama")),
        ["crows_pairs_english", "crows_pairs_english_age", "crows_pairs_english_gender"],
        datasets=mirror,
    )
    assert set(found) == {"crows_pairs", "crows_pairs/age", "crows_pairs/gender", "crows_pairs/religion"}
    assert found["crows_pairs"].value.value == tasks["crows_pairs_english"]["pct_stereotype"].value
    for kind in ("age", "gender"):
        assert (
            found[f"crows_pairs/{kind}"].value.value
            == tasks[f"crows_pairs_english_{kind}"]["pct_stereotype"].value
        )
        assert found[f"crows_pairs/{kind}"].items == 6


def test_sentences_in_three_genders(tiny: Maker, mirror: Path, winogender: Path) -> None:
    """Log-probabilities of whole sentences and of what follows a prompt, by stock transformers."""
    folder = str(tiny("llama"))
    model, tokenizer = (
        AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
        AutoTokenizer.from_pretrained(folder),
    )

    def logprob(context: str, after: str) -> tuple[float, int]:
        whole = (
            [tokenizer.bos_token_id, *tokenizer.encode(after)]
            if not context
            else tokenizer.encode(context + after)
        )
        start = 1 if not context else len(tokenizer.encode(context))
        with torch.no_grad():
            logits = model(torch.tensor([whole])).logits[0, start - 1 : -1].double().log_softmax(-1)
        return float(logits.gather(1, torch.tensor(whole[start:])[:, None]).sum()), len(whole) - start

    lines = [line.split("\t")[1] for line in ROWS.splitlines()[1:]]
    nats = [-total / count for total, count in (logprob("", line) for line in lines)]
    choices = []
    for line, pronoun, other in zip(
        lines, ("his", "her", "", "he", "she", ""), (" the patient",) * 3 + (" someone",) * 3, strict=True
    ):
        prompt = f'{line} The pronoun "{pronoun}" refers to'
        choices.append(float(logprob(prompt, " the nurse")[0] > logprob(prompt, other)[0]))
    found = {
        each.name: each
        for each in audit_bias(folder, datasets=mirror, winogender=winogender, limit=5).findings
    }
    assert found["winogender/nll/female"].value.value == pytest.approx((nats[1] + nats[4]) / 2, rel=1e-5)
    assert found["winogender/gap"].value.value == pytest.approx(
        (nats[1] - nats[0] + nats[4] - nats[3]) / 2, rel=1e-3, abs=1e-5
    )
    assert found["winogender/choice/male"].value.value == (choices[0] + choices[3]) / 2
    assert (
        found["winogender/flips"].value.value == ((choices[0] != choices[1]) + (choices[3] != choices[4])) / 2
    )
    assert (
        found["winogender/gap"].items,
        found["winogender/gap"].independent,
        found["crows_pairs"].items,
    ) == (2, 1, 5)


def test_a_model_against_its_parent(
    tiny: Maker, mirror: Path, winogender: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, parent = str(tiny("llama", rms_norm_eps=1.0)), str(tiny("llama"))
    same = audit_bias(parent, parent, datasets=mirror, winogender=winogender)
    assert {each.value == each.reference for each in same.findings} == {True}
    assert {each.worse.value for each in same.findings if each.worse} == {0.0}
    assert same.verdict(0.0) == "open", "too few items to judge any figure"
    monkeypatch.setattr("secateur.measure.social_bias.FEWEST", 1)
    enough = audit_bias(parent, parent, datasets=mirror, winogender=winogender)
    assert enough.verdict(0.0) == "pass"
    monkeypatch.undo()
    audit = audit_bias(ours, parent, datasets=mirror, winogender=winogender)
    alone = {
        each.name: each.value for each in audit_bias(parent, datasets=mirror, winogender=winogender).findings
    }
    for each in audit.findings:
        assert each.reference == alone.get(each.name, each.reference)
    names = {each.name for each in audit.findings}
    assert {"winogender/changed/male", "winogender/changed/female"} <= names - set(alone)
    assert {record.name for record in audit.records()} == names
    assert all(
        record.model.startswith("sha256:") and "crows_pairs_english" in record.protocol
        for record in audit.records()
    )


def test_mistakes_are_one_line(tiny: Maker, mirror: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="has another vocabulary"):
        audit_bias(str(tiny("llama")), str(tiny("llama", vocab_size=999)), datasets=mirror)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="--bias needs lm-eval"):
        audit_bias(str(tiny("llama")), datasets=mirror)
