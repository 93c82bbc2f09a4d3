"""The build of the kernels: what decides its key, and compilers that are missing or fail."""

from __future__ import annotations

from pathlib import Path

import pytest

from secateur_runtime.kernels import build
from secateur_runtime.kernels.build import (
    EXTRA,
    FOLDER,
    BuildError,
    build_key,
    compile_library,
    compile_objects,
    find_compiler,
    source_digest,
)


def _compiler(folder: Path, body: str) -> list[str]:
    """Return a command that prints its arguments to a file and then does `body`."""
    path = folder / "cc"
    path.write_text(f'#!/bin/sh\necho "$@" >> {folder}/asked\n{body}\n')
    path.chmod(0o755)
    return [str(path)]


WRITES = 'while [ $# -gt 1 ]; do [ "$1" = -o ] && echo made > "$2"; shift; done; exit 0'


def test_every_source_belongs_to_all_machines_or_to_one(tmp_path: Path) -> None:
    objects = {
        machine: {Path(each).stem for each in compile_objects(tmp_path, _compiler(tmp_path, ""), machine, ())}
        for machine in ("x86_64", "aarch64", "riscv64")
    }
    everywhere = {path.stem for path in FOLDER.glob("*.c")}
    assert objects["x86_64"] | objects["aarch64"] == everywhere
    assert objects["riscv64"] == objects["x86_64"] & objects["aarch64"]
    assert {name for name in objects["x86_64"] if name.endswith("_neon")} == set()


def test_a_source_is_compiled_with_its_own_instructions_only(tmp_path: Path) -> None:
    compile_objects(tmp_path, _compiler(tmp_path, ""), "x86_64", ("-g",))
    for line in (tmp_path / "asked").read_text().splitlines():
        source = next(word for word in line.split() if word.endswith(".c"))
        suffix = next((each for each in EXTRA["x86_64"] if Path(source).stem.endswith(each)), "")
        assert ("-mavx2" in line) == (suffix == "_avx2"), source
        assert ("-mavx512bf16" in line) == (suffix == "_avx512bf16"), source
        assert f'-DSEC_SOURCE="{source_digest()}"' in line
        assert " -g " in line


def test_a_library_appears_whole(tmp_path: Path) -> None:
    out = tmp_path / "cache" / "kernels.so"
    compile_library(out, _compiler(tmp_path, WRITES), machine="riscv64")
    assert out.read_text() == "made\n"
    assert list(out.parent.iterdir()) == [out]


def test_a_compiler_that_fails_leaves_nothing(tmp_path: Path) -> None:
    out = tmp_path / "cache" / "kernels.so"
    failing = _compiler(tmp_path, "echo 'note' >&2; echo 'x.c:1: error: no such thing' >&2; exit 1")
    with pytest.raises(BuildError, match=r"failed: x\.c:1: error: no such thing"):
        compile_library(out, failing)
    assert list(out.parent.iterdir()) == []
    with pytest.raises(BuildError, match="does not run"):
        compile_library(out, [str(tmp_path / "absent")])


def test_the_key_changes_with_compiler_version_and_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler = _compiler(tmp_path, "echo 1.0")
    first = build_key(compiler)
    assert build_key(compiler) == first
    _compiler(tmp_path, "echo 1.1")
    assert build_key(compiler) != first
    _compiler(tmp_path, "echo 1.0")
    assert build_key([*compiler, "-m32"]) != first
    (tmp_path / "csrc").mkdir()
    (tmp_path / "csrc" / "a.c").write_text("int a;")
    monkeypatch.setattr(build, "FOLDER", tmp_path / "csrc")
    changed = build_key(compiler)
    assert changed != first
    (tmp_path / "csrc" / "a.c").write_text("int b;")
    assert build_key(compiler) != changed


def test_the_compiler_is_the_one_that_was_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "sh -e")
    assert find_compiler() == ["sh", "-e"]
    monkeypatch.setenv("CC", "no-such-compiler -O3")
    with pytest.raises(BuildError, match=r"no C compiler \(no-such-compiler -O3\)"):
        find_compiler()
    monkeypatch.delenv("CC")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(BuildError, match=r"no C compiler \(cc, gcc or clang\)"):
        find_compiler()
