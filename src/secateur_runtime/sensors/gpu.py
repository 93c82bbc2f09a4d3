"""The memory of NVIDIA GPUs, where there are any and `nvidia-ml-py` is installed."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class GpuMemory:
    """One GPU: its name, and bytes."""

    name: str
    total: int
    used: int


class Gpus:
    """All GPUs that NVML finds; none if it is not installed or has no driver."""

    def __init__(self, nvml: Any = None) -> None:
        self._nvml = nvml if nvml is not None else _load()

    def __call__(self) -> tuple[GpuMemory, ...]:
        """Return the memory of each GPU now."""
        if self._nvml is None:
            return ()
        try:
            return tuple(self._one(index) for index in range(self._nvml.nvmlDeviceGetCount()))
        except self._nvml.NVMLError:
            return ()

    def _one(self, index: int) -> GpuMemory:
        handle = self._nvml.nvmlDeviceGetHandleByIndex(index)
        memory = self._nvml.nvmlDeviceGetMemoryInfo(handle)
        name = self._nvml.nvmlDeviceGetName(handle)
        return GpuMemory(
            name.decode() if isinstance(name, bytes) else str(name), int(memory.total), int(memory.used)
        )


def _load() -> Any:
    """Return the initialised NVML module, or None."""
    if importlib.util.find_spec("pynvml") is None:
        return None
    nvml = importlib.import_module("pynvml")
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return None
    return nvml
