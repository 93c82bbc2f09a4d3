"""One row of a comparison at work: its model, its file, its plan, and the parts written for it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from secateur.core.context import Settings
from secateur.core.folder_files import PLAN
from secateur.core.plan import Plan
from secateur.core.progress import Progress
from secateur.pipeline.compare.protocol import Protocol, protocol_of
from secateur.pipeline.export.gguf import export
from secateur.pipeline.prune.apply import apply
from secateur.present.comparison_folder import ComparisonJob, ComparisonRow, RowPart, cell_folder, write_part
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
    """A row of the comparison in `folder`, and where its progress is shown."""

    folder: Path
    job: ComparisonJob
    row: ComparisonRow
    progress: Progress

    @property
    def place(self) -> Path:
        """The folder that holds the parts of the row."""
        return cell_folder(self.folder, self.row)

    @property
    def protocol(self) -> Protocol:
        """The protocol of all measurements."""
        return protocol_of(self.job)

    @property
    def model(self) -> str:
        """The model to measure: the original, a file, or the pruned folder, made again if deleted."""
        if self.row.kind == "dense" or self.row.native:
            return self.job.ref
        if self.row.kind == "quantized":
            return str(self.file())
        out = self.place / MODEL
        if not (out / "config.json").is_file():
            apply(self.plan(), self.job.ref, out, settings=Settings(overwrite=True), progress=self.progress)
        return str(out)

    def file(self) -> Path:
        """Return the GGUF file of the row, written first if it is missing; raises as `export` does."""
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

    def plan(self) -> Plan:
        """Return the plan of the row; raises PlanError where it cannot be read."""
        path = self.place / PLAN
        try:
            return Plan.from_json(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise PlanError(f"cannot read plan {path}: {error.strerror}") from error

    @property
    def whole(self) -> RowSpec:
        """The row of the whole model."""
        return replace(self, row=DENSE)

    @property
    def plan_digest(self) -> str:
        """Digest of the plan, empty where there is none."""
        return self.plan().digest() if self.row.kind not in ("dense", "quantized") else ""

    def record(self, name: str, value: float, unit: str, protocol: str, error: float | None = None) -> Record:
        """Return a number of this row; error: its standard error."""
        return Record(
            name=name,
            value=value,
            unit=unit,
            protocol=protocol,
            model=self.job.digest,
            plan=self.plan_digest,
            standard_error=error,
            seed=self.protocol.seed,
        )

    def write(self, name: str, *records: Record, **more: Any) -> None:
        """Write a finished part; more: other fields of `RowPart`."""
        write_part(self.folder, self.row, name, RowPart(source=self.job.digest, records=records, **more))
