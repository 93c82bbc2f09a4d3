"""Errors a user can cause: one line that says what is wrong and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from enum import IntEnum


class ExitCode(IntEnum):
    """What the command ends with."""

    DONE = 0
    """Done and checked."""
    BAD_INPUT = 2
    """An option, a file or a package that does not work; nothing was checked."""
    FAILED = 3
    """Checked, and it does not hold: another output, a failed gate, a target that nothing meets."""
    UNCHECKED = 4
    """What was to be checked could not be: the runtime or the figure that it takes is missing."""
    INTERRUPTED = 130
    """By Ctrl-C, as shells count it."""
    CLOSED_PIPE = 141
    """The reader of the output went away, as shells count it."""


class SecateurError(Exception):
    """Base of every error a user can cause; the command prints it as one line and exits with `exit_code`."""

    exit_code = ExitCode.BAD_INPUT


class SourceError(SecateurError):
    """A model cannot be read: missing, truncated, corrupt, or not finite."""


class UnsupportedModelError(SecateurError):
    """A model was read but its architecture does not fit any known family."""


class PlanError(SecateurError):
    """A plan is malformed, or was made for another model."""


class LadderError(SecateurError):
    """A ladder is malformed, or was made for another model, or has no such level."""


class TextError(SecateurError):
    """A text is missing, empty or too short."""


class OutputError(SecateurError):
    """An output exists already, or cannot be written."""


class UsageError(SecateurError):
    """An option has a value that cannot work."""


class TargetError(UsageError):
    """A budget is malformed, or no model that can be made meets it."""


class UnreachableTargetError(TargetError):
    """No model that can be made meets a budget; exit code 3."""

    exit_code = ExitCode.FAILED


class TraceError(SecateurError):
    """A recorded trace is missing, malformed or empty."""


class PolicyError(SecateurError):
    """A trained policy cannot be read, or was trained for another ladder."""


class RecordError(SecateurError):
    """A record of measured numbers is malformed, or belongs to something else."""


class MissingExtraError(SecateurError):
    """An optional package is needed; the message holds the pip command."""


class VerificationError(SecateurError):
    """A check found a difference between what was written and what was meant; exit code 3."""

    exit_code = ExitCode.FAILED


class UncheckedError(SecateurError):
    """A check that was asked for cannot be made; exit code 4."""

    exit_code = ExitCode.UNCHECKED


class MissingCheckerError(UncheckedError, MissingExtraError):
    """A check needs an optional package; the message holds the pip command; exit code 4."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ` (did you mean X?)` for the closest of `known`, or an empty string."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {close[0]}?)" if close else ""
