"""Compile the C kernels while the package is built, where there is a compiler.

Without them they are compiled at first use, or torch stands in.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from setuptools import Distribution, setup
from setuptools.command.build_py import build_py


def _builder() -> Any:
    """Return `secateur_runtime.kernels.build` alone: what its package needs is not installed yet."""
    spec = importlib.util.spec_from_file_location(
        "secateur_build", Path(__file__).parent / "src" / "secateur_runtime" / "kernels" / "build.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class BuildKernels(build_py):
    """`build_py`, and the kernels beside the modules.

    An editable install compiles at first use, because its sources change.
    """

    def run(self) -> None:
        """Build, and never fail for want of a compiler."""
        super().run()
        if self.editable_mode:
            return
        builder = _builder()
        try:
            builder.compile_library(
                Path(self.build_lib) / "secateur_runtime" / "kernels" / builder.NAME, builder.find_compiler()
            )
        except (builder.BuildError, OSError) as error:
            self.warn(f"the kernels for sparse weights were not compiled: {error}")


class WithKernels(Distribution):
    """A distribution that is bound to a platform, as it may hold a compiled library."""

    def has_ext_modules(self) -> bool:
        """Return whether a compiler is there."""
        builder = _builder()
        try:
            builder.find_compiler()
        except builder.BuildError:
            return False
        return True


setup(cmdclass={"build_py": BuildKernels}, distclass=WithKernels)
