"""Errors that users cause: exit codes, and the nearest known name."""

from __future__ import annotations

import pytest

from secateur_runtime.errors import SecateurError, TargetError, UsageError, VerificationError, nearest


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
