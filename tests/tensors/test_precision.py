"""Which CPUs are asked for bfloat16."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest
import torch

from secateur.tensors.precision import arithmetic, has_bfloat16, mixed


@pytest.mark.skipif(
    platform.machine() != "x86_64" or not Path("/proc/cpuinfo").exists(),
    reason="the flags of an x86 CPU are read from Linux",
)
def test_bfloat16_is_claimed_only_where_the_kernel_lists_its_instructions() -> None:
    flags = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    assert has_bfloat16() == bool(flags & {"avx512_bf16", "amx_bf16"})


@pytest.mark.parametrize("able", [False, True])
def test_operations_change_their_type_only_where_that_is_fast(
    able: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("secateur.tensors.precision.has_bfloat16", lambda: able)
    with arithmetic("bfloat16"), mixed():
        assert torch.nn.functional.linear(torch.ones(2, 3), torch.ones(4, 3)).dtype == (
            torch.bfloat16 if able else torch.float32
        )
    with arithmetic("float32"), mixed():
        assert torch.nn.functional.linear(torch.ones(2, 3), torch.ones(4, 3)).dtype == torch.float32
