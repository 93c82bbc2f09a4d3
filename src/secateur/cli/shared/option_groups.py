"""Options that travel together: a dataclass for each group, and the decorator that puts them on a verb."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any, get_type_hints

from secateur.cli.shared import options, printing
from secateur_runtime.errors import UsageError, nearest

if TYPE_CHECKING:
    from secateur.calibrate.calibration import Calibration
    from secateur.core.context import Arithmetic, Settings
    from secateur.core.progress import Progress

Verb = Callable[..., None]


def with_options(verb: Verb) -> Verb:
    """Return `verb` with each option group among its parameters replaced by the options that are its fields.

    A group is a dataclass whose fields are annotated like options. Its options take the place of the
    parameter in `--help`; the verb gets an instance. Raises TypeError for two options of one name.
    """
    hints = get_type_hints(verb, include_extras=True)
    groups = {name: hint for name, hint in hints.items() if isinstance(hint, type) and is_dataclass(hint)}
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(verb).parameters.values():
        if parameter.name in groups:
            parameters += _options_of(groups[parameter.name])
        else:
            keyword = inspect.Parameter.KEYWORD_ONLY
            parameters.append(parameter.replace(kind=keyword, annotation=hints[parameter.name]))
    names = [parameter.name for parameter in parameters]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise TypeError(f"{verb.__name__} has two options of one name: {', '.join(twice)}")

    @functools.wraps(verb)
    def flat(**given: Any) -> None:
        made = {
            name: group(**{field.name: given.pop(field.name) for field in fields(group)})
            for name, group in groups.items()
        }
        verb(**made, **given)

    flat.__dict__["__signature__"] = inspect.Signature(parameters)
    flat.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return flat


def _options_of(group: type) -> Iterator[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    for field in fields(group):
        default = inspect.Parameter.empty if field.default is MISSING else field.default
        yield inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hints[field.name]
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DisplayOptions:
    """How a verb prints: progress on stderr, its result on stdout."""

    as_json: options.Json = False
    quiet: options.Quiet = False

    def progress(self) -> AbstractContextManager[Progress]:
        """Return a progress display; it shows nothing with --quiet or --json."""
        return printing.progress(quiet=self.quiet or self.as_json)

    def result(self, body: Mapping[str, Any], *, title: str = "") -> None:
        """Print a flat mapping as two columns, or as one JSON object with --json."""
        printing.result(body, as_json=self.as_json, title=title)


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationOptions:
    """Text that statistics are taken from."""

    calib: options.Calib = "builtin"
    samples: options.Samples = 64
    calib_window: options.CalibWindow = 512

    def calibration(self) -> Calibration:
        """Return the calibration that these options ask for."""
        from secateur.calibrate.calibration import Calibration

        return Calibration(text=self.calib, samples=self.samples, window=self.calib_window)


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageOptions:
    """How a model is computed and written."""

    dtype: options.Dtype = "auto"
    compute: options.RunCompute = None
    memory: options.Memory = 1024
    overwrite: options.Overwrite = False

    def settings(self) -> Settings:
        """Return the settings of the writer; raises UsageError for an unknown arithmetic."""
        return settings_of(self.dtype, self.compute, self.memory, overwrite=self.overwrite)


def settings_of(dtype: str, compute: str | None, memory: int, *, overwrite: bool) -> Settings:
    """Return the settings of the writer.

    dtype: of the stored weights. compute: dtype of matrix products, None for the verb's own.
    memory: MiB of hidden states held before a scratch file is used.
    Raises UsageError for an unknown `compute`.
    """
    from secateur.core.context import Settings

    return Settings(
        dtype=dtype,
        arithmetic=arithmetic_of(compute) if compute else None,
        memory=memory << 20,
        overwrite=overwrite,
    )


def arithmetic_of(compute: str) -> Arithmetic:
    """Return the dtype of matrix products that `compute` names; raises UsageError for an unknown one."""
    known: tuple[Arithmetic, ...] = ("float32", "bfloat16")
    for kind in known:
        if compute == kind:
            return kind
    raise UsageError(f"unknown --compute {compute!r}{nearest(compute, known)}; known: {', '.join(known)}")
