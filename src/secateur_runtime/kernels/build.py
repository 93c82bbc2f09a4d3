"""Compile the C kernels into one shared library.

Only the standard library is imported, because `setup.py` runs this file alone.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

FOLDER = Path(__file__).with_name("csrc")
NAME = "libsecateur.so"
FLAGS = ("-std=c11", "-O2", "-ftree-vectorize", "-fPIC", "-pthread", "-Wall", "-Wextra")
_AVX512 = (
    "-mavx512f",
    "-mavx512bw",
    "-mavx512vl",
    "-mavx512dq",
    "-mavx512vbmi2",
    "-mavx512vnni",
    "-mbmi2",
    "-mlzcnt",
    "-mpopcnt",
    "-mf16c",
    "-mfma",
)
# By the suffix of a file name: only these files may hold such instructions, and only functions that
# dispatch.c chose may be called in them.
EXTRA: dict[str, dict[str, tuple[str, ...]]] = {
    "x86_64": {
        "_avx2": ("-mavx2", "-mfma", "-mf16c", "-mbmi2", "-mpopcnt"),
        "_avx512": _AVX512,
        "_avx512bf16": (*_AVX512, "-mavx512bf16"),
    },
    "aarch64": {"_neon": ("-march=armv8.2-a+dotprod",)},
}
_SUFFIXES = {suffix for extra in EXTRA.values() for suffix in extra}
_SECONDS = 900


class BuildError(Exception):
    """The kernels cannot be compiled here; the message is one line."""


def source_digest() -> str:
    """Return a digest of every source and header."""
    digest = hashlib.sha256()
    for path in sorted(FOLDER.glob("*.[ch]")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:24]


def find_compiler() -> list[str]:
    """Return the command of the C compiler: `$CC`, or the first of cc, gcc and clang.

    Raises BuildError if there is none.
    """
    named = shlex.split(os.environ.get("CC", ""))
    names = [named] if named else [["cc"], ["gcc"], ["clang"]]
    found = next((name for name in names if shutil.which(name[0])), None)
    if found is None:
        raise BuildError(f"no C compiler ({' '.join(named) or 'cc, gcc or clang'})")
    return found


def build_key(compiler: list[str]) -> str:
    """Return a digest of everything that determines the library.

    These are the sources, the compiler, the flags and the kind of machine.
    """
    version = _run([*compiler, "--version"])
    parts = (source_digest(), *compiler, version, *FLAGS, repr(EXTRA), platform.machine())
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]


def compile_library(
    out: Path, compiler: list[str], *, machine: str = "", flags: tuple[str, ...] = ()
) -> None:
    """Write the shared library `out`, whole or not at all.

    machine: target machine, by default `platform.machine()`. flags: additional flags for every file.
    Raises BuildError if the compiler fails, OSError if `out` cannot be written.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".secateur-", dir=out.parent) as scratch:
        objects = compile_objects(Path(scratch), compiler, machine or platform.machine(), flags)
        made = Path(scratch) / NAME
        _run([*compiler, "-shared", "-pthread", *flags, *objects, "-o", str(made), "-lm"])
        os.replace(made, out)


def compile_objects(folder: Path, compiler: list[str], machine: str, flags: tuple[str, ...]) -> list[str]:
    """Compile each source that applies to `machine` into `folder`; return the object files."""
    objects = []
    for path in sorted(FOLDER.glob("*.c")):
        suffix = next((suffix for suffix in _SUFFIXES if path.stem.endswith(suffix)), "")
        extra = EXTRA.get(machine, {}).get(suffix)
        if suffix and extra is None:
            continue
        objects.append(str(folder / f"{path.stem}.o"))
        _run(
            [
                *compiler,
                *FLAGS,
                *(extra or ()),
                *flags,
                f'-DSEC_SOURCE="{source_digest()}"',
                "-c",
                str(path),
                "-o",
                objects[-1],
            ]
        )
    return objects


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BuildError(f"{command[0]} does not run ({error})") from None
    if done.returncode:
        lines = (
            [line for line in done.stderr.splitlines() if "error" in line]
            or done.stderr.strip().splitlines()
            or ["no message"]
        )
        raise BuildError(f"{command[0]} failed: {lines[0]}")
    return done.stdout
