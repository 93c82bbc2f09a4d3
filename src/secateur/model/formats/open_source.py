"""Open a model by the reference that the user typed."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import Tensor

from secateur.model.formats.builtin_models import BUILTINS, builtin_path
from secateur.model.formats.compressed_tensors import open_folder
from secateur.model.formats.gguf.gguf_source import GgufSource
from secateur.model.formats.hub import download
from secateur.tensors.source import Source
from secateur_runtime.errors import SourceError, nearest

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def local_path(ref: str) -> Path:
    """Return the path that `ref` names on this machine, `~` expanded; nothing need be there."""
    return Path(ref).expanduser()


def open_source(ref: str) -> Source:
    """Open a folder, a `.gguf` file, a built-in name or a hub id, in that order.

    Raises:
        SourceError: it is missing, damaged or cut short.
        UnsupportedModelError: a GGUF file of an unknown architecture.
    """
    path = local_path(ref)
    if path.is_dir():
        return open_folder(path, ref)
    if path.is_file():
        return _open_file(path, ref)
    if ref in BUILTINS:
        return GgufSource(builtin_path(ref), ref)
    if _HUB_ID.fullmatch(ref) and path.suffix != ".gguf":
        return open_folder(download(ref), ref)
    raise SourceError(
        f"{ref} does not exist{nearest(ref, BUILTINS)}: give a model folder, a .gguf file, a hub id such as"
        f" org/name, or {', '.join(BUILTINS)}"
    )


def hub_name(ref: str) -> str:
    """Return `ref` if it is a hub id; empty if it names something on this machine."""
    return ref if _HUB_ID.fullmatch(ref) and not local_path(ref).exists() and ref not in BUILTINS else ""


def _open_file(path: Path, ref: str) -> Source:
    if path.suffix.lower() == ".gguf":
        return GgufSource(path, ref)
    if path.suffix == ".safetensors":
        raise SourceError(f"{ref} is one file of a model: give the folder that holds it and its config.json")
    raise SourceError(f"{ref} is neither a model folder nor a .gguf file")


def read_as(source: Source, name: str, dtype: torch.dtype) -> Tensor:
    """Return a tensor in another type; a large one is never in memory whole in its own type."""
    tensor = torch.empty(source.tensors[name].shape, dtype=dtype)
    start = 0
    for piece in source.pieces(name):
        tensor[start : start + len(piece)] = piece
        start += len(piece)
    return tensor
