"""GPUs through a stand-in for NVML, which a machine without a GPU can test."""

from __future__ import annotations

from typing import Any

from secateur_runtime.sensors.gpu import GpuMemory, Gpus


class _Nvml:
    """NVML with one GPU, as a machine without any can test it."""

    class NVMLError(Exception): ...

    def __init__(self, *, fails: bool = False) -> None:
        self._fails = fails

    def nvmlDeviceGetCount(self) -> int:
        if self._fails:
            raise self.NVMLError
        return 1

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetName(self, handle: int) -> bytes:
        return b"GPU"

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:
        class Memory:
            total, used = 100, 40

        return Memory()


def test_gpus() -> None:
    assert Gpus(_Nvml())() == (GpuMemory("GPU", 100, 40),)
    assert Gpus(_Nvml(fails=True))() == ()
    Gpus()()
