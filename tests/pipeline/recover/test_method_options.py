"""Options of recovery methods by the method's name, and methods by an option's."""

from __future__ import annotations

import pytest

from secateur.pipeline.recover.distill import Distill
from secateur.pipeline.recover.local_reconstruction import Local
from secateur.pipeline.recover.method_options import methods_with, options_kind
from secateur_runtime.errors import UsageError


def test_kinds_and_what_a_name_decides() -> None:
    assert options_kind("local") == (Local, {})
    assert options_kind("distill") == (Distill, {"trains": "all"})
    with pytest.raises(UsageError, match=r"unknown recovery method 'locl' \(did you mean local\?\)"):
        options_kind("locl")


@pytest.mark.parametrize(
    ("option", "methods"),
    [
        ("steps", ["bias", "distill", "local", "lora", "scales"]),
        ("micro", ["bias", "distill", "lora", "scales"]),
        ("rank", ["lora"]),
        ("sparsity", ["distill"]),
        ("stages", ["distill"]),
    ],
)
def test_which_methods_take_an_option(option: str, methods: list[str]) -> None:
    assert methods_with(option) == methods
