from __future__ import annotations

from secateur.allocate.units import Curve, SpreadContext
from secateur.allocate.units.uniform import uniform


def test_cuts_every_group_to_the_nearest_width() -> None:
    curves = {
        "a": Curve((0.0,) * 101, 1, align=8),
        "b": Curve((0.0,) * 4, 1),
        "c": Curve((0.0,) * 97, 1, align=32, least=64),
    }
    # 80 of 100 would stay, a multiple of 8; 2.4 of 3; 76.8 of 96, nearest to 64 and not to 96
    assert uniform(curves, 0.2, SpreadContext()) == {"a": 20, "b": 1, "c": 32}
    assert uniform(curves, 0.9, SpreadContext()) == {"a": 92, "b": 2, "c": 32}
