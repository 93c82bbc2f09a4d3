"""No repair leaves every retained weight as it was."""

from __future__ import annotations

import torch
from tests.transform.unit_repair.problems import KEPT, REMOVED, case, outputs

from secateur.transform.unit_repair.none import none


def test_the_output_lacks_exactly_what_the_removed_inputs_gave() -> None:
    inputs, cut = case()
    done = none(cut)
    assert torch.equal(done.weight[:, KEPT], cut.weight[:, KEPT])
    assert not done.weight[:, REMOVED].any()
    assert done.shift is None
    missing = inputs.double() @ cut.weight.double().T - outputs(inputs, done)
    torch.testing.assert_close(missing, inputs[:, REMOVED].double() @ cut.weight[:, REMOVED].double().T)
