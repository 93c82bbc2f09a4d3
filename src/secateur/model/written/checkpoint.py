"""Write a Hugging Face folder shard by shard; a killed run resumes, and one rename publishes it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from secateur_runtime.errors import OutputError
from secateur_runtime.files import JOB, LOCK, claimed

# safetensors reports what the system said in words only.
_OS_ERROR = re.compile(r"os error (\d+)")


class Checkpoint:
    """The folder `OUT.partial` next to its final place; every shard in it is finished.

    tensor_bytes: bytes of the tensors entered in its index so far.
    """

    def __init__(self, out: Path, shards: int) -> None:
        self.out = out
        self.partial = out.with_name(out.name + ".partial")
        self._shards = shards
        self._weight_map: dict[str, str] = {}
        self.tensor_bytes = 0

    def shard(self, index: int) -> Path:
        """Path of shard `index`, counted from 0."""
        return self.partial / f"model-{index + 1:05d}-of-{self._shards:05d}.safetensors"

    def finished(self) -> int:
        """How many leading shards are on disk already."""
        return next((index for index in range(self._shards) if not self.shard(index).exists()), self._shards)

    def write(self, index: int, tensors: Mapping[str, Tensor]) -> None:
        """Write one shard so that it exists whole or not at all."""
        scratch = self.shard(index).with_suffix(".tmp")
        try:
            save_file(dict(tensors), scratch, metadata={"format": "pt"})
        except SafetensorError as error:
            code = _OS_ERROR.search(str(error))
            raise OSError(int(code[1]), os.strerror(int(code[1]))) if code else OSError(str(error)) from error
        with scratch.open("rb") as handle:
            os.fsync(handle.fileno())
        scratch.rename(self.shard(index))

    def add(self, index: int, names_and_bytes: Mapping[str, int]) -> None:
        """Enter a finished shard's tensors in the index of the folder."""
        for name, size in names_and_bytes.items():
            self._weight_map[name] = self.shard(index).name
            self.tensor_bytes += size

    def write_json(self, name: str, body: Mapping[str, Any]) -> None:
        """Write a JSON file next to the shards."""
        (self.partial / name).write_text(
            json.dumps(body, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8"
        )

    def write_index(self) -> None:
        """Write `model.safetensors.index.json`."""
        self.write_json(
            "model.safetensors.index.json",
            {"metadata": {"total_size": self.tensor_bytes}, "weight_map": self._weight_map},
        )

    def digests(self) -> dict[str, str]:
        """Return `file name -> sha256:<hex>` for every shard."""
        return {self.shard(index).name: file_digest(self.shard(index)) for index in range(self._shards)}

    def publish(self) -> None:
        """Move the finished folder to its final place.

        An older one is replaced only once the new one is whole.
        """
        for stray in (*self.partial.glob("*.tmp"), self.partial / JOB, self.partial / LOCK):
            stray.unlink(missing_ok=True)
        retired = self.out.with_name(self.out.name + ".retired")
        if self.out.exists():
            self.out.rename(retired)
        self.partial.rename(self.out)
        if retired.exists():
            shutil.rmtree(retired)


@contextlib.contextmanager
def writing(out: Path, job: Mapping[str, Any], shards: int, *, overwrite: bool) -> Iterator[Checkpoint]:
    """Open the unfinished folder of `out` for `job`; a job that was killed resumes.

    Raises OutputError if `out` exists (unless `overwrite`), if an unfinished run of another job is in the
    way, or if nothing can be written there. An error leaves nothing behind; a kill or an interrupt leaves the
    finished shards.
    """
    checkpoint = Checkpoint(out, shards)
    try:
        _check_free(out, overwrite=overwrite)
    except OSError as error:
        raise OutputError(f"cannot write {out}: {error.strerror or error}") from error
    with claimed(checkpoint.partial, out, job, overwrite=overwrite):
        yield checkpoint


def _check_free(out: Path, *, overwrite: bool) -> None:
    if out.is_dir() and not any(out.iterdir()):
        out.rmdir()
    if out.exists() and not overwrite:
        raise OutputError(f"{out} exists: choose another --output, or pass --overwrite")
    if out.exists() and not (out / "config.json").is_file():
        raise OutputError(f"{out} is not a model folder: it will not be overwritten")


def file_digest(path: Path) -> str:
    """Return `sha256:<hex>` of a file."""
    with path.open("rb") as handle:
        return "sha256:" + hashlib.file_digest(handle, "sha256").hexdigest()
