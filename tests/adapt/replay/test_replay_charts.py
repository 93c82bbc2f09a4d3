"""The charts hold the numbers of the runs, and the page holds the charts."""

from __future__ import annotations

from tests.adapt.replay.test_replay import CHOICES, MOMENTS, SPEED

from secateur.adapt.replay.replay_charts import page, pictures
from secateur.adapt.replay.simulate import simulate
from secateur_runtime.policies import make_policy

RUNS = [
    simulate(CHOICES, name, make_policy(name, CHOICES), MOMENTS, SPEED, {}) for name in ("none", "greedy")
]


def test_a_row_for_every_moment_of_every_run() -> None:
    charts = pictures(RUNS)
    rows = charts["memory"]["layer"][1]["data"]["values"]
    happened = [one for run in RUNS for one in run.happened]
    assert [row["memory"] for row in rows] == [one.need / 1e6 for one in happened]
    assert {row["policy"] for row in rows} == {"none", "greedy"}
    available = charts["memory"]["layer"][0]["data"]["values"]
    assert [row["memory"] for row in available] == [moment.available / 1e6 for moment in MOMENTS]


def test_lost_requests_are_not_in_the_chart_of_quality() -> None:
    rows = pictures(RUNS)["quality"]["data"]["values"]
    alive = [one for run in RUNS for one in run.happened if not one.killed]
    assert len(alive) < sum(len(run.happened) for run in RUNS)
    assert [row["loss"] for row in rows] == [one.loss for one in alive]


def test_the_page_escapes_what_it_is_given() -> None:
    text = page("<b>", ["a & b"], ["policy"], [["none"]], pictures(RUNS))
    assert "<h1>&lt;b&gt;</h1>" in text
    assert "a &amp; b" in text
    assert text.index("Memory") < text.index("Quality")
