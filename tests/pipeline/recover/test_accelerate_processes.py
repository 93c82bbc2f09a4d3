"""What `accelerate launch` tells a process by its environment."""

from __future__ import annotations

import sys

import pytest

from secateur.pipeline.recover.accelerate_processes import (
    is_first_process,
    make_accelerator,
    processes,
    share,
)
from secateur_runtime.errors import MissingExtraError


def test_alone_is_first_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert is_first_process()
    assert processes() == 1
    made = object()
    assert share(made) is made


@pytest.mark.parametrize(("rank", "first"), [("0", True), ("1", False), ("3", False)])
def test_the_first_of_several(monkeypatch: pytest.MonkeyPatch, rank: str, first: bool) -> None:
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert is_first_process() == first
    assert processes() == 4


def test_without_accelerate_the_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    # `let_train` would make the package importable again.
    monkeypatch.setattr("secateur.pipeline.recover.accelerate_processes.let_train", lambda: None)
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'secateur\[recover\]', or use --method local"):
        make_accelerator()
