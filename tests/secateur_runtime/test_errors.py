"""Errors that users cause: exit codes, and the nearest known name."""

from __future__ import annotations

import pytest

from secateur_runtime.errors import (
    ExitCode,
    MissingCheckerError,
    MissingExtraError,
    SecateurError,
    TargetError,
    UncheckedError,
    UnreachableTargetError,
    UsageError,
    VerificationError,
    nearest,
)


@pytest.mark.parametrize(
    ("name", "words"),
    [("gredy", " (did you mean greedy?)"), ("knapsck", " (did you mean knapsack?)"), ("xyz", ""), ("", "")],
)
def test_the_nearest_name_is_suggested_only_if_it_is_close(name: str, words: str) -> None:
    assert nearest(name, iter(["greedy", "knapsack"])) == words


def test_bad_input_exits_with_2_and_a_failed_check_with_3() -> None:
    assert SecateurError("a").exit_code == UsageError("a").exit_code == 2
    assert VerificationError("a").exit_code == 3
    assert isinstance(TargetError("a"), UsageError)


def test_a_target_is_malformed_or_out_of_reach() -> None:
    assert TargetError("a").exit_code == 2
    assert UnreachableTargetError("a").exit_code == 3
    assert isinstance(UnreachableTargetError("a"), TargetError)


def test_what_could_not_be_checked_exits_with_4() -> None:
    assert UncheckedError("a").exit_code == MissingCheckerError("a").exit_code == 4
    assert isinstance(MissingCheckerError("a"), MissingExtraError)


def test_exit_codes_are_those_of_the_docs() -> None:
    assert [code.value for code in ExitCode] == [0, 2, 3, 4, 130, 141]
