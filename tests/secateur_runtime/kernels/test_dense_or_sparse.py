"""Never slower than dense: the form that was faster when it was timed."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from secateur_runtime.kernels.bitmask import pack
from secateur_runtime.kernels.dense_or_sparse import Chooser
from secateur_runtime.kernels.kernel_weight import BF16, BF16_SPARSE, Weight
from secateur_runtime.kernels.library import kernels
from secateur_runtime.kernels.thread_pool import ThreadPool


def weight(density: float, rows: int = 40) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    keep = torch.rand(rows, 100, generator=generator) < density
    return torch.randn(rows, 100, generator=generator).to(torch.bfloat16) * keep


def chooser() -> Chooser:
    library = kernels()
    assert library is not None
    return Chooser(library, ThreadPool(library, 1))


@pytest.mark.parametrize(
    ("seconds", "kind"),
    [
        ({BF16: 2.0, BF16_SPARSE: 1.0}, BF16_SPARSE),
        ({BF16: 1.0, BF16_SPARSE: 2.0}, BF16),
        ({BF16: 1.0, BF16_SPARSE: 0.96}, BF16),
    ],
)
def test_the_clearly_faster_form_is_taken(
    monkeypatch: pytest.MonkeyPatch, seconds: dict[int, float], kind: int
) -> None:
    monkeypatch.setattr(Chooser, "_seconds", lambda _, copies: seconds[copies[0].kind])
    made = chooser()
    dense = weight(0.5)
    assert made.faster(pack(dense), dense).kind == kind
    (timed,) = made.timed
    assert (timed.rows, timed.columns, timed.kind, timed.sparse, timed.dense) == (
        40,
        100,
        "sparse-bf16",
        seconds[BF16_SPARSE],
        seconds[BF16],
    )
    assert timed.density == pytest.approx(0.5, abs=0.02)


def test_each_shape_and_density_is_timed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Sequence[Weight]] = []

    def seconds(_: Chooser, copies: Sequence[Weight]) -> float:
        asked.append(copies)
        return 1.0

    monkeypatch.setattr(Chooser, "_seconds", seconds)
    made = chooser()
    for dense in (weight(0.5), weight(0.5), weight(0.2), weight(0.5, rows=8), weight(0.2)):
        made.faster(pack(dense), dense)
    assert len(made.timed) == 3
    assert len(asked) == 3 * 5 * 2


def test_a_product_takes_time() -> None:
    made = chooser()
    dense = weight(0.5)
    made.faster(pack(dense), dense)
    assert 0 < made.timed[0].sparse < 1
