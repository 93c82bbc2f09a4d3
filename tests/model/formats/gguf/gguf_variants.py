"""Variants of the GGUF file of a tiny model, and the model that a source describes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from safetensors.numpy import load_file
from tests import tiny_gguf as converter
from torch import Tensor, nn

from secateur.tensors.source import Source


def build(source: Source) -> nn.Module:
    """Build the model that a source describes, from its config and its tensors alone."""
    from transformers import AutoConfig, AutoModelForCausalLM

    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**source.config))
    missing, unexpected = model.load_state_dict(
        {name: source.read(name) for name in source.tensors}, strict=False
    )
    assert not unexpected
    assert missing == (["lm_head.weight"] if source.config["tie_word_embeddings"] else [])
    whole = model.float().eval()
    assert isinstance(whole, nn.Module)
    return whole


@torch.no_grad()
def logits(model: nn.Module) -> Tensor:
    tokens = torch.arange(40).reshape(1, 40)
    out = model(tokens).logits
    assert isinstance(out, Tensor)
    return out


def rewrite(
    folder: Path,
    path: Path,
    add: Any,
    tensors: dict[str, list[float]] | None = None,
    skip: tuple[str, ...] = (),
) -> Path:
    """Convert `folder` again with what `add(writer)` writes more, and with more `tensors`."""
    config = json.loads((folder / "config.json").read_text())
    arch = converter.arch_of(config["model_type"])
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[arch])
    converter.add_settings(writer, config)
    add(writer)
    for name, array in converter.converted(load_file(folder / "model.safetensors"), config, arch):
        if name not in skip:
            writer.add_tensor(name, array)
    for name, values in (tensors or {}).items():
        writer.add_tensor(name, np.array(values, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
