"""A Hugging Face folder as a Source."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from secateur.core.graph import TensorInfo
from secateur.model.families import HEAD
from secateur.model.formats.raw_reads import digest_files, read_into, row_spans
from secateur.model.formats.safetensors_header import StoredTensor, read_safetensors
from secateur_runtime.errors import SourceError

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
_DTYPES = {
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "F32": torch.float32,
    "F64": torch.float64,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_VOCABULARIES = ("tokenizer.json", "tokenizer.model", "vocab.json", "spiece.model")
# What AutoTokenizer reads of a config besides its type.
_NAMES = ("tokenizer_class", "model_name")
_COMPANIONS = (
    *_VOCABULARIES,
    "merges.txt",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
)


class FolderSource:
    """A Source over one `model.safetensors` or over the shards that `model.safetensors.index.json` lists."""

    def __init__(self, path: Path, ref: str) -> None:
        self.ref = ref
        self.path = path
        self.config = _read_json(path / "config.json", "get the whole model folder")
        self._shards = _shards(path)
        self._stored = _tensors(path, self._shards)
        self._digest = ""
        if self.config.get("tie_word_embeddings"):
            self._stored.pop(HEAD, None)
        self.tensors: Mapping[str, TensorInfo] = {
            name: TensorInfo(stored.shape, stored.dtype) for name, stored in self._stored.items()
        }

    def read(self, name: str) -> Tensor:
        """Return one tensor in its stored type, owned by the caller.

        Raises SourceError if its file changed.
        """
        return _read(self._stored[name])

    def pieces(self, name: str) -> Iterator[Tensor]:
        """Yield the rows of one tensor in order, a few at a time; raises SourceError if its file changed."""
        stored = self._stored[name]
        for start, stop in row_spans(stored.shape):
            offset = stored.offset + start * prod(stored.shape[1:]) * _DTYPES[stored.dtype].itemsize
            yield _read(replace(stored, shape=(stop - start, *stored.shape[1:]), offset=offset))

    def digest(self) -> str:
        """Return `sha256:<hex>` over the bytes of the shards in the order of their names."""
        self._digest = self._digest or digest_files(self._shards)
        return self._digest

    def tokenizer(self) -> Any:
        """Return the folder's tokenizer; raises SourceError where it has none or it cannot be loaded."""
        self._require_tokenizer()
        from transformers import AutoTokenizer

        try:
            return AutoTokenizer.from_pretrained(self.path, local_files_only=True, **self._spared())
        # transformers and tokenizers raise anything, bare Exception included, for a damaged tokenizer file.
        except Exception as error:  # noqa: BLE001
            reason = str(error).strip().partition("\n")[0]
            raise SourceError(
                f"the tokenizer in {self.path} cannot be loaded ({reason}); get the tokenizer files again"
            ) from None

    def copy_companions(self, folder: Path) -> None:
        """Copy tokenizer, chat template and generation config into `folder`.

        Raises SourceError where there is no tokenizer.
        """
        self._require_tokenizer()
        for name in _COMPANIONS:
            if (self.path / name).is_file():
                shutil.copyfile(self.path / name, folder / name)

    def _spared(self) -> dict[str, Any]:
        """Return a small config that spares AutoTokenizer the class of the real one, which imports much.

        Empty if that class would choose the tokenizer.
        """
        path = self.path / "tokenizer_config.json"
        named = _read_json(path, "get it again") if path.is_file() else {}
        if "tokenizer_class" not in named or "auto_map" in named or "model_type" not in self.config:
            return {}
        from transformers import PreTrainedConfig

        said = {
            "name_or_path": str(self.path),
            **{key: self.config[key] for key in _NAMES if key in self.config},
        }
        config: Any = PreTrainedConfig(**said)
        config.model_type = self.config["model_type"]
        return {"config": config}

    def _require_tokenizer(self) -> None:
        if not any((self.path / name).is_file() for name in _VOCABULARIES):
            raise SourceError(
                f"{self.path} has no tokenizer: copy tokenizer.json and tokenizer_config.json of the model"
                " into it"
            )


def _read(stored: StoredTensor) -> Tensor:
    tensor = torch.empty(stored.shape, dtype=_DTYPES[stored.dtype])
    try:
        with stored.path.open("rb") as file:
            read_into(file, stored.path, stored.offset, tensor)
    except OSError as error:
        raise SourceError(f"cannot read {stored.path}: {error.strerror or error}") from None
    return tensor


def _read_json(path: Path, advice: str) -> dict[str, Any]:
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SourceError(f"{path.parent} has no {path.name}: {advice}") from None
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{path} is not JSON ({str(error).partition(chr(10))[0]}): {advice}") from None
    if not isinstance(body, dict):
        raise SourceError(f"{path} is not a JSON object: {advice}")
    return body


def _shards(path: Path) -> list[Path]:
    """Return the weight files in the order of their names.

    Raises SourceError where one is missing or there is none.
    """
    if (path / SINGLE).is_file():
        return [path / SINGLE]
    if not (path / INDEX).is_file():
        pickled = next((file.name for pattern in _PICKLES for file in path.glob(pattern)), "")
        reason = (
            f"only {pickled}, which can run code when it is opened: save the model with"
            " safe_serialization=True"
            if pickled
            else "no model.safetensors"
        )
        raise SourceError(
            f"{path} has {reason}" if pickled else f"{path} has {reason}: get the whole model folder"
        )
    names = sorted(set(_weight_map(path).values()))
    missing = [name for name in names if not (path / name).is_file()]
    if missing:
        raise SourceError(
            f"{path} lacks {len(missing)} of the {len(names)} shards its index lists, such as {missing[0]}:"
            " get them again"
        )
    return [path / name for name in names]


def _weight_map(path: Path) -> dict[str, str]:
    weights = _read_json(path / INDEX, "get it again").get("weight_map")
    usable = (
        isinstance(weights, dict)
        and weights
        and all(isinstance(name, str) and name == Path(name).name for name in weights.values())
    )
    if not usable:
        raise SourceError(f"{path / INDEX} has no usable weight_map: get it again")
    assert isinstance(weights, dict)
    return weights


def _tensors(path: Path, shards: list[Path]) -> dict[str, StoredTensor]:
    found: dict[str, StoredTensor] = {}
    for shard in shards:
        for name, stored in read_safetensors(shard).items():
            if name in found:
                raise SourceError(
                    f"{path}: tensor {name!r} is both in {found[name].path.name} and in {shard.name}; get the"
                    " shards again"
                )
            found[name] = stored
    if shards[0].name != SINGLE:
        absent = [
            name
            for name, shard in _weight_map(path).items()
            if name not in found or found[name].path.name != shard
        ]
        if absent:
            raise SourceError(
                f"{path}: the index lists tensors that its shards do not hold, such as {absent[0]}; get the"
                " shards again"
            )
    return found
