"""The moments that a method may ask for are those that calibration collects."""

from __future__ import annotations

from dataclasses import fields

from secateur.tensors.moments import MOMENTS
from secateur.tensors.stats import LinearStats


def test_they_are_fields_of_the_statistics() -> None:
    assert {field.name for field in fields(LinearStats)} - {"tokens", "cross", "seed"} == MOMENTS
