"""Results in a card: metadata as the hub reads it, a table, and a second run that replaces the first."""

from __future__ import annotations

from typing import Any

import pytest
from huggingface_hub import ModelCard
from tests.present.comparisons import record

from secateur.core.card_front_matter import bare_card
from secateur.present.model_index import BEGIN, END, results, with_results
from secateur_runtime.errors import RecordError

PERPLEXITY = record("perplexity", 21.5, "wiki.raw (digest sha256:1), 4 windows")
TASK = record("comprehension/arc_easy/acc_norm", 0.5, "lm-eval 0.4, arc_easy version 1")
RECORDS = [PERPLEXITY, TASK, record("comprehension/arc_easy/acc_norm/shift", -0.1, "lm-eval 0.4")]


def test_what_the_hub_reads() -> None:
    found = {result.metric_name: result for result in results([*RECORDS, record("weight_bytes", 1e6)])}
    assert set(found) == {"perplexity", "acc_norm"}, "neither sizes nor differences"
    assert (found["perplexity"].dataset_name, found["perplexity"].metric_value) == ("wiki.raw", 21.5)
    assert (found["acc_norm"].dataset_name, found["acc_norm"].metric_type) == ("arc_easy", "accuracy")
    bias = results([record("crows_pairs/age", 0.6), record("winogender/share/worse", 0.1)])
    assert [(one.dataset_name, one.metric_name) for one in bias] == [("crows_pairs", "age")]


def test_a_model_without_a_card_gets_one() -> None:
    text = with_results("", "tiny", RECORDS, {})
    data: Any = ModelCard(text).data
    assert data.tags == ["secateur"]
    assert data.model_name == "tiny"
    assert len(data.eval_results or []) == 2
    assert bare_card("tiny").partition("---\n\n")[2].strip() in text


def test_the_figures_before_pruning_have_a_column() -> None:
    text = with_results("", "tiny", RECORDS, {"perplexity": 20.0})
    assert "| figure | value | before pruning | unit | how it was measured |" in text
    assert "| perplexity | 21.5 | 20 | unit | wiki.raw" in text
    assert "before pruning" not in with_results("", "tiny", RECORDS, {})


def test_only_the_results_are_replaced() -> None:
    first = with_results("---\nlicense: mit\n---\n\n# Mine\n\nWords.\n", "tiny", RECORDS, {})
    edited = first + "\nMore words.\n"
    again = with_results(edited, "tiny", [TASK], {})
    assert again.count(BEGIN) == again.count(END) == 1
    assert "license: mit" in again
    assert "Words." in again
    assert again.endswith("More words.\n")
    assert "21.5" not in again
    assert with_results(again, "tiny", [TASK], {}) == again


def test_metadata_that_cannot_be_read() -> None:
    with pytest.raises(RecordError, match=r"^the card's metadata cannot be read") as raised:
        with_results("---\nlicense: [mit\n---\n\n# Mine\n", "tiny", RECORDS, {})
    assert "\n" not in str(raised.value)
