"""Write everything in a model folder that is not weights: index, config, tokenizer, plan, card, manifest."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from secateur.core.folder_files import CARD, MANIFEST, PLAN
from secateur.core.plan import Plan
from secateur.model.formats.open_source import local_path
from secateur.model.handle import ModelHandle
from secateur.model.tokenizer_pruning import narrow_tokenizer
from secateur.model.unequal_blocks import MODULE, modeling_source
from secateur.model.written.checkpoint import Checkpoint


@dataclass(frozen=True, slots=True)
class FolderWriter:
    """The files next to the shards of `checkpoint`, for a folder that is made from `model`.

    dtype: type that weights are stored in.
    """

    checkpoint: Checkpoint
    model: ModelHandle
    dtype: torch.dtype

    @property
    def folder(self) -> Path:
        """The unfinished folder."""
        return self.checkpoint.partial

    def enter(self, shard: int, tensors: Mapping[str, Tensor]) -> None:
        """Enter the tensors of a finished shard in the index."""
        self.checkpoint.add(shard, {name: tensor.nbytes for name, tensor in tensors.items()})

    def describe(
        self,
        config: Mapping[str, Any],
        manifest: Mapping[str, Any],
        *,
        plan: Plan | None = None,
        tokens: Sequence[int] | None = None,
    ) -> None:
        """Write index, config, tokenizer files, plan and manifest, once every shard is finished.

        config: without the stored type, which is added.
        manifest: how the folder was made; digests of the model and of the shards and the version are added.
        plan: written as it is; `carry_plan` copies one instead.
        tokens: ids that are left of the vocabulary, ascending; None for all.
        """
        self.checkpoint.write_index()
        self.checkpoint.write_json("config.json", {**config, "dtype": str(self.dtype).removeprefix("torch.")})
        if "auto_map" in config:
            (self.folder / f"{MODULE}.py").write_text(modeling_source(self.model.family), encoding="utf-8")
        self.model.source.copy_companions(self.folder)
        if tokens:
            narrow_tokenizer(self.folder, self.model.source.tokenizer(), tuple(tokens))
        if plan is not None:
            (self.folder / PLAN).write_text(plan.to_json(), encoding="utf-8")
        made = {
            "source": self.model.digest,
            "shards": self.checkpoint.digests(),
            "secateur": version("secateur"),
        }
        self.checkpoint.write_json(MANIFEST, {**manifest, **made})

    def carry_plan(self) -> None:
        """Copy the plan that lies next to the weights of `model`, byte for byte, where there is one."""
        if (path := local_path(self.model.source.ref) / PLAN).is_file():
            shutil.copyfile(path, self.folder / PLAN)

    def earlier_card(self) -> str:
        """Return the text of the card next to the weights of `model`, or nothing."""
        path = local_path(self.model.source.ref) / CARD
        return path.read_text(encoding="utf-8") if path.is_file() else ""

    def write_card(self, text: str) -> None:
        """Write the model card."""
        (self.folder / CARD).write_text(text, encoding="utf-8")

    @property
    def stock(self) -> bool:
        """Whether transformers' own classes load the folder: it holds no modelling file."""
        return not (self.folder / f"{MODULE}.py").exists()

    def weight_bytes(self) -> int:
        """Return the bytes of all weight files."""
        return sum(path.stat().st_size for path in self.folder.glob("*.safetensors"))
