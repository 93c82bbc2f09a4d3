"""Charts of a replay: memory taken and available, and the loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from secateur.adapt.replay.simulate import Simulated
from secateur.present.charts import Spec, frame
from secateur.present.html_page import chart_place, plain_table, whole_page

_X = {"field": "time", "type": "quantitative", "title": "moment", "scale": {"nice": False}}
_COLOUR: dict[str, Any] = {
    "field": "policy",
    "scale": {"scheme": "tableau10"},
    "legend": {"orient": "bottom", "title": None, "columns": 4},
}
_TITLES = {
    "memory": ("Memory", "Grey: what there was. A cross: more was needed, and the request was lost."),
    "quality": ("Quality", "Loss of what was in the model, in nats per token; lower is better."),
}


def pictures(runs: Sequence[Simulated]) -> dict[str, Spec]:
    """Return the charts of runs over the same trace: `memory` and `quality`."""
    rows = [
        {
            "time": one.moment.time,
            "policy": run.policy,
            "memory": one.need / 1e6,
            "loss": one.loss,
            "killed": one.killed,
        }
        for run in runs
        for one in run.happened
    ]
    there = [
        {"time": one.moment.time, "memory": one.moment.available / 1e6}
        for one in max(runs, key=lambda run: len(run.happened)).happened
    ]
    memory = {"field": "memory", "type": "quantitative", "title": "memory, MB"}
    area = {
        "data": {"values": there},
        "mark": {"type": "area", "interpolate": "step-after", "opacity": 0.18, "color": "#8a8f98"},
    }
    steps = {"type": "line", "interpolate": "step-after", "strokeWidth": 1.5}
    killed = {
        "mark": {"type": "point", "shape": "cross", "size": 90, "filled": True},
        "transform": [{"filter": "datum.killed"}],
    }
    loss = {"field": "loss", "type": "quantitative", "title": "nats per token", "scale": {"zero": False}}
    coloured = {"x": _X, "y": memory, "color": _COLOUR}
    return {
        "memory": {
            **frame(300),
            "layer": [
                {**area, "encoding": {"x": _X, "y": memory}},
                {"data": {"values": rows}, "mark": steps, "encoding": coloured},
                {"data": {"values": rows}, **killed, "encoding": coloured},
            ],
        },
        "quality": {
            **frame(220),
            "data": {"values": [row for row in rows if not row["killed"]]},
            "mark": steps,
            "encoding": {"x": _X, "y": loss, "color": _COLOUR},
        },
    }


def page(
    title: str,
    notes: Sequence[str],
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    charts: Mapping[str, Spec],
) -> str:
    """Return one self-contained HTML page with a table and the charts."""
    parts = [
        f"<h1>{escape(title)}</h1>",
        *(f"<p>{escape(note)}</p>" for note in notes),
        plain_table(header, rows),
    ]
    return whole_page(title, [*parts, *(chart_place(name, *_TITLES[name]) for name in charts)], charts)
