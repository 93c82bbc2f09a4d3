"""Decoder blocks of the Llama family in C: one call for a whole token."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from ctypes import POINTER, c_float, c_int32, c_int64, c_void_p
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secateur_runtime.decoder.block_shape import BlockShape
from secateur_runtime.errors import UnsupportedModelError
from secateur_runtime.kernels.kernel_weight import Weight
from secateur_runtime.kernels.library import Matrix
from secateur_runtime.kernels.thread_pool import ThreadPool

ROWS = 64
"""Most tokens in one call: SEC_ROWS_MAX of decode.h."""
HEAD_DIM = 512
"""Widest head: SEC_HEAD_DIM_MAX of steps.h."""
LANES = 16
"""Positions whose keys are interleaved; head widths are rounded up to a multiple of it."""
_ALIGNED = 64
_FIRST = 256
_NORMS = ("attn_norm", "ffn_norm", "q_norm", "k_norm")
ATTENTION = ("q", "k", "v", "o")
FEED_FORWARD = ("gate", "up", "down")
LINEARS = ATTENTION + FEED_FORWARD

Vector = NDArray[np.float32]


class _Block(ctypes.Structure):
    _fields_ = (
        *((name, c_int32) for name in ("n_heads", "n_kv_heads", "head_dim", "inner", "turns", "window")),
        *((name, c_void_p) for name in _NORMS),
        *((name, Matrix) for name in LINEARS),
        *((f"{name}_bias", c_void_p) for name in LINEARS),
    )


class _Decoder(ctypes.Structure):
    _fields_ = (
        *((name, c_int64) for name in ("hidden", "vocab", "blocks")),
        ("epsilon", c_float),
        ("turn_scale", c_float),
        ("turned", c_int64),
        *((name, c_void_p) for name in ("frequencies", "block", "final_norm")),
        ("embed", Matrix),
        ("head", Matrix),
    )


class KeysValues(ctypes.Structure):
    """`sec_cache` of decode.h."""

    _fields_ = (
        ("capacity", c_int64),
        ("half", c_int32),
        ("keys", c_void_p),
        ("values", c_void_p),
        ("groups", c_void_p),
    )


class _Token(ctypes.Structure):
    _fields_ = (("token", c_int64), ("position", c_int64), ("cache", c_void_p))


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockWeights:
    """The weights of one decoder block; a sub-block that `shape` lacks needs none.

    turns: whether queries and keys get rotary position embeddings. window: positions that a token attends to,
    itself included; 0 for all.
    vectors: `attn_norm`, `ffn_norm`, `q_norm`, `k_norm`, and `NAME_bias` for names in `LINEARS`.
    matrices: by names in `LINEARS`.
    """

    shape: BlockShape
    turns: bool = True
    window: int = 0
    vectors: Mapping[str, Vector] = field(default_factory=dict)
    matrices: Mapping[str, Weight] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """The weights of a whole model.

    frequencies: of the rotary embedding, radians per position. scale: factor of its cosines and sines.
    """

    embed: Weight
    head: Weight
    final_norm: Vector
    epsilon: float
    frequencies: Vector
    scale: float
    blocks: tuple[BlockWeights, ...]


class NativeCache:
    """Keys and values of one sequence, one pair of `buffers` for each block; grows on demand.

    length: positions that it holds.
    """

    def __init__(self, shapes: Sequence[BlockShape], *, half: bool) -> None:
        self.length = 0
        self._shapes = tuple(shapes)
        self._dtype = np.dtype(np.uint16 if half else np.float32)
        self.struct = KeysValues(0, int(half), None, None, None)
        self.buffers: list[tuple[NDArray[Any], NDArray[Any]]] = [(np.empty(0), np.empty(0))] * len(shapes)

    @property
    def nbytes(self) -> int:
        """Bytes of all buffers."""
        return sum(keys.nbytes + values.nbytes for keys, values in self.buffers)

    def reserve(self, length: int) -> None:
        """Grow the buffers to at least `length` positions."""
        capacity = self.struct.capacity
        if length <= capacity:
            return
        grown = max(_FIRST, capacity)
        while grown < length:
            grown *= 2
        self.buffers = [
            self._grown(shape, *old, capacity, grown)
            for shape, old in zip(self._shapes, self.buffers, strict=True)
        ]
        self._pointers = [pointers([pair[which].ctypes.data for pair in self.buffers]) for which in range(2)]
        self.struct.capacity = grown
        self.struct.keys, self.struct.values = map(ctypes.addressof, self._pointers)

    def _grown(
        self, shape: BlockShape, keys: NDArray[Any], values: NDArray[Any], before: int, after: int
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return larger buffers with the same contents.

        Keys of a head are `[position / 16, head_dim, 16]` with padding after them; values are
        `[head, position, head_dim in whole lanes]`.
        """
        wide = in_lanes(shape.head_dim)
        new_keys = np.zeros((shape.n_kv_heads, after * wide), self._dtype)
        new_values = np.zeros((shape.n_kv_heads, after, wide), self._dtype)
        if before:
            new_keys[:, : before * wide] = keys
            new_values[:, :before] = values
        return new_keys, new_values


class Decoder:
    """A model ready to run on the threads of `pool`.

    half: store keys and values in float16 instead of float32. Raises UnsupportedModelError for heads wider
    than `HEAD_DIM`.
    """

    def __init__(
        self, library: ctypes.CDLL, weights: Weights, pool: ThreadPool, *, half: bool = True
    ) -> None:
        if any(block.shape.head_dim > HEAD_DIM for block in weights.blocks):
            raise UnsupportedModelError(
                f"the native backend has no heads wider than {HEAD_DIM}: use --backend torch or llamacpp"
            )
        self.weights = weights
        self.pool = pool
        self._half = half
        self._library = library
        library.sec_decode_bytes.restype = c_int64
        library.sec_decode_bytes.argtypes = (POINTER(_Decoder), c_int64)
        library.sec_decode.restype = None
        library.sec_decode.argtypes = (
            POINTER(_Decoder),
            c_void_p,
            c_int64,
            POINTER(_Token),
            c_int64,
            c_void_p,
            c_void_p,
        )
        self._blocks = (_Block * len(weights.blocks))(*map(_block, weights.blocks))
        self._struct = _decoder(weights, self._blocks)
        self._scratch = np.empty(0, np.uint8)

    @property
    def isa(self) -> str:
        """Name of the instruction set in use."""
        name: bytes = self._library.sec_isa()
        return name.decode()

    def open(self) -> NativeCache:
        """Return an empty cache for one sequence."""
        return NativeCache([block.shape for block in self.weights.blocks], half=self._half)

    def run(self, tokens: Sequence[int], caches: Sequence[NativeCache], wanted: int) -> Vector:
        """Read one token for each of `caches`; a cache listed several times takes its tokens in order.

        Returns the logits of the last `wanted` tokens, `[wanted, vocab_size]`.
        """
        rows = []
        for token, cache in zip(tokens, caches, strict=True):
            rows.append((token, cache.length, cache.struct))
            cache.length += 1
        for cache in caches:
            cache.reserve(cache.length)
        return self.read(rows, wanted)

    def read(self, rows: Sequence[tuple[int, int, KeysValues]], wanted: int) -> Vector:
        """Read tokens, each given with its position and the cache of its sequence.

        Tokens of one sequence come in order.

        Returns the logits of the last `wanted` tokens, `[wanted, vocab_size]`.
        """
        logits = np.empty((wanted, self.weights.head.rows), np.float32)
        skipped = len(rows) - wanted
        for start in range(0, len(rows), ROWS):
            stop = min(start + ROWS, len(rows))
            first = min(max(start, skipped), stop)
            tokens = (_Token * (stop - start))(
                *(
                    _Token(token, position, ctypes.addressof(cache))
                    for token, position, cache in rows[start:stop]
                )
            )
            scratch = self._scratch_address(len(tokens))
            self._library.sec_decode(
                self._struct,
                self.pool.pointer,
                len(tokens),
                tokens,
                first - start,
                scratch,
                logits[max(first - skipped, 0) :].ctypes.data,
            )
        return logits

    def change(self, index: int, block: BlockWeights) -> None:
        """Replace the weights of a block."""
        self._blocks[index] = _block(block)
        blocks = self.weights.blocks
        self.weights = replace(self.weights, blocks=(*blocks[:index], block, *blocks[index + 1 :]))

    def _scratch_address(self, rows: int) -> int:
        """Return the address of scratch memory for a call with `rows` tokens."""
        size = self._library.sec_decode_bytes(self._struct, rows) + _ALIGNED
        if size > self._scratch.size:
            self._scratch = np.empty(size, np.uint8)
        return int(self._scratch.ctypes.data + _ALIGNED - 1) // _ALIGNED * _ALIGNED


def _address(vector: Vector | None) -> int | None:
    return None if vector is None else vector.ctypes.data


def pointers(addresses: Sequence[int]) -> ctypes.Array[c_void_p]:
    """Return addresses as a C array of pointers."""
    return (c_void_p * len(addresses))(*addresses)


def in_lanes(width: int) -> int:
    """Return the width of a head, rounded up to whole lanes."""
    return -(-width // LANES) * LANES


def _block(block: BlockWeights) -> _Block:
    shape = block.shape
    made = _Block(
        shape.n_heads,
        shape.n_kv_heads,
        shape.head_dim,
        shape.intermediate_size,
        int(block.turns),
        block.window,
    )
    for name in (*_NORMS, *(f"{linear}_bias" for linear in LINEARS)):
        setattr(made, name, _address(block.vectors.get(name)))
    for name, matrix in block.matrices.items():
        setattr(made, name, matrix.matrix)
    return made


def _decoder(weights: Weights, blocks: ctypes.Array[_Block]) -> _Decoder:
    made = _Decoder(
        weights.embed.columns,
        weights.head.rows,
        len(blocks),
        weights.epsilon,
        weights.scale,
        len(weights.frequencies),
    )
    made.frequencies = _address(weights.frequencies)
    made.final_norm = _address(weights.final_norm)
    made.block = ctypes.addressof(blocks)
    made.embed = weights.embed.matrix
    made.head = weights.head.matrix
    return made
