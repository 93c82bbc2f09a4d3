"""Protocol for a stored model, read tensor by tensor."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from secateur.core.graph import TensorInfo


class Source(Protocol):
    """A stored model, read tensor by tensor.

    ref: what the user typed.
    config: the Hugging Face `config.json` as a dict (made from the metadata for a GGUF file).
    tensors: every stored tensor under its Hugging Face name; a tied head is not listed.
    """

    ref: str
    config: dict[str, Any]
    tensors: Mapping[str, TensorInfo]

    def read(self, name: str) -> Tensor:
        """Return one tensor in its stored type (float32 if it was quantized), owned by the caller."""

    def pieces(self, name: str) -> Iterator[Tensor]:
        """Yield the rows of one tensor in order, a few at a time.

        So a large vocabulary is never in memory whole. A tensor that cannot be read in parts is one piece.
        """

    def digest(self) -> str:
        """Return `sha256:<hex>` over the stored weights."""

    def tokenizer(self) -> Any:
        """Return the Hugging Face tokenizer."""

    def copy_companions(self, folder: Path) -> None:
        """Write tokenizer, chat template and generation config into `folder`."""


class Derived(ABC):
    """A `Source` made from another one; it passes on all that a subclass does not replace."""

    def __init__(self, source: Source) -> None:
        self.ref = source.ref
        self.config: dict[str, Any] = source.config
        self.tensors: Mapping[str, TensorInfo] = source.tensors
        self._source = source

    @abstractmethod
    def read(self, name: str) -> Tensor:
        """Return one tensor, owned by the caller."""

    @abstractmethod
    def pieces(self, name: str) -> Iterator[Tensor]:
        """Yield the rows of one tensor in order, a few at a time."""

    def digest(self) -> str:
        """Return the digest of the source."""
        return self._source.digest()

    def tokenizer(self) -> Any:
        """Return the tokenizer of the source."""
        return self._source.tokenizer()

    def copy_companions(self, folder: Path) -> None:
        """Copy the companions of the source."""
        self._source.copy_companions(folder)
