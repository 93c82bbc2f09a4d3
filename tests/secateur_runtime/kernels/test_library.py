from __future__ import annotations

import ctypes
import os
import platform
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from secateur_runtime.cache_folder import VARIABLE
from secateur_runtime.errors import UsageError
from secateur_runtime.kernels.build import FOLDER, NAME, source_digest
from secateur_runtime.kernels.library import ISA_VARIABLE, KernelsWarning, Matrix, choose, kernels, load


def test_a_dense_weight_is_multiplied(rng: np.random.Generator) -> None:
    library = kernels()
    assert library is not None
    weight, x, y = (
        rng.standard_normal((5, 70), np.float32),
        rng.standard_normal((3, 70), np.float32),
        np.zeros((3, 5), np.float32),
    )
    matrix = Matrix(kind=0, rows=5, cols=70, values=weight.ctypes.data)
    scratch = ctypes.create_string_buffer(library.sec_scratch(3, 70, 1))
    pointer = ctypes.POINTER(ctypes.c_float)
    library.sec_product(None, matrix, scratch, x.ctypes.data_as(pointer), 70, 3, y.ctypes.data_as(pointer), 5)
    np.testing.assert_allclose(y, x.astype(np.float64) @ weight.T.astype(np.float64), rtol=1e-5, atol=1e-5)


def test_instructions_are_chosen_by_name() -> None:
    library = kernels()
    assert library is not None
    best = choose(library, "")
    assert choose(library, "portable") == "portable"
    assert choose(library, "") == best


def test_unknown_instructions_are_one_line() -> None:
    library = kernels()
    assert library is not None
    with pytest.raises(
        UsageError, match=rf"{ISA_VARIABLE}=portabel: not among .* \(did you mean portable\?\)"
    ):
        choose(library, "portabel")


def test_instructions_of_another_processor_are_one_line() -> None:
    library = kernels()
    assert library is not None
    other = "neon" if platform.machine() == "x86_64" else "avx2"
    with pytest.raises(UsageError, match=f"{ISA_VARIABLE}={other}: this processor lacks"):
        choose(library, other)


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[pytest.MonkeyPatch]:
    """No kernels were loaded, none were installed, and the cache is empty."""
    monkeypatch.setattr("secateur_runtime.kernels.library.NAME", "none.so")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "cache"))
    kernels.cache_clear()
    yield monkeypatch
    kernels.cache_clear()


def test_without_a_compiler_there_is_one_warning(alone: pytest.MonkeyPatch) -> None:
    alone.setenv("CC", "no-such-compiler")
    with pytest.warns(
        KernelsWarning, match=r"run as dense ones in torch: no C compiler \(no-such-compiler\)"
    ) as told:
        assert [kernels() for _ in range(2)] == [None, None]
    assert len(told) == 1


def test_a_compiler_that_fails_is_one_warning(alone: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "cc").write_text(
        "#!/bin/sh\n[ $1 = --version ] && exit 0\necho 'x.c:1: error: unknown flag' >&2; exit 1\n"
    )
    (tmp_path / "cc").chmod(0o755)
    alone.setenv("CC", str(tmp_path / "cc"))
    with pytest.warns(KernelsWarning, match="failed: x.c:1: error: unknown flag"):
        assert kernels() is None
    assert not list((tmp_path / "cache").iterdir())


def test_a_cache_that_cannot_be_written_is_one_warning(alone: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be, which root cannot write into either")
    with pytest.warns(KernelsWarning, match="Not a directory|File exists"):
        assert kernels() is None


def test_importing_needs_no_kernels(tmp_path: Path) -> None:
    environment = {"PATH": "", "PYTHONPATH": os.pathsep.join(sys.path), VARIABLE: str(tmp_path)}
    subprocess.run(
        [sys.executable, "-c", "import secateur, secateur_runtime.kernels.library"],
        env=environment,
        check=True,
    )
    assert not list(tmp_path.iterdir())


def test_what_is_no_library_is_refused(tmp_path: Path) -> None:
    (tmp_path / "no.so").write_bytes(b"no library")
    with pytest.raises(OSError, match=r"no\.so"):
        load(tmp_path / "no.so")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.slow
def test_a_wheel_holds_the_kernels_and_their_sources(tmp_path: Path) -> None:
    """They run where there is no compiler, and are compiled for another machine where there is one."""
    pytest.importorskip("setuptools", "77", reason="pip install setuptools")
    root = Path(__file__).parents[3]
    shutil.copytree(
        root / "src", tmp_path / "src", ignore=shutil.ignore_patterns("*.egg-info", "__pycache__")
    )
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(root / name, tmp_path)
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        str(tmp_path),
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "-q",
        "-w",
        str(tmp_path / "out"),
    ]
    subprocess.run(command, check=True, cwd=tmp_path)
    (wheel,) = (tmp_path / "out").glob("*.whl")
    with zipfile.ZipFile(wheel) as held:
        assert {f"secateur_runtime/kernels/csrc/{path.name}" for path in FOLDER.glob("*.[ch]")} <= set(
            held.namelist()
        )
        found = load(Path(held.extract(f"secateur_runtime/kernels/{NAME}", tmp_path / "there")))
    assert found.sec_source() == source_digest().encode()
