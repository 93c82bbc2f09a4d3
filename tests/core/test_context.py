"""What the steps of one run share: results are its own, and by default no output is replaced."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest
import torch
from tests.conftest import Maker

from secateur.core.context import RunContext, Settings
from secateur.model.handle import open_model
from secateur.tensors.storage_dtype import storage_type


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_the_default_stores_what_the_source_stores(tiny: Maker, dtype: str) -> None:
    tensors = open_model(str(tiny("llama", dtype=dtype))).source.tensors
    assert storage_type(Settings().dtype, tensors) == getattr(torch, dtype)
    assert not Settings().overwrite


def test_settings_that_many_stages_share_cannot_change() -> None:
    with pytest.raises(FrozenInstanceError):
        Settings().overwrite = True  # type: ignore[misc]


def test_two_runs_share_no_results() -> None:
    first = RunContext()
    first.results["rotation"] = 1
    assert RunContext().results == {}
    assert (first.seed, first.settings) == (0, Settings())
