"""The decoder in C against the formulas in float64."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.secateur_runtime.decoder.reference import PlainBlock, PlainModel, logits

from secateur_runtime.decoder.block_shape import BlockShape
from secateur_runtime.decoder.native_decoder import BlockWeights, Decoder, Weights
from secateur_runtime.errors import UnsupportedModelError
from secateur_runtime.kernels.kernel_weight import Weight
from secateur_runtime.kernels.library import kernels
from secateur_runtime.kernels.thread_pool import ThreadPool

HIDDEN, VOCAB = 48, 70


def random_model(
    rng: np.random.Generator,
    shapes: Sequence[BlockShape],
    *,
    biases: bool,
    norms: bool,
    window: int = 0,
    hidden: int = HIDDEN,
) -> PlainModel:
    def vector(size: int, around: float = 0.0) -> NDArray[np.float32]:
        return np.asarray(around + rng.normal(scale=0.2, size=size), np.float32)

    def matrix(rows: int, cols: int) -> NDArray[np.float32]:
        return np.asarray(rng.normal(size=(rows, cols)) / np.sqrt(cols), np.float32)

    blocks = []
    for index, shape in enumerate(shapes):
        queries, keys, inner = (
            shape.n_heads * shape.head_dim,
            shape.n_kv_heads * shape.head_dim,
            shape.intermediate_size,
        )
        sizes = (
            {"q": (queries, hidden), "k": (keys, hidden), "v": (keys, hidden), "o": (hidden, queries)}
            if queries
            else {}
        )
        sizes |= {"gate": (inner, hidden), "up": (inner, hidden), "down": (hidden, inner)} if inner else {}
        vectors = {"attn_norm": vector(hidden, 1.0), "ffn_norm": vector(hidden, 1.0)}
        vectors |= {name: vector(shape.head_dim, 1.0) for name in ("q_norm", "k_norm") if norms and queries}
        vectors |= {f"{name}_bias": vector(rows) for name, (rows, _) in sizes.items() if biases}
        matrices = {name: matrix(*size) for name, size in sizes.items()}
        blocks.append(
            PlainBlock(
                shape=shape,
                turns=index % 3 != 1,
                window=window * (index % 2),
                vectors=vectors,
                matrices=matrices,
            )
        )
    head_dim = max(shape.head_dim for shape in shapes)
    frequencies = (1 / 100 ** (np.arange(0, head_dim, 2) / max(1, head_dim))).astype(np.float32)
    return PlainModel(
        embed=matrix(VOCAB, hidden) * 5,
        head=matrix(VOCAB, hidden),
        final_norm=vector(hidden, 1.0),
        epsilon=1e-5,
        frequencies=frequencies,
        scale=1.1,
        blocks=tuple(blocks),
    )


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def floats(matrix: NDArray[np.float32]) -> Weight:
    return Weight(torch.from_numpy(matrix))


def library() -> ctypes.CDLL:
    found = kernels()
    assert found is not None
    return found


def decoder(model: PlainModel, *, half: bool = False, threads: int = 1) -> Decoder:
    blocks = [
        BlockWeights(
            shape=block.shape,
            turns=block.turns,
            window=block.window,
            vectors=block.vectors,
            matrices={name: floats(matrix) for name, matrix in block.matrices.items()},
        )
        for block in model.blocks
    ]
    weights = Weights(
        embed=floats(model.embed),
        head=floats(model.head),
        final_norm=model.final_norm,
        epsilon=model.epsilon,
        frequencies=model.frequencies,
        scale=model.scale,
        blocks=tuple(blocks),
    )
    return Decoder(library(), weights, ThreadPool(library(), threads), half=half)


def tokens_of(rng: np.random.Generator, count: int) -> list[int]:
    return [int(token) for token in rng.integers(VOCAB, size=count)]


@pytest.mark.parametrize("half", [False, True])
def test_every_instruction_set(rng: np.random.Generator, isa: str, *, half: bool) -> None:
    """Two heads a key, missing halves, a window, and enough positions for several blocks of keys."""
    shapes = [
        BlockShape(4, 2, 16, 40),
        BlockShape(2, 1, 16, 0),
        BlockShape(0, 0, 0, 24),
        BlockShape(3, 3, 16, 7),
    ]
    model = random_model(rng, shapes, biases=True, norms=True, window=20)
    tokens = tokens_of(rng, 150)
    made = decoder(model, half=half)
    found = made.run(tokens, [made.open()] * len(tokens), len(tokens))
    # Keys and values have 11 digits in float16.
    np.testing.assert_allclose(found, logits(model, tokens), atol=2e-2 if half else 1e-4)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 3), st.integers(0, 50)), min_size=1, max_size=4),
    st.sampled_from([2, 8, 10, 32, 66]),
    st.integers(1, 90),
    st.integers(0, 9),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
def test_any_shape(
    rows: list[tuple[int, int, int]], head_dim: int, count: int, window: int, biases: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    shapes = [BlockShape(keys * served, keys, head_dim if keys else 0, inner) for keys, served, inner in rows]
    model = random_model(
        rng, shapes, biases=biases, norms=not biases, window=window, hidden=int(rng.integers(1, 80))
    )
    tokens = tokens_of(rng, count)
    made = decoder(model)
    found = made.run(tokens, [made.open()] * count, count)
    # A norm over few channels that nearly cancel makes much of float32's last digit.
    np.testing.assert_allclose(found, logits(model, tokens), atol=5e-3)


def test_decoding_equals_reading_at_once(rng: np.random.Generator) -> None:
    """Several sequences step together, each at its own place; a cache grows.

    Only what is asked for is returned.
    """
    model = random_model(rng, [BlockShape(4, 2, 16, 40)] * 2, biases=False, norms=False, window=5)
    made = decoder(model, threads=2)
    texts = [tokens_of(rng, count) for count in (300, 3, 70)]
    caches = [made.open() for _ in texts]
    for text, cache in zip(texts, caches, strict=True):
        made.run(text[:-2], [cache] * (len(text) - 2), 1)
    for place in (-2, -1):
        found = made.run([text[place] for text in texts], caches, len(texts))
        wanted = [logits(model, text)[place] for text in texts]
        np.testing.assert_allclose(found, wanted, atol=1e-4)
    assert [cache.length for cache in caches] == [300, 3, 70]
    assert caches[0].nbytes > caches[1].nbytes
    rest = decoder(model).run(texts[2], [made.open()] * 70, 9)
    np.testing.assert_allclose(rest, logits(model, texts[2])[-9:], atol=1e-4)


def test_keys_in_float16(rng: np.random.Generator) -> None:
    """Rounded to nearest as numpy does, subnormal numbers included; what is too large becomes the largest."""
    values = np.concatenate(
        [rng.normal(size=50), rng.normal(size=50) * 1e-5, [65504, 1e6, -1e6, 0, 65519, 6e-8, 2.9e-8]]
    ).astype(np.float32)
    shape = BlockShape(1, 1, 2, 0)
    eye = np.eye(2, dtype=np.float32)
    zero = np.zeros((2, 2), np.float32)
    head = {"attn_norm": np.ones(2, np.float32)}
    for value in values:
        head["v_bias"] = np.array([value, -value])
        block = PlainBlock(shape=shape, vectors=head, matrices={"q": zero, "k": zero, "v": zero, "o": eye})
        model = PlainModel(
            embed=eye,
            head=eye,
            final_norm=eye[0],
            epsilon=1e-5,
            frequencies=eye[0, :1],
            scale=1.0,
            blocks=(block,),
        )
        made = decoder(model, half=True)
        cache = made.open()
        made.run([0], [cache], 1)
        wanted = np.clip(value, -65504, 65504).astype(np.float16)
        assert cache.buffers[0][1][0, 0, :2].view(np.float16).tolist() == [wanted, -wanted]


def test_heads_that_are_too_wide(rng: np.random.Generator) -> None:
    model = random_model(rng, [BlockShape(1, 1, 528, 0)], biases=False, norms=False)
    with pytest.raises(UnsupportedModelError, match="no heads wider than 512"):
        decoder(model)
