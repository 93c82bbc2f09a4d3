"""Devices as data: TOML files whose every figure names its source."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from secateur_runtime.errors import UsageError, nearest
from secateur_runtime.files import refuse_existing, write_text

LOCAL = "local"
"""The name of the machine that asks."""

Kind = Literal["microcontroller", "phone", "board", "mini-pc", "laptop", "desktop", "server"]
Processor = Literal["cpu", "gpu", "mcu"]
UNITS: Mapping[str, str] = {
    "cores": "",
    "clock": "Hz",
    "memory": "B",
    "flash": "B",
    "bandwidth": "B/s",
    "stream": "B/s",
    "matrix": "op/s",
}
"""Figures by name.

`memory` is what models can be in (of the GPU where that computes), `bandwidth` is theoretical, `stream`
measured by reading, `matrix` of the fastest type.
"""
_Amount = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Data(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Figure(_Data):
    """One number about a device.

    source: public URL, or how it was measured. confirmed: the number was read there; otherwise it is from
    memory or derived, and `note` says how.
    """

    value: _Amount
    source: str
    confirmed: bool
    note: str = ""


class Names(_Data):
    """Instruction sets, as the kernel or the vendor calls them."""

    names: list[str]
    source: str
    confirmed: bool


class Published(_Data):
    """A decode speed that somebody measured on such a device, one sequence at a time.

    bytes: what a token reads, about the file. layers: blocks of the model.
    """

    model: str
    runtime: str
    bytes: _Amount
    layers: Annotated[int, Field(gt=0)]
    tokens_per_second: _Amount
    source: str
    confirmed: bool
    note: str = ""


OUTPUT = "output"
"""Stands for a type in rates and in work: one matrix as tall as the vocabulary is read faster than many small
ones, whatever its type.
"""


class Rates(_Data):
    """How fast llama.cpp decoded synthetic models on the very machine; `secateur device` measures it.

    threads: of llama.cpp. layer: seconds that a block costs however narrow it is. weights: bytes per second
    by type of weight, and those of the output matrix as `OUTPUT`; cache: bytes per second of KV cache. base:
    bytes of a process with next to no model. copied: types whose block weights are held twice, since the
    runtime repacks them. spread: by how much the median run, which counts, was slower than the fastest, as a
    share.
    """

    threads: Annotated[int, Field(gt=0)]
    layer: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    weights: dict[str, _Amount]
    cache: _Amount
    base: _Amount
    copied: list[str]
    spread: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    runtime: str
    taken: str


class Profile(_Data):
    """One device.

    sparse_tensor_cores: its matrix units skip two of four weights. moving_memory: other programs take and
    give back memory while a model runs.
    """

    name: str
    kind: Kind
    processor: Processor
    sparse_tensor_cores: bool
    moving_memory: bool
    isa: Names
    figures: dict[str, Figure]
    published: list[Published] = []
    rates: Rates | None = None

    @model_validator(mode="after")
    def _whole(self) -> Profile:
        if unknown := [name for name in self.figures if name not in UNITS]:
            raise ValueError(
                f"figure {unknown[0]!r} is not known{nearest(unknown[0], UNITS)}; known: {', '.join(UNITS)}"
            )
        wanted = ["cores", "memory", *(["flash", "matrix"] if self.processor == "mcu" else [])]
        if missing := [name for name in wanted if name not in self.figures]:
            raise ValueError(f"figures.{missing[0]} is missing")
        if self.processor != "mcu" and not {"bandwidth", "stream"} & set(self.figures):
            raise ValueError("figures.bandwidth or figures.stream is missing")
        return self

    def figure(self, name: str) -> float:
        """Return one figure in its unit of `UNITS`; raises UsageError where the profile has none."""
        if name not in self.figures:
            raise UsageError(f"the profile of {self.name} has no figures.{name}")
        return self.figures[name].value

    @property
    def threads(self) -> int:
        """Cores that a runtime uses: those it was measured with, or all."""
        return self.rates.threads if self.rates else int(self.figure("cores"))


def profile_names() -> list[str]:
    """Return the names of the profiles that come along."""
    return sorted(
        entry.name.removesuffix(".toml") for entry in _folder().iterdir() if entry.name.endswith(".toml")
    )


def load_profile(ref: str) -> Profile:
    """Return the profile called `ref`, or that of the file `ref` if it ends in .toml.

    Raises UsageError with one line for anything else.
    """
    if ref.endswith(".toml"):
        try:
            return parse_profile(Path(ref).read_bytes().decode(), ref)
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(
                f"cannot read the profile {ref}: {getattr(error, 'strerror', None) or 'not UTF-8'}"
            ) from None
    known = profile_names()
    if ref not in known:
        raise UsageError(
            f"unknown --device {ref!r}{nearest(ref, [*known, LOCAL])}; known: {LOCAL}, {', '.join(known)}, or"
            " a FILE.toml"
        )
    return parse_profile((_folder() / f"{ref}.toml").read_text(), ref)


def parse_profile(text: str, where: str) -> Profile:
    """Return the profile that TOML `text` holds; raises UsageError naming the first thing that is wrong."""
    try:
        return Profile.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{where} is not TOML: {' '.join(str(error).split())}") from None
    except ValidationError as error:
        raise UsageError(f"{where} is no device profile: {_first(error)}") from None


def check_place(path: Path, *, overwrite: bool) -> None:
    """Raise UsageError or OutputError if a profile cannot be written to `path`.

    Called before a measurement, so that none is made in vain.
    """
    if path.suffix != ".toml":
        raise UsageError(f"{path} does not end in .toml: --device would not know what it is")
    refuse_existing(path, overwrite=overwrite)


def write_profile(profile: Profile, path: Path, *, overwrite: bool) -> None:
    """Write a profile as TOML.

    Raises OutputError if the file exists or cannot be written, UsageError if its name does not end in .toml.
    """
    check_place(path, overwrite=overwrite)
    write_text(path, to_toml(profile.model_dump(exclude_none=True)), parents=True)


def to_toml(values: Mapping[str, Any], prefix: str = "") -> str:
    """Return plain data as TOML: scalars and lists of them first, then tables, then lists of tables."""
    plain = {
        key: value for key, value in values.items() if not isinstance(value, Mapping) and not _tables(value)
    }
    lines = [f"{_key(key)} = {_scalar(value)}" for key, value in plain.items()]
    for key, value in values.items():
        name = prefix + _key(key)
        if isinstance(value, Mapping):
            lines += ["", f"[{name}]", to_toml(value, f"{name}.").rstrip("\n")]
        for row in value if _tables(value) else []:
            lines += ["", f"[[{name}]]", to_toml(row, f"{name}.").rstrip("\n")]
    return "\n".join(lines) + "\n"


def _tables(value: Any) -> bool:
    return isinstance(value, list | tuple) and bool(value) and isinstance(value[0], Mapping)


def _scalar(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_scalar, value)) + "]"
    return _quoted(value) if isinstance(value, str) else repr(value)


def _key(key: str) -> str:
    return key if key.replace("_", "").replace("-", "").isalnum() and key.isascii() else _quoted(key)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(char if char.isprintable() else f"\\U{ord(char):08x}" for char in escaped) + '"'


def _first(error: ValidationError) -> str:
    found = error.errors(include_url=False)[0]
    place = ".".join(map(str, found["loc"]))
    message = found["msg"].removeprefix("Value error, ")
    return f"{place}: {message}" if place else message


def _folder() -> Any:
    return resources.files("secateur.device") / "profiles"
