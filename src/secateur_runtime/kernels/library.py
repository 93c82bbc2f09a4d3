"""Load the C kernels.

The library next to this file is used, or else one compiled into the cache. Without both there is a warning.
"""

from __future__ import annotations

import ctypes
import os
import warnings
from ctypes import (
    POINTER,
    Structure,
    c_char_p,
    c_float,
    c_int,
    c_int32,
    c_int64,
    c_size_t,
    c_uint32,
    c_uint64,
    c_void_p,
)
from functools import cache
from pathlib import Path

from secateur_runtime.cache_folder import cache_folder
from secateur_runtime.errors import OutputError, UsageError, nearest
from secateur_runtime.kernels.build import (
    NAME,
    BuildError,
    build_key,
    compile_library,
    find_compiler,
    source_digest,
)

ABI = 1
ISA_VARIABLE = "SECATEUR_ISA"
ISAS = ("portable", "avx2", "avx512", "avx512bf16", "neon", "emulated-bf16")
_UNKNOWN = -1
_LACKING = -2


class KernelsWarning(UserWarning):
    """The C kernels are not available, and torch does their work."""


class Matrix(Structure):
    """`sec_matrix` of kernels.h."""

    _fields_ = (
        ("kind", c_int32),
        ("group", c_int32),
        ("rows", c_int64),
        ("cols", c_int64),
        ("values", c_void_p),
        ("mask", c_void_p),
        ("offsets", c_void_p),
        ("scales", c_void_p),
    )


_SIGNATURES = {
    "sec_abi": (c_int, ()),
    "sec_source": (c_char_p, ()),
    "sec_isa": (c_char_p, ()),
    "sec_select": (c_int, (c_char_p,)),
    "sec_scratch": (c_size_t, (c_int64, c_int64, c_uint32)),
    "sec_pool_new": (c_void_p, (c_int,)),
    "sec_pool_threads": (c_int, (c_void_p,)),
    "sec_pool_free": (None, (c_void_p,)),
    "sec_stream": (c_uint64, (c_void_p, c_void_p, c_int64)),
    "sec_product": (
        None,
        (c_void_p, POINTER(Matrix), c_void_p, POINTER(c_float), c_int64, c_int64, POINTER(c_float), c_int64),
    ),
}


@cache
def kernels() -> ctypes.CDLL | None:
    """Return the loaded library, or None after one KernelsWarning that says why there is none.

    Raises UsageError if `$SECATEUR_ISA` names instructions that are unknown or that this processor lacks.
    """
    try:
        library = _load()
    except (BuildError, OSError, OutputError) as error:
        warnings.warn(f"sparse weights run as dense ones in torch: {error}", KernelsWarning, stacklevel=2)
        return None
    choose(library, os.environ.get(ISA_VARIABLE, ""))
    return library


def require_kernels(instead: str) -> ctypes.CDLL:
    """Return the loaded library.

    instead: what the user can do without kernels.
    Raises UsageError, with the cause and `instead`, if there are none.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error", KernelsWarning)
        try:
            found = kernels()
            why = "see the warning above"
        except KernelsWarning as warning:
            found = None
            why = str(warning).partition(": ")[2]
    if found is None:
        raise UsageError(f"the native backend has no kernels here ({why}): {instead}")
    return found


def choose(library: ctypes.CDLL, isa: str) -> str:
    """Make `library` use the instruction set `isa`, the best one if empty; return its name.

    Raises UsageError if it cannot.
    """
    code = library.sec_select(isa.encode() if isa else None)
    if code == _LACKING or (code == _UNKNOWN and isa in ISAS):
        raise UsageError(
            f"{ISA_VARIABLE}={isa}: this processor lacks these instructions; unset it to use the best"
            " there are"
        )
    if code == _UNKNOWN:
        raise UsageError(
            f"{ISA_VARIABLE}={isa}: not among the instructions known here{nearest(isa, ISAS)}; known:"
            f" {', '.join(ISAS)}"
        )
    found: bytes = library.sec_isa()
    return found.decode()


def load(path: Path) -> ctypes.CDLL:
    """Load the library at `path` and declare its functions.

    Raises OSError if it is not a library of this version.
    """
    library = ctypes.CDLL(str(path))
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(library, name, None)
        if function is None:
            raise OSError(f"{path} has no {name}: delete it")
        function.restype = result
        function.argtypes = arguments
    if library.sec_abi() != ABI:
        raise OSError(f"{path} was built for another version: delete it")
    return library


def _load() -> ctypes.CDLL:
    shipped = Path(__file__).with_name(NAME)
    if shipped.is_file():
        # An editable install may ship a library built from older sources.
        library = load(shipped)
        if library.sec_source() == source_digest().encode():
            return library
    compiler = find_compiler()
    built = cache_folder() / f"kernels-{build_key(compiler)}.so"
    if not built.is_file():
        compile_library(built, compiler)
    return load(built)
