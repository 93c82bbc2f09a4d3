"""The kernels outside Python: under the sanitizers of the compiler, and as an ARM program under qemu."""

from __future__ import annotations

import platform
import shutil
import subprocess
from pathlib import Path

import pytest

from secateur_runtime.kernels.build import EXTRA, FOLDER, compile_objects

DRIVER = Path(__file__).with_name("driver.c")
SANITIZED = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
LACKING = 77
pytestmark = [pytest.mark.slow, pytest.mark.ci]


def build(folder: Path, compiler: list[str], machine: str, flags: tuple[str, ...]) -> Path:
    objects, program = compile_objects(folder, compiler, machine, flags), folder / "driver"
    subprocess.run(
        [
            *compiler,
            "-std=gnu11",
            f"-I{FOLDER}",
            *flags,
            str(DRIVER),
            *objects,
            "-pthread",
            "-o",
            str(program),
            "-lm",
        ],
        check=True,
    )
    return program


def run(command: list[str], isa: str) -> None:
    done = subprocess.run([*command, isa], capture_output=True, text=True, check=False)
    if done.returncode == LACKING:
        pytest.skip(f"this processor lacks {isa}")
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]
    assert done.stdout.endswith(f"{isa}: 0 wrong\n")


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The driver under AddressSanitizer and UBSan."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    return build(tmp_path_factory.mktemp("sanitized"), ["gcc"], platform.machine(), SANITIZED)


@pytest.mark.parametrize(
    "isa", ["portable", "emulated-bf16", *(suffix[1:] for suffix in EXTRA.get(platform.machine(), {}))]
)
def test_no_path_reads_out_of_bounds_or_computes_something_else(sanitized: Path, isa: str) -> None:
    run([str(sanitized)], isa)


@pytest.fixture(scope="module")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The driver as an ARM program, in its emulator."""
    compiler = "aarch64-linux-gnu-gcc"
    emulator = shutil.which("qemu-aarch64")
    if platform.machine() == "aarch64" or shutil.which(compiler) is None or emulator is None:
        packages = "gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user"
        pytest.skip(f"no cross compiler and emulator: apt-get install {packages}")
    program = build(tmp_path_factory.mktemp("arm"), [compiler], "aarch64", ("-static",))
    return [emulator, str(program)]


@pytest.mark.parametrize("isa", ["portable", "emulated-bf16", "neon"])
def test_arm_computes_the_same(emulated: list[str], isa: str) -> None:
    run(emulated, isa)
