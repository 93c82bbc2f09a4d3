"""TODO docstring."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from secateur.core.plan import Plan
from secateur.core.progress import Progress
from secateur.model.written.write_settings import Settings
from secateur.pipeline.compare.protocol import Protocol, protocol_of
from secateur.pipeline.export.gguf import export
from secateur.pipeline.prune.apply import apply
from secateur.present.comparison_folder import (
    PLAN,
    ComparisonJob,
    ComparisonRow,
    RowPart,
    cell_folder,
    write_part,
)
from secateur_runtime.errors import PlanError
from secateur_runtime.record import Record

MODEL = "model"
FILE = "model.gguf"


DENSE = ComparisonRow("dense", "", "dense")


LLAMACPP = "llamacpp"
NATIVE = "native"


PLAIN = "f16"
"""The type of GGUF in which rows that are not quantized are written and timed."""


@dataclass(frozen=True, slots=True)
class RowSpec:
    """What is at hand while a row is worked on."""

    folder: Path
    job: ComparisonJob
    row: ComparisonRow
    progress: Progress

    @property
    def place(self) -> Path:
        """Where the parts of the row are."""
        return cell_folder(self.folder, self.row)

    @property
    def protocol(self) -> Protocol:
        """How everything is measured."""
        return protocol_of(self.job)

    @property
    def model(self) -> str:
        """What is measured: the model itself, a file, or the folder that pruning wrote, written again where it is gone."""
        if self.row.kind == "dense" or self.row.native:
            return self.job.ref
        if self.row.kind == "quantized":
            return str(self.file())
        out = self.place / MODEL
        if not (out / "config.json").is_file():
            apply(_plan(self), self.job.ref, out, settings=Settings(overwrite=True), progress=self.progress)
        return str(out)

    def file(self) -> Path:
        """Return the GGUF file of the row, written where it is not there; raises as `export` does."""
        out = self.place / FILE
        if not out.is_file():
            quantized = self.row.kind == "quantized"
            self.place.mkdir(parents=True, exist_ok=True)
            kind = self.row.method if quantized else PLAIN
            checked = LLAMACPP in self.protocol.backends
            export(
                self.job.ref if quantized else self.model,
                out,
                kind=kind,
                verify=checked,
                progress=self.progress,
            )
        return out

    @property
    def whole(self) -> RowSpec:
        """The row of the whole model."""
        return replace(self, row=DENSE)

    @property
    def plan_digest(self) -> str:
        """Digest of the plan, empty where there is none."""
        return _plan(self).digest() if self.row.kind not in ("dense", "quantized") else ""

    def record(self, name: str, value: float, unit: str, protocol: str, error: float | None = None) -> Record:
        """Return a number of this row; error: its standard error."""
        model = self.job.digest
        plan = self.plan_digest
        seed = self.protocol.seed
        return Record(
            name=name,
            value=value,
            unit=unit,
            protocol=protocol,
            model=model,
            plan=plan,
            standard_error=error,
            seed=seed,
        )

    def write(self, name: str, *records: Record, **more: Any) -> None:
        """Write a finished part; more: other fields of `RowPart`."""
        write_part(self.folder, self.row, name, RowPart(source=self.job.digest, records=records, **more))


def _plan(work: RowSpec) -> Plan:
    path = work.place / PLAN
    try:
        return Plan.from_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PlanError(f"cannot read plan {path}: {error.strerror}") from error
