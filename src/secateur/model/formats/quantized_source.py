"""Base class of model folders that store some weights in several parts."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Set

from torch import Tensor

from secateur.core.graph import TensorInfo
from secateur.model.formats.safetensors_source import FolderSource
from secateur.tensors.source import Derived
from secateur_runtime.kernels.quantized import Codes, Grid

CONFIG_KEY = "quantization_config"


class CodedSource(Derived):
    """A Source over a folder that stores some weights in several parts.

    grids: name of a quantized weight -> its grid; `codes` returns such a weight as it is stored.
    """

    def __init__(
        self,
        folder: FolderSource,
        grids: Mapping[str, Grid],
        whole: Mapping[str, TensorInfo],
        parts: Set[str],
    ) -> None:
        super().__init__(folder)
        self.path = folder.path
        self.config = {key: value for key, value in folder.config.items() if key != CONFIG_KEY}
        self.grids = grids
        self._folder = folder
        self._whole = whole
        self.tensors = {**{name: info for name, info in folder.tensors.items() if name not in parts}, **whole}

    @abstractmethod
    def codes(self, name: str) -> Codes:
        """Return a quantized weight as it is stored."""

    @abstractmethod
    def unpacked(self, name: str) -> Tensor:
        """Return a weight that is stored in parts."""

    def read(self, name: str) -> Tensor:
        """Return one tensor, in its stored type or, where it is quantized, as float32."""
        return self.unpacked(name) if name in self._whole else self._folder.read(name)

    def pieces(self, name: str) -> Iterator[Tensor]:
        """Yield the rows of one tensor in order; one that is stored in parts comes whole."""
        if name in self._whole:
            yield self.read(name)
        else:
            yield from self._folder.pieces(name)
