"""Decoder blocks of the Llama family by their formulas, in float64: what the kernels are checked against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secateur_runtime.decoder.block_shape import BlockShape

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class PlainBlock:
    shape: BlockShape
    turns: bool = True
    window: int = 0
    vectors: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    matrices: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class PlainModel:
    embed: NDArray[np.float32]
    head: NDArray[np.float32]
    final_norm: NDArray[np.float32]
    epsilon: float
    frequencies: NDArray[np.float32]
    scale: float
    blocks: tuple[PlainBlock, ...]


def logits(model: PlainModel, tokens: Sequence[int]) -> Array:
    """Return the logits after each token, `[len(tokens), vocab_size]`."""
    states = model.embed[list(tokens)].astype(np.float64)
    for block in model.blocks:
        if block.shape.n_heads:
            states = states + _attention(model, block, states)
        if block.shape.intermediate_size:
            states = states + _feed_forward(model, block, states)
    found: Array = _norm(states, model.final_norm, model.epsilon) @ model.head.astype(np.float64).T
    return found


def _norm(x: Array, weight: Any, epsilon: float) -> Array:
    scaled: Array = x / np.sqrt((x**2).mean(-1, keepdims=True) + epsilon) * weight.astype(np.float64)
    return scaled


def _linear(block: PlainBlock, name: str, x: Array) -> Array:
    found: Array = x @ block.matrices[name].astype(np.float64).T + block.vectors.get(
        f"{name}_bias", np.zeros(1)
    ).astype(np.float64)
    return found


def _turned(model: PlainModel, x: Array) -> Array:
    """Turn `x` `[tokens, heads, head_dim]` by the angles of its positions."""
    angles = np.arange(len(x))[:, None] * model.frequencies.astype(np.float64)
    cosines, sines, half = (
        np.cos(angles)[:, None] * model.scale,
        np.sin(angles)[:, None] * model.scale,
        len(model.frequencies),
    )
    left, right, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    return np.concatenate([left * cosines - right * sines, right * cosines + left * sines, rest], -1)


def _attention(model: PlainModel, block: PlainBlock, states: Array) -> Array:
    shape, x = block.shape, _norm(states, block.vectors["attn_norm"], model.epsilon)
    count = len(x)
    q, k, v = (_linear(block, name, x).reshape(count, -1, shape.head_dim) for name in ("q", "k", "v"))
    if "q_norm" in block.vectors:
        q, k = (
            _norm(q, block.vectors["q_norm"], model.epsilon),
            _norm(k, block.vectors["k_norm"], model.epsilon),
        )
    if block.turns:
        q, k = _turned(model, q), _turned(model, k)
    k, v = (np.repeat(each, shape.n_heads // shape.n_kv_heads, axis=1) for each in (k, v))
    scores = np.einsum("qhd,khd->hqk", q, k) / np.sqrt(shape.head_dim)
    behind = np.arange(count)[:, None] - np.arange(count)
    seen = (behind >= 0) & ((behind < block.window) if block.window else True)
    scores = np.where(seen, scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    mixed = np.einsum("hqk,khd->qhd", weights / weights.sum(-1, keepdims=True), v)
    return _linear(block, "o", mixed.reshape(count, -1))


def _feed_forward(model: PlainModel, block: PlainBlock, states: Array) -> Array:
    x = _norm(states, block.vectors["ffn_norm"], model.epsilon)
    gate, up = _linear(block, "gate", x), _linear(block, "up", x)
    return _linear(block, "down", gate / (1 + np.exp(-gate)) * up)
