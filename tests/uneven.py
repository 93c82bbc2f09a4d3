"""Tiny models whose blocks differ in width."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file

from secateur.model.families import EMBED, FAMILIES, FINAL_NORM, HEAD
from secateur.model.graph_builder import tensor_shapes
from secateur.model.unequal_blocks import pruned_config
from secateur_runtime.decoder.block_shape import BlockShape

HEAD_DIM = 16


def widths(rows: Sequence[tuple[int, int, int]], head_dim: int = HEAD_DIM) -> list[BlockShape]:
    """Make block shapes of rows `(heads, key-value heads, FFN width)`."""
    return [BlockShape(heads, kv_heads, head_dim if heads else 0, inner) for heads, kv_heads, inner in rows]


def save_uneven(whole: Path, folder: Path, shapes: Sequence[BlockShape]) -> Path:
    """Write a random model with the settings and the tokenizer of `whole` and with blocks of `shapes`."""
    shutil.copytree(whole, folder)
    stock = json.loads((whole / "config.json").read_text())
    alive = [index % stock["num_hidden_layers"] for index in range(len(shapes))]
    config = pruned_config(stock, shapes, alive)
    (folder / "config.json").write_text(json.dumps(config))
    hidden, generator = config["hidden_size"], torch.Generator().manual_seed(1)
    sizes: dict[str, tuple[int, ...]] = {EMBED: (config["vocab_size"], hidden), FINAL_NORM: (hidden,)}
    if not config["tie_word_embeddings"]:
        sizes[HEAD] = sizes[EMBED]
    for index, shape in enumerate(shapes):
        sizes |= tensor_shapes(FAMILIES[stock["model_type"]], config, index, shape, hidden)
    save_file(
        {name: _random(name, size, generator) for name, size in sizes.items()}, folder / "model.safetensors"
    )
    return folder


def _random(name: str, size: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    noise = torch.randn(size, generator=generator)
    if len(size) > 1:
        return noise.div(size[1] ** 0.5)
    return noise * 0.1 + (1.0 if name.endswith("norm.weight") else 0.0)
