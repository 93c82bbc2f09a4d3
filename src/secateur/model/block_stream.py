"""Run a stored model one decoder block at a time, on transformers' own modules.

The model is built without weights. Its decoder layers are replaced by taps, so one weightless pass records
the arguments (mask, rotary embedding, ...) that transformers would give each layer; a block is then loaded,
called with them, and dropped. This holds for every family whose forward pass is a loop over `layers`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from secateur.core.graph import Block, Graph
from secateur.core.process_memory import give_back
from secateur.model.reshape import Nothing
from secateur.model.transformers_model import build_without_weights
from secateur.tensors.layer_stream import Pulled
from secateur.tensors.precision import mixed
from secateur.tensors.source import Source
from secateur_runtime.errors import SourceError

POSITIONS = 256
"""Positions whose logits are in memory together."""


class _StopForward(Exception):
    """Raised by a tap to leave a forward pass early."""


class StreamedBlock:
    """One decoder block with its weights in memory (see `LiveBlock`)."""

    def __init__(
        self, block: Block, layer: nn.Module, second_half: str, call: Callable[[Tensor], Tensor]
    ) -> None:
        self.block = block
        self._layer = layer
        self._second_half = second_half
        self._call = call

    @torch.no_grad()
    def __call__(self, hidden: Tensor) -> Tensor:
        """Return the block's output for `hidden` `[batch, tokens, hidden_size]`."""
        return self._call(hidden)

    @torch.no_grad()
    def tap(self, tensors: tuple[str, ...], hidden: Tensor, see: Callable[[str, Tensor], None]) -> None:
        """Run as far as the last of the linears `tensors`.

        see: called with `(tensor, input)` for each linear on the way.
        """
        waiting = set(tensors)

        def stop(tensor: str, inputs: Tensor) -> None:
            see(tensor, inputs)
            waiting.discard(tensor)
            if not waiting:
                raise _StopForward

        with suppress(_StopForward):
            self.watch(tensors, hidden, stop)

    @torch.no_grad()
    def watch(self, tensors: tuple[str, ...], hidden: Tensor, see: Callable[[str, Tensor], None]) -> Tensor:
        """Return the block's output for `hidden`.

        see: called with `(tensor, input)` for each of the linears named on the way.
        """
        modules = {
            linear.tensor: self._layer.get_submodule(linear.module)
            for linear in self.block.linears
            if linear.tensor in tensors
        }
        handles = [
            module.register_forward_pre_hook(_seeing(tensor, see)) for tensor, module in modules.items()
        ]
        try:
            return self._call(hidden)
        finally:
            for handle in handles:
                handle.remove()

    @torch.enable_grad()
    def pull(self, hidden: Tensor, gradient: Tensor, tensors: tuple[str, ...]) -> Pulled:
        """Run the block on `hidden` and pull a gradient back through it.

        gradient: of a loss, with respect to the block's output.
        """
        given = hidden.detach().requires_grad_()
        weights = [
            self._layer.get_parameter(tensor.removeprefix(self.block.prefix)).requires_grad_()
            for tensor in tensors
        ]
        middle: list[Tensor] = []
        handle = self._layer.get_submodule(self._second_half).register_forward_pre_hook(
            lambda _module, inputs: middle.append(inputs[0])
        )
        try:
            found = torch.autograd.grad(self._call(given), [given, *middle, *weights], gradient)
        finally:
            handle.remove()
            self._layer.requires_grad_(False)
        return Pulled(found[0], found[1], dict(zip(tensors, found[2:], strict=True)))

    @torch.enable_grad()
    def slope(
        self, hidden: Tensor, loss: Callable[[Tensor], Tensor], tensors: tuple[str, ...]
    ) -> tuple[float, dict[str, Tensor]]:
        """Return `loss(output)` of the block's output for `hidden`, and its gradients.

        tensors: names of the weights to differentiate with respect to.
        """
        weights = [
            self._layer.get_parameter(tensor.removeprefix(self.block.prefix)).requires_grad_()
            for tensor in tensors
        ]
        try:
            with mixed():
                output = self._call(hidden)
            value = loss(output.float())
            found = torch.autograd.grad(value, weights)
        finally:
            self._layer.requires_grad_(False)
        return float(value.detach()), dict(zip(tensors, found, strict=True))

    @contextmanager
    def without(self, part: str) -> Iterator[None]:
        """Run the block without its `attn` or its `ffn` until exit."""
        name, attention = ("self_attn", True) if part == "attn" else ("mlp", False)
        whole = getattr(self._layer, name)
        setattr(self._layer, name, Nothing(attention=attention))
        try:
            yield
        finally:
            setattr(self._layer, name, whole)

    def weight(self, tensor: str) -> Tensor:
        """Return a weight of this block, float32; changing it in place changes the block."""
        return self._layer.get_parameter(tensor.removeprefix(self.block.prefix)).data


def _seeing(
    tensor: str, see: Callable[[str, Tensor], None]
) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    return lambda _module, inputs: see(tensor, inputs[0])


class ModelStream:
    """A stored causal language model that holds one block at a time in memory (see `LayerStream`).

    outside: the type that weights outside the blocks are rounded to, for a model that will be stored in it.
    """

    def __init__(self, source: Source, graph: Graph, outside: torch.dtype = torch.float32) -> None:
        self._source = source
        self._rounding = outside
        self.graph = graph
        self._model = build_without_weights(source.config)
        self._decoder = self._model.get_decoder()
        self._layers: list[nn.Module] = list(self._decoder.layers)
        self._outside = {
            name: self._source_name(name)
            for name, _ in self._model.named_parameters()
            if not self._in_a_block(name)
        }
        self._second_half = next(
            (_module(block, block.halves["ffn"][0]) for block in graph.blocks if block.halves["ffn"]), ""
        )
        self._calls: dict[int, list[dict[str, Any]]] = {}
        self._predicting = 0
        self._head = ExitStack()

    def __len__(self) -> int:
        """Number of decoder blocks."""
        return len(self._layers)

    @property
    def hidden_size(self) -> int:
        """Width of the states that pass from block to block."""
        return self.graph.hidden_size

    @torch.no_grad()
    def embed(self, batches: Iterable[Tensor]) -> Iterator[Tensor]:
        """Yield the input of block 0 for each batch, `[batch, tokens, hidden_size]`, float32.

        batches: token ids, `[batch, tokens]` each. Only the rows of the embedding that occur are in memory.
        """
        every = list(batches)
        used = torch.cat([tokens.flatten() for tokens in every]).unique()
        module = self._model.get_input_embeddings()
        (name,) = self._names_in(module)
        rows = {name: self._rows(self._outside[name], used)}
        for tokens in every:
            # Not beyond the yield: until the next batch is asked for, the model may compute something else.
            with self._holding(rows):
                states = self._record(inputs_embeds=module(torch.searchsorted(used, tokens)))[0]["hidden"]
            yield states
        rows.clear()
        give_back()

    def open(self, index: int) -> AbstractContextManager[StreamedBlock]:
        """Load block `index`; its memory is released on exit.

        Raises SourceError if a weight is not finite.
        """
        return self.open_from(self._source, index)

    @contextmanager
    def open_from(self, source: Source, index: int) -> Iterator[StreamedBlock]:
        """Load block `index` with the weights of another source of the same shapes, as `open` does."""
        block = self.graph.blocks[index]
        layer = self._layers[index]
        state = {name.removeprefix(block.prefix): _read(source, name) for name in block.tensors}
        layer.load_state_dict(state, assign=True)
        layer.requires_grad_(False)
        forward = type(layer).forward

        def call(hidden: Tensor) -> Tensor:
            output: Tensor | tuple[Tensor, ...] = forward(
                layer, hidden, **self._arguments(hidden.shape[1])[index]
            )
            return output[0] if isinstance(output, tuple) else output

        try:
            yield StreamedBlock(block, layer, self._second_half, call)
        finally:
            layer.to("meta")
            give_back()

    @torch.no_grad()
    def logits(self, hidden: Tensor) -> Iterator[Tensor]:
        """Yield the logits in consecutive chunks, `[positions, vocab_size]` each.

        hidden: output of the last block, `[tokens, hidden_size]`.
        """
        with self._materialised():
            for chunk in hidden.split(POSITIONS):
                with self._taps(_replay(chunk[None])):
                    logits = self._model(inputs_embeds=chunk[None], use_cache=False).logits[0]
                yield logits

    def pull_nll(self, batches: Iterable[tuple[Tensor, Tensor]]) -> Iterator[Tensor]:
        """Yield the gradient of the summed negative log likelihood with respect to the last block's output.

        batches: states `[tokens, hidden_size]` with the token ids `[tokens]` that they should predict.
        """
        with self._materialised():
            for hidden, targets in batches:
                pieces = [
                    self._pull_nll(*piece)
                    for piece in zip(hidden.split(POSITIONS), targets.split(POSITIONS), strict=True)
                ]
                yield torch.cat(pieces)

    @torch.enable_grad()
    def _pull_nll(self, hidden: Tensor, targets: Tensor) -> Tensor:
        given = hidden.detach().requires_grad_()
        with self._taps(_replay(given[None])):
            logits = self._model(inputs_embeds=hidden[None], use_cache=False).logits[0]
        (gradient,) = torch.autograd.grad(cross_entropy(logits, targets, reduction="sum"), given)
        return gradient

    @torch.no_grad()
    def _arguments(self, length: int) -> list[dict[str, Any]]:
        if length not in self._calls:
            recorded = self._record(inputs_embeds=torch.zeros(1, length, self.graph.hidden_size))
            self._calls = {
                length: [{key: value for key, value in call.items() if key != "hidden"} for call in recorded]
            }
        return self._calls[length]

    def _record(self, **inputs: Tensor) -> list[dict[str, Any]]:
        calls: list[dict[str, Any]] = []

        def record(index: int, hidden: Tensor, kwargs: dict[str, Any]) -> Tensor:
            calls.append({"hidden": hidden, **kwargs})
            if index == len(self._layers) - 1:
                raise _StopForward
            return hidden

        with self._taps(record), suppress(_StopForward):
            self._decoder(**inputs, use_cache=False)
        return calls

    @contextmanager
    def _taps(self, see: Callable[[int, Tensor, dict[str, Any]], Tensor]) -> Iterator[None]:
        for index, layer in enumerate(self._layers):
            layer.forward = lambda hidden, index=index, **kwargs: see(index, hidden, kwargs)
        try:
            yield
        finally:
            for layer in self._layers:
                del layer.forward

    def _names_in(self, module: nn.Module) -> list[str]:
        """Return the parameters of `module` that lie outside the blocks, by their names in the model."""
        ours = {id(parameter) for parameter in module.parameters()}
        return [
            name
            for name, parameter in self._model.named_parameters()
            if name in self._outside and id(parameter) in ours
        ]

    @contextmanager
    def _materialised(self) -> Iterator[None]:
        """Hold every weight outside the blocks until exit; several users at a time share them."""
        if not self._predicting:
            weights = {
                name: _read(self._source, stored, self._rounding) for name, stored in self._outside.items()
            }
            self._head.enter_context(self._holding(weights))
        self._predicting += 1
        try:
            yield
        finally:
            self._predicting -= 1
            if not self._predicting:
                self._head.close()
                give_back()

    @contextmanager
    def _holding(self, weights: Mapping[str, Tensor]) -> Iterator[None]:
        """Give parameters outside the blocks these weights, until exit."""
        owners = [
            (self._model.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2], weight)
            for name, weight in weights.items()
        ]
        empty = [getattr(owner, leaf) for owner, leaf, _ in owners]
        for owner, leaf, weight in owners:
            setattr(owner, leaf, nn.Parameter(weight, requires_grad=False))
        self._model.tie_weights()
        try:
            yield
        finally:
            for (owner, leaf, _), parameter in zip(owners, empty, strict=True):
                setattr(owner, leaf, parameter)
            self._model.tie_weights()

    def _rows(self, name: str, wanted: Tensor) -> Tensor:
        """Return the rows `wanted` (ascending) of a weight outside the blocks."""
        rows = torch.empty(len(wanted), *self._source.tensors[name].shape[1:])
        start = 0
        for piece in _pieces(self._source, name, self._rounding):
            first, last = torch.searchsorted(wanted, torch.tensor([start, start + len(piece)])).tolist()
            rows[first:last] = piece[wanted[first:last] - start]
            start += len(piece)
        return rows

    def _in_a_block(self, name: str) -> bool:
        return any(name.startswith(block.prefix) for block in self.graph.blocks)

    def _source_name(self, name: str) -> str:
        if name not in self._source.tensors:
            raise SourceError(f"{self._source.ref}: {name} is missing; get the model again")
        return name


def _read(source: Source, name: str, rounding: torch.dtype = torch.float32) -> Tensor:
    """Return a finite float32 weight, rounded."""
    tensor = torch.empty(source.tensors[name].shape)
    start = 0
    for piece in _pieces(source, name, rounding):
        tensor[start : start + len(piece)] = piece
        start += len(piece)
    return tensor


def _pieces(source: Source, name: str, rounding: torch.dtype) -> Iterator[Tensor]:
    for piece in source.pieces(name):
        if not torch.isfinite(piece).all():
            raise SourceError(f"{source.ref}: {name} holds NaN or infinite weights; get the model again")
        yield piece.to(rounding).float()


def _module(block: Block, tensor: str) -> str:
    """Return the module of a block that holds one of its tensors."""
    return tensor.removeprefix(block.prefix).rpartition(".")[0]


def _replay(states: Tensor) -> Callable[[int, Tensor, dict[str, Any]], Tensor]:
    """Return a tap that makes block 0 return `states`, and every later block its input."""
    return lambda index, given, _arguments: states if index == 0 else given
