"""Run a recipe: artefacts are kept under the digest of what made them, so only what changed runs again."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from secateur.calibrate.text import read_text, windows
from secateur.core.progress import Progress, Silent
from secateur.model.handle import open_model
from secateur.model.written.checkpoint import file_digest
from secateur.pipeline.export.formats import DEFAULT, EXPORTERS
from secateur.pipeline.recipe.schema import (
    CHANGING,
    Eval,
    Export,
    Recipe,
    Stage,
    changes_the_tokens,
    read_recipe,
)
from secateur.pipeline.recipe.stages import Made, Place, perform
from secateur_runtime.errors import OutputError, TextError
from secateur_runtime.files import locked, write_text

STAGES = "stages"
REPORT = "report.json"
_RECORD = ".json"


@dataclass(frozen=True, slots=True)
class StageResult:
    """What became of one stage: its figures, what it took when it ran, and whether an earlier run made it.

    seconds: by the clock; processor_seconds: of all threads, and of the processes that it started.
    """

    kind: str
    artefact: Path | None
    figures: Mapping[str, Any]
    seconds: float
    processor_seconds: float
    cached: bool


@dataclass(frozen=True, slots=True)
class RecipeResult:
    """A finished recipe: its steps in order, and what was made last.

    model: a folder, if a stage made one; file: what that was exported to, if it was.
    """

    out: Path
    steps: tuple[StageResult, ...]
    model: Path | None
    file: Path | None


def run(
    recipe: str | Path,
    out: str | Path,
    *,
    model: str = "",
    changes: Sequence[str] = (),
    resume: bool = False,
    progress: Progress | None = None,
) -> RecipeResult:
    """Run the YAML file `recipe`; see `read_recipe` for `model` and `changes`, `conduct` for the rest."""
    return conduct(
        read_recipe(Path(recipe), model=model, changes=changes), Path(out), resume=resume, progress=progress
    )


def conduct(
    recipe: Recipe, out: Path, *, resume: bool = False, progress: Progress | None = None
) -> RecipeResult:
    """Run the stages of `recipe` into the folder `out`, with a report and links to the last model and file.

    resume: continue where a run was killed, or after the recipe was changed; what is there and still fits is
    taken.
    Raises OutputError if `out` exists and is not to be resumed, TextError if a text is too short to train on,
    VerificationError if a gate does not hold, and what stages raise.
    """
    if out.exists() and not resume and any(out.iterdir() if out.is_dir() else [out]):
        raise OutputError(
            f"{out} exists: pass --resume to continue with what is there, or choose another --output"
        )
    check_texts(recipe)
    with locked(out, out):
        run = _Conducting(recipe, out, progress or Silent())
        steps = tuple(run.steps())
        return run.finish(steps)


def check_texts(recipe: Recipe) -> None:
    """Raise TextError where a stage that trains needs more text than there is."""
    tokenizer = open_model(recipe.model).source.tokenizer()
    for number, stage in enumerate(recipe.stages, 1):
        wanted = stage.calibration
        if stage.kind == "recover" and wanted.text != "self":
            try:
                windows(read_text(wanted.text), tokenizer, wanted.window, wanted.samples)
            except TextError as error:
                raise TextError(f"stage {number} ({stage.kind}): {error}") from None


_KEYED_AS = {"Quantization": "Integers"}
"""What a class was called when keys were first made: a new name must not run finished stages again."""


def keys(recipe: Recipe) -> list[str]:
    """Return the key of each stage's artefact.

    A digest of its options, its text, the model, and all that changed it before.
    """
    said: list[Any] = [version("secateur"), open_model(recipe.model).digest, recipe.seed]
    found = []
    texts = dict[str, str]()
    for stage in recipe.stages:
        name = type(stage.options).__name__
        here: list[Any] = [stage.kind, _KEYED_AS.get(name, name), _keyed(stage)]
        for text in _texts(stage):
            texts[text] = texts.get(text) or (text if text == "self" else read_text(text).digest)
            here.append(texts[text])
        if stage.kind in CHANGING:
            here.append({name: value for name, value in asdict(stage.calibration).items() if name != "text"})
        key = hashlib.sha256(json.dumps([*said, here], sort_keys=True, default=str).encode()).hexdigest()[:16]
        found.append(f"{key}-{stage.kind}")
        # What only measures changes nothing for those that follow.
        said += [here] if stage.kind in CHANGING else []
    return found


def _keyed(stage: Stage) -> dict[str, Any]:
    """Return the options of a stage; the default format had no name when keys were first made."""
    said = asdict(stage.options)
    if isinstance(stage.options, Export) and stage.options.format == DEFAULT:
        del said["format"]
    return said


def record_of(out: Path, key: str) -> dict[str, Any] | None:
    """Return what a finished stage noted under `key`; None where it is missing or its files changed."""
    path = out / STAGES / (key + _RECORD)
    try:
        noted = dict(json.loads(path.read_text(encoding="utf-8")))
        whole = (
            all(file_digest(out / STAGES / name) == digest for name, digest in dict(noted["files"]).items())
            and noted["processor_seconds"] >= 0
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return noted if whole else None


class _Conducting:
    """One run of a recipe."""

    def __init__(self, recipe: Recipe, out: Path, progress: Progress) -> None:
        self._recipe = recipe
        self._out = out
        self._progress = progress
        self._model = recipe.model
        self._teacher = recipe.model
        self._file = Path()

    def steps(self) -> Iterator[StageResult]:
        """Run or reuse every stage in order."""
        (self._out / STAGES).mkdir(exist_ok=True)
        figures: dict[str, Any] = {}
        for number, (stage, key) in enumerate(zip(self._recipe.stages, keys(self._recipe), strict=True), 1):
            # A gate costs nothing, and the figures it checks may have changed.
            noted = None if stage.kind == "gate" else record_of(self._out, key)
            if noted is None:
                self._progress.note(f"stage {number} of {len(self._recipe.stages)}: {stage.kind}")
                started = time.perf_counter()
                used = _processor_seconds()
                made = perform(stage, self._place(key, figures), self._progress)
                noted = self._note(
                    key,
                    made,
                    {
                        "seconds": time.perf_counter() - started,
                        "processor_seconds": _processor_seconds() - used,
                    },
                )
                cached = False
            else:
                self._progress.note(
                    f"stage {number} of {len(self._recipe.stages)}: {stage.kind}, as it was made before"
                )
                cached = True
            artefact = self._out / STAGES / noted["artefact"] if noted["artefact"] else None
            if artefact and stage.kind in CHANGING:
                self._model = str(artefact)
                self._file = Path()
                self._teacher = self._model if changes_the_tokens(stage) else self._teacher
            elif artefact:
                self._file = artefact
            figures = figures | noted["figures"]
            yield StageResult(
                stage.kind, artefact, noted["figures"], noted["seconds"], noted["processor_seconds"], cached
            )

    def _place(self, key: str, figures: Mapping[str, Any]) -> Place:
        target = self._out / STAGES / key
        for suffix in _suffixes():
            _clear(target.with_suffix(suffix))
        return Place(
            self._model,
            self._recipe.model,
            self._teacher,
            target,
            self._recipe.seed,
            figures,
            self._file if self._file.name else None,
        )

    def _note(self, key: str, made: Made, cost: Mapping[str, float]) -> dict[str, Any]:
        files = (
            sorted(made.artefact.iterdir())
            if made.artefact and made.artefact.is_dir()
            else [made.artefact]
            if made.artefact
            else []
        )
        names = {str(path.relative_to(self._out / STAGES)): file_digest(path) for path in files}
        spent = {name: round(value, 1) for name, value in cost.items()}
        noted = {
            "artefact": made.artefact.name if made.artefact else "",
            "figures": dict(made.figures),
            "files": names,
            **spent,
        }
        _write(self._out / STAGES / (key + _RECORD), noted)
        return noted

    def finish(self, steps: tuple[StageResult, ...]) -> RecipeResult:
        """Write the report and the links to what was made last."""
        rows = [row(step) for step in steps]
        model = self._link(
            "model", next((step.artefact for step in reversed(steps) if step.kind in CHANGING), None)
        )
        links = {suffix: f"model{suffix}" if suffix else "exported" for suffix in _suffixes()}
        made = {self._file.suffix: self._file} if self._file.name else {}
        linked = [self._link(name, made.get(suffix)) for suffix, name in links.items()]
        file = next(filter(None, linked), None)
        _write(
            self._out / REPORT,
            {
                "model": self._recipe.model,
                "seed": self._recipe.seed,
                "secateur": version("secateur"),
                "stages": rows,
            },
        )
        return RecipeResult(self._out, steps, model, file)

    def _link(self, name: str, target: Path | None) -> Path | None:
        link = self._out / name
        if target is None:
            link.unlink(missing_ok=True)
            return None
        scratch = self._out / f".{name}"
        scratch.unlink(missing_ok=True)
        scratch.symlink_to(Path(STAGES) / target.name)
        os.replace(scratch, link)
        return link


def row(step: StageResult) -> dict[str, Any]:
    """Return a step as the report has it, without figures that it could not have."""
    figures = {name: value for name, value in step.figures.items() if value is not None}
    return {
        "stage": step.kind,
        "seconds": step.seconds,
        "processor_seconds": step.processor_seconds,
        "cached": step.cached,
        **figures,
    }


def _suffixes() -> list[str]:
    """Return the suffixes of what exports write; the empty one is that of a folder."""
    return sorted({"", *(EXPORTERS[name].suffix for name in EXPORTERS)})


def _processor_seconds() -> float:
    mine = resource.getrusage(resource.RUSAGE_SELF)
    others = resource.getrusage(resource.RUSAGE_CHILDREN)
    return mine.ru_utime + mine.ru_stime + others.ru_utime + others.ru_stime


def _texts(stage: Stage) -> list[str]:
    own = [stage.options.text] if isinstance(stage.options, Eval) else []
    return own + ([stage.calibration.text] if stage.kind in CHANGING else [])


def _clear(path: Path) -> None:
    """Remove what a run left that was killed before it could note what it had made."""
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)


def _write(path: Path, body: Mapping[str, Any]) -> None:
    write_text(path, json.dumps(body, indent=2, sort_keys=True) + "\n")
