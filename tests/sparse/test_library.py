from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import pytest

from secateur.core.errors import UsageError
from secateur.sparse.library import ISA_VARIABLE, Matrix, choose, kernels, load


def test_a_dense_weight_is_multiplied(rng: np.random.Generator) -> None:
    library = kernels()
    assert library is not None
    weight, x, y = rng.standard_normal((5, 70), np.float32), rng.standard_normal((3, 70), np.float32), np.zeros((3, 5), np.float32)
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
    with pytest.raises(UsageError, match=rf"{ISA_VARIABLE}=portabel: not among .* \(did you mean portable\?\)"):
        choose(library, "portabel")


def test_what_is_no_library_is_refused(tmp_path: Path) -> None:
    (tmp_path / "no.so").write_bytes(b"no library")
    with pytest.raises(OSError, match=r"no\.so"):
        load(tmp_path / "no.so")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
