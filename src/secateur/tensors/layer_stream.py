"""Protocols for a model that is streamed block by block."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from secateur.core.graph import Block


@dataclass(frozen=True, slots=True)
class Pulled:
    """Gradients of a loss, pulled back through one block.

    hidden, middle: at the block's input and between its sub-blocks, `[batch, tokens, hidden_size]`.
    weights: tensor name -> gradient of the weight's shape.
    """

    hidden: Tensor
    middle: Tensor
    weights: dict[str, Tensor]


class LiveBlock(Protocol):
    """One decoder block with its weights in memory."""

    block: Block

    def __call__(self, hidden: Tensor) -> Tensor:
        """Return the block's output, `[batch, tokens, hidden_size]`, for an input of the same shape."""

    def tap(self, tensors: tuple[str, ...], hidden: Tensor, see: Callable[[str, Tensor], None]) -> None:
        """Run `hidden` as far as the last of the linears named.

        see: called with `(tensor, input)` for each linear on the way.
        """

    def watch(self, tensors: tuple[str, ...], hidden: Tensor, see: Callable[[str, Tensor], None]) -> Tensor:
        """Return the block's output for `hidden`.

        see: called with `(tensor, input)` for each of the linears named on the way.
        """

    def pull(self, hidden: Tensor, gradient: Tensor, tensors: tuple[str, ...]) -> Pulled:
        """Run the block on `hidden` and pull a gradient back through it.

        gradient: of a loss, with respect to the block's output.
        """

    def slope(
        self, hidden: Tensor, loss: Callable[[Tensor], Tensor], tensors: tuple[str, ...]
    ) -> tuple[float, dict[str, Tensor]]:
        """Return `loss(output)` of the block's output for `hidden`, and its gradients.

        tensors: names of the weights to differentiate with respect to.
        """

    def without(self, part: str) -> AbstractContextManager[None]:
        """Run the block without its `attn` or its `ffn` until exit."""

    def weight(self, tensor: str) -> Tensor:
        """Return a weight of this block, float32; changing it in place changes the block."""


class LayerStream(Protocol):
    """A causal language model that holds one block at a time in memory."""

    @property
    def hidden_size(self) -> int:
        """Width of the states that pass from block to block."""

    def __len__(self) -> int:
        """Number of decoder blocks."""

    def embed(self, batches: Iterable[Tensor]) -> Iterator[Tensor]:
        """Yield the input of block 0 for each batch, `[batch, tokens, hidden_size]`, float32.

        batches: token ids, `[batch, tokens]` each.
        """

    def open(self, index: int) -> AbstractContextManager[LiveBlock]:
        """Load block `index`; its memory is released on exit."""

    def logits(self, hidden: Tensor) -> Iterator[Tensor]:
        """Yield the logits in consecutive chunks, `[positions, vocab_size]` each.

        hidden: output of the last block, `[tokens, hidden_size]`.
        """

    def pull_nll(self, batches: Iterable[tuple[Tensor, Tensor]]) -> Iterator[Tensor]:
        """Yield the gradient of the summed negative log likelihood with respect to the last block's output.

        batches: states `[tokens, hidden_size]` with the token ids `[tokens]` that they should predict.
        """


SUB_BLOCKS = ("attn", "ffn")
"""The sub-blocks of a block in the order in which they run."""


def sub_blocks(block: Block, dropped: Collection[str] = ()) -> Iterator[tuple[str, frozenset[str]]]:
    """Yield each sub-block that has tensors and is not in `dropped`, in the order in which they run.

    With its name go the names of its tensors.
    """
    for part in SUB_BLOCKS:
        if part not in dropped and block.halves[part]:
            yield part, frozenset(block.halves[part])


def alone(live: LiveBlock, part: str) -> AbstractContextManager[None]:
    """Run a block as its sub-block `part` alone until exit."""
    return live.without("ffn" if part == "attn" else "attn")


@contextmanager
def without(live: LiveBlock, parts: Iterable[str]) -> Iterator[None]:
    """Run a block without the sub-blocks `parts` until exit."""
    with ExitStack() as stack:
        for part in parts:
            stack.enter_context(live.without(part))
        yield
