"""A stored model as weights of the native backend."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from secateur.core.graph import Block
from secateur.model.families import EMBED, FINAL_NORM, HEAD, Family
from secateur.model.formats.quantized_source import CodedSource
from secateur.model.formats.sparse_folder import SparseSource
from secateur.model.full_model import load_whole
from secateur.model.handle import ModelHandle, open_registered
from secateur.model.native_support import check_native, native_names
from secateur.model.rotary import frequencies, sight, turns
from secateur.model.transformers_model import transformers_config
from secateur.quantizers.rtn import plainly
from secateur.runtime.native import Native
from secateur.runtime.torch import TorchBackend
from secateur_runtime.cores import check_threads
from secateur_runtime.decoder.native_decoder import (
    ATTENTION,
    FEED_FORWARD,
    LINEARS,
    BlockWeights,
    Decoder,
    Weights,
)
from secateur_runtime.errors import UsageError, nearest
from secateur_runtime.kernels.bitmask import kind_of, pack
from secateur_runtime.kernels.dense_or_sparse import Chooser
from secateur_runtime.kernels.kernel_weight import Weight, settle
from secateur_runtime.kernels.library import kernels
from secateur_runtime.kernels.quantized import Codes, Grid
from secateur_runtime.kernels.thread_pool import ThreadPool

_SPARSE = "sparse-"
_FLOATS = {"f32": torch.float32, "bf16": torch.bfloat16}
KINDS = (*_FLOATS, "int8", "int4", "sparse-bf16", "sparse-int8", "sparse-int4")
_BITS = {"int8": 8, "int4": 4}


def native_weights(model: ModelHandle, matrix: Callable[[str], Weight]) -> Weights:
    """Return the weights of `model`, its matrices made by `matrix` from their names.

    Raises UnsupportedModelError for a family, an activation or a rotary embedding that the kernels do not
    have.
    """
    family = model.family
    config = transformers_config(model.source.config)
    check_native(model.source.ref, family, config)
    radians, scale = frequencies(config)(1)
    embed = matrix(EMBED)
    head = embed if model.graph.tied else matrix(HEAD)
    settle([embed] if model.graph.tied else [embed, head])
    return Weights(
        embed=embed,
        head=head,
        final_norm=_vector(model, FINAL_NORM),
        epsilon=config.rms_norm_eps,
        frequencies=radians.float().numpy(),
        scale=float(scale),
        blocks=tuple(_block(model, family, config, block, matrix) for block in model.graph.blocks),
    )


def _block(
    model: ModelHandle, family: Family, config: Any, block: Block, matrix: Callable[[str], Weight]
) -> BlockWeights:
    tensors = {
        name: tensor
        for tensor, name in native_names(family, block.prefix).items()
        if tensor in model.graph.tensors
    }
    return BlockWeights(
        shape=block.shape,
        turns=turns(config, block.index),
        window=sight(config, block.index),
        vectors={name: _vector(model, tensor) for name, tensor in tensors.items() if name not in LINEARS},
        matrices=_half(matrix, {name: tensors[name] for name in ATTENTION if name in tensors})
        | _half(matrix, {name: tensors[name] for name in FEED_FORWARD if name in tensors}),
    )


def _half(matrix: Callable[[str], Weight], tensors: Mapping[str, str]) -> dict[str, Weight]:
    """Return matrices by name, all in one piece of memory."""
    made = {name: matrix(tensor) for name, tensor in tensors.items()}
    settle(list(made.values()))
    return made


def _vector(model: ModelHandle, name: str) -> NDArray[np.float32]:
    return model.source.read(name).to(torch.float32).numpy()


@dataclass(frozen=True, slots=True)
class MatrixReader:
    """Reads the matrices of `model` as `kind`; quantized values of that kind stay.

    With no kind, all that is quantized or lacks its zeros stays, and the rest is bfloat16.
    Embeddings and head take 8 bits where the rest takes 4, and keep their zeros. The zeros of others are left
    out where `chooser` finds that faster.
    Raises UsageError for a grid that the kernels do not have.
    """

    model: ModelHandle
    kind: str
    chooser: Chooser

    def __call__(self, name: str) -> Weight:
        """Return one matrix."""
        source = self.model.source
        outside = name in (EMBED, HEAD)
        kind = self.kind.removeprefix(_SPARSE) or "bf16"
        if isinstance(source, SparseSource) and not self.kind and name in source.sparse:
            packed = source.packed(name)
            return self.chooser.faster(packed, packed.codes())
        if isinstance(source, CodedSource) and self._stays(source.grids.get(name)):
            dense: Tensor | Codes = source.codes(name)
        else:
            dense = _dense(source.read(name), "int8" if outside and kind == "int4" else kind)
        return (
            Weight(dense)
            if outside or not self.kind.startswith(_SPARSE)
            else self.chooser.faster(pack(dense), dense)
        )

    def _stays(self, grid: Grid | None) -> bool:
        """Return whether codes of a grid run as they are, and are not rounded once more."""
        return grid is not None and (
            not self.kind or (grid.symmetric and kind_of(grid) == self.kind.removeprefix(_SPARSE))
        )


def _dense(weight: Tensor, kind: str) -> Tensor | Codes:
    if kind in _FLOATS:
        return weight.to(_FLOATS[kind])
    return plainly(weight.float(), _BITS[kind])


@dataclass(frozen=True, slots=True, kw_only=True)
class NativeOptions:
    """How a model runs in the native backend.

    kind: of `KINDS`; empty for what is stored. exact: keys and values stay float32.
    """

    kind: str = ""
    threads: int = 1
    exact: bool = False


def native_backend(model: str, kind: str = "", threads: int = 1) -> Native | TorchBackend:
    """Return the model `model` ready to run, for a process of its own; see `run_natively`."""
    return run_natively(open_registered(model), NativeOptions(kind=kind, threads=threads))


def run_natively(model: ModelHandle, how: NativeOptions) -> Native | TorchBackend:
    """Return `model` ready to run in the kernels, or in torch where they cannot be had, after a warning.

    Raises UsageError for an unknown kind or more threads than cores, UnsupportedModelError for a model that
    the kernels cannot run.
    """
    check_kind(how.kind)
    check_threads(how.threads)
    library = kernels()
    if library is None:
        return TorchBackend(load_whole(model, torch.float32 if how.kind == "f32" else torch.bfloat16))
    pool = ThreadPool(library, how.threads)
    chooser = Chooser(library, pool)
    weights = native_weights(model, MatrixReader(model, how.kind, chooser))
    return Native(Decoder(library, weights, pool, half=not how.exact), chooser.timed)


def check_kind(kind: str) -> None:
    """Raise UsageError for a type that the kernels do not have."""
    if kind and kind not in KINDS:
        raise UsageError(
            f"--type {kind} is not one of the native backend{nearest(kind, KINDS)}: use {', '.join(KINDS)}"
        )
