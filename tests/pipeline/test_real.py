"""The main job on a real model, end to end, as the README's demo runs it but on less text."""

from __future__ import annotations

from pathlib import Path

import pytest

from secateur import pipeline

CALIBRATION = pipeline.Calibration(samples=8, window=256)


@pytest.mark.slow
@pytest.mark.ci
def test_smollm2_pruned_by_half_still_predicts_and_stock_transformers_agrees(smollm2: str, tmp_path: Path) -> None:
    made = pipeline.prune(smollm2, tmp_path / "out", sparsity=0.5, method="sparsegpt", calibration=CALIBRATION)
    assert made.sparsity == pytest.approx(0.5, abs=1e-3)
    assert made.reload_difference <= 1e-4
    assert pipeline.verify(str(tmp_path / "out")).stock_difference < 1e-3
    dense = pipeline.evaluate(smollm2, window=512, count=4)
    pruned = pipeline.evaluate(str(tmp_path / "out"), window=512, count=4, reference=smollm2)
    assert dense.perplexity < pruned.perplexity < 4 * dense.perplexity
    assert pruned.kl is not None
    assert 0 < pruned.kl < 2


@pytest.mark.slow
def test_the_protocol_gives_the_published_dense_perplexity(smollm2: str, shared: Path) -> None:
    text = shared / "data" / "wikitext-2" / "wiki.test.raw"
    assert pipeline.evaluate(smollm2, text=str(text)).perplexity == pytest.approx(20.852, abs=2e-3)


@pytest.mark.slow
@pytest.mark.ci
def test_smollm2_narrowed_and_shortened_loads_in_stock_transformers(smollm2: str, tmp_path: Path) -> None:
    width = pipeline.plan(smollm2, pipeline.Width(ratio=0.2), calibration=CALIBRATION)
    plan = pipeline.Plan(model=width.model, keep=width.keep, drop=("17",), made_by=width.made_by)
    made = pipeline.apply(plan, smollm2, tmp_path / "out")
    assert made.parameters < 0.87 * 134_515_008
    assert pipeline.verify(str(tmp_path / "out")).stock_difference < 1e-3
