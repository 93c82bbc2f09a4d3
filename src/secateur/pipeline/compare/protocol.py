"""The protocol of a comparison: the same for every row, and for every later run in the same folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from secateur.calibrate.calibration import Calibration
from secateur.calibrate.text import read_text
from secateur.core.context import Arithmetic
from secateur.pipeline.bench.bench import BenchSettings as Speed
from secateur.present.comparison_folder import ComparisonJob
from secateur_runtime.errors import UsageError

OPTIONAL = ("tasks", "bias")
"""Sections that a later run may add, and need not repeat."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """What is read and how it is measured.

    calibration, seed: what every method decides from. text, window, count, compute: what perplexity is
    measured on, as `pipeline.evaluate` takes them. backends: where speed is measured (`llamacpp`, `torch`,
    `native`); empty for nowhere.
    threads, prompt, tokens, repeat: as in `BenchSettings`. tasks, limit, shots, datasets: as
    `evaluate_tasks` takes them; no tasks for none.
    bias, bias_limit, winogender: whether bias is audited, and as `audit_bias` takes them.
    """

    calibration: Calibration = field(default_factory=Calibration)
    seed: int = 0
    text: str = "builtin"
    window: int = 2048
    count: int = 20
    compute: Arithmetic = "float32"
    backends: tuple[str, ...] = ("llamacpp", "torch")
    threads: int = 1
    prompt: int = 256
    tokens: int = 64
    repeat: int = 5
    tasks: tuple[str, ...] = ()
    limit: int | None = None
    shots: int | None = None
    datasets: str = ""
    bias: bool = False
    bias_limit: int | None = None
    winogender: str = ""

    @property
    def parts(self) -> tuple[str, ...]:
        """What is done to a row before its speed is measured."""
        return (
            "pruned",
            "file",
            "quality",
            *(("tasks",) if self.tasks else ()),
            *(("bias",) if self.bias else ()),
        )

    def sections(self) -> dict[str, dict[str, Any]]:
        """Return, for each part of a row, what its numbers hang on, as plain data."""
        text = read_text(self.text)
        calibration = asdict(self.calibration) | {"seed": self.seed}
        if self.calibration.text != "self":
            calibration["digest"] = read_text(self.calibration.text).digest
        quality = {
            "text": self.text,
            "origin": text.origin,
            "digest": text.digest,
            "window": self.window,
            "count": self.count,
            "compute": self.compute,
        }
        speed = {
            "backends": list(self.backends),
            "threads": self.threads,
            "prompt": self.prompt,
            "tokens": self.tokens,
            "repeat": self.repeat,
        }
        return {
            "calibration": calibration,
            "quality": quality,
            "speed": speed,
            "tasks": self._tasks(),
            "bias": self._bias(),
        }

    def _tasks(self) -> dict[str, Any]:
        if not self.tasks:
            return {}
        data = str(Path(self.datasets).resolve()) if self.datasets else ""
        return {
            "tasks": list(self.tasks),
            "limit": self.limit,
            "shots": self.shots,
            "datasets": data,
            "lm_eval": version("lm_eval"),
        }

    def _bias(self) -> dict[str, Any]:
        if not self.bias:
            return {}
        data, sentences = (
            str(Path(one).resolve()) if one else "" for one in (self.datasets, self.winogender)
        )
        return {
            "limit": self.bias_limit,
            "datasets": data,
            "winogender": sentences,
            "lm_eval": version("lm_eval"),
        }

    @property
    def speed(self) -> Speed:
        """How speed is measured."""
        return Speed(threads=self.threads, prompt=self.prompt, tokens=self.tokens, repeat=self.repeat)


def protocol_of(job: ComparisonJob) -> Protocol:
    """Return the protocol that a job was written with."""
    calibration, quality, speed = (dict(job.protocols[name]) for name in ("calibration", "quality", "speed"))
    text = Calibration(**{each.name: calibration[each.name] for each in fields(Calibration)})
    for extra in ("origin", "digest"):
        quality.pop(extra)
    speed["backends"] = tuple(speed["backends"])
    return replace(Protocol(), calibration=text, seed=calibration["seed"], **quality, **speed, **_asked(job))


def _asked(job: ComparisonJob) -> dict[str, Any]:
    tasks, bias = (dict(job.protocols.get(name, {})) for name in OPTIONAL)
    found: dict[str, Any] = {}
    if tasks:
        found = {
            "tasks": tuple(tasks["tasks"]),
            **{name: tasks[name] for name in ("limit", "shots", "datasets")},
        }
    if bias:
        found |= {
            "bias": True,
            "bias_limit": bias["limit"],
            "datasets": bias["datasets"],
            "winogender": bias["winogender"],
        }
    return found


def agreed(
    asked: Mapping[str, Mapping[str, Any]], written: Mapping[str, Mapping[str, Any]], where: object
) -> dict[str, Mapping[str, Any]]:
    """Return a folder's protocol from now on: what is written, and what is asked for the first time.

    asked, written: sections of this run and of the folder. where: the folder, for the message.
    Raises UsageError naming the first value that differs.
    """
    for section, values in asked.items():
        before = written.get(section, {})
        if section in OPTIONAL and not (values and before):
            continue
        for key, value in values.items():
            if before.get(key) != value:
                was, now = (repr(one)[:40] for one in (before.get(key), value))
                raise UsageError(
                    f"{where} was measured with {section} {key} {was}, not {now}: give the same options, or"
                    " choose another --output"
                )
    return {section: asked[section] or written.get(section, {}) for section in asked}
