"""Draw what happened while a server was squeezed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import vl_convert

_SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
_RED = "#c2410c"
_GREEN = "#2fa36b"
_GREY = "#8a8f98"
_BLUE = "#4b63c4"


def draw(body: dict[str, Any], path: Path) -> None:
    """Write the picture of a run, `squeeze.json` as plain data."""
    need = body["need"]
    rows = [
        {
            "second": sample["second"],
            "who": run["policy"],
            "used": sample["used"] / 1e6,
            "limit": min(sample["limit"] or need * 1.05, need * 1.05) / 1e6,
            "level": sample["level"],
            "rate": sample["rate"],
        }
        for run in body["runs"]
        for sample in run["samples"]
        # The dead tell no level.
        if sample["level"] is not None
    ]
    names = [run["policy"] for run in body["runs"]]
    adaptive = [row for row in rows if row["who"] == names[0]]
    deaths = [
        [row for row in rows if row["who"] == run["policy"]][-1] for run in body["runs"] if run["kills"]
    ]
    ends = [
        {"second": row["second"], "used": row["used"], "text": f"{row['who']}: killed by the kernel"}
        for row in deaths
    ]
    colour = {
        "field": "who",
        "type": "nominal",
        "title": None,
        "scale": {"domain": names, "range": [_GREEN, _RED, _BLUE][: len(names)]},
    }
    last = max(row["second"] for row in rows)
    second = {
        "field": "second",
        "type": "quantitative",
        "title": None,
        "scale": {"domain": [0, last], "nice": False},
    }
    memory = {
        "height": 220,
        "layer": [
            _line(adaptive, second, "limit", "memory, MB", {"value": "#111111"}, dash=True),
            _line(rows, second, "used", "memory, MB", colour),
            _mark(
                ends,
                second,
                "point",
                {"shape": "cross", "size": 160, "filled": True, "angle": 45, "color": _RED},
            ),
            _mark(ends, second, "text", {"align": "left", "dx": 10, "color": _RED, "fontWeight": "bold"}),
            _mark(
                [{"second": 0, "used": need / 1e6, "text": "limit of the control group"}],
                second,
                "text",
                {"align": "left", "dx": 4, "dy": -22},
            ),
            *(_share(share, need, last, second) for share in (1.0, 0.8, 0.6)),
        ],
    }
    level = {"height": 90, **_line(adaptive, second, "level", "level", {"value": _GREEN}, step=True)}
    rate = {"height": 90, **_line(rows, {**second, "title": "seconds"}, "rate", "tokens/s", colour)}
    spec = {
        "$schema": _SCHEMA,
        "vconcat": [{"width": 760, **part} for part in (memory, level, rate)],
        "background": "white",
        "config": {
            "view": {"stroke": None},
            "axis": {"labelFontSize": 12, "titleFontSize": 12},
            "legend": {"orient": "top", "labelFontSize": 13},
        },
    }
    path.write_bytes(vl_convert.vegalite_to_png(spec, scale=1.4))


def _share(share: float, need: float, last: float, second: Any) -> dict[str, Any]:
    """A mark at a share of what the whole model needs."""
    row = {"second": last, "used": share * need / 1e6, "text": f"{share:.0%} of the need"}
    return _mark(
        [row], second, "text", {"align": "right", "dx": -4, "dy": 10, "color": _GREY, "fontSize": 10}
    )


def _line(
    rows: list[dict[str, Any]],
    second: Any,
    name: str,
    title: str,
    colour: Any,
    *,
    dash: bool = False,
    step: bool = False,
) -> dict[str, Any]:
    mark = {
        "type": "line",
        "strokeWidth": 1.6,
        **({"strokeDash": [6, 4]} if dash else {}),
        **({"interpolate": "step-after"} if step else {}),
    }
    y = {"field": name, "type": "quantitative", "title": title, "scale": {"zero": True}}
    return {
        "data": {"values": [row for row in rows if row[name] is not None]},
        "mark": mark,
        "encoding": {"x": second, "y": y, "color": colour},
    }


def _mark(rows: list[dict[str, Any]], second: Any, kind: str, look: dict[str, Any]) -> dict[str, Any]:
    y = {"field": "used", "type": "quantitative"}
    return {
        "data": {"values": rows},
        "mark": {"type": kind, **look},
        "encoding": {"x": second, "y": y, "text": {"field": "text"}},
    }
