"""Charts of a comparison as Vega-Lite specifications.

Quality against bytes, quality against speed, and what every plan removed.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from secateur.present.columns import short
from secateur.present.comparison_folder import KINDS, Cell
from secateur.present.summary_rows import Line
from secateur_runtime.errors import MissingExtraError, OutputError

Spec = dict[str, Any]
_SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
_COLOURS = {
    "dense": "#8a8f98",
    "quantized": "#d98e04",
    "magnitude": "#4fa8d8",
    "unstructured": "#7c6fe0",
    "structured": "#2fa36b",
}
_PAPER = {"width": 720, "scale": 2}


def require_charts() -> None:
    """Raise MissingExtraError unless Vega is installed."""
    if importlib.util.find_spec("vl_convert") is None:
        raise MissingExtraError(
            "charts need Vega: pip install 'secateur[report]', or ask for --formats md,csv"
        )


def charts(lines: Sequence[Line], cells: Sequence[Cell]) -> dict[str, Spec]:
    """Return the specifications of the charts for which there are figures, by name."""
    found = {
        "quality-size": _pareto(lines, "size", "size, MB", lambda value: value / 1e6, smaller=True),
        "quality-speed": _pareto(
            lines, "speed_gain", "decode speed by the whole model's", lambda value: value, smaller=False
        ),
        **(_in_kernels(lines) if any(line.native_size is not None for line in lines) else {}),
        "removed": _heat_map(cells),
    }
    return {name: spec for name, spec in found.items() if spec}


def _in_kernels(lines: Sequence[Line]) -> dict[str, Spec]:
    speed = _pareto(
        lines,
        "native_gain",
        "decode speed by the whole model's in bfloat16",
        lambda value: value,
        smaller=False,
    )
    return {
        "quality-held": _pareto(
            lines, "held", "weights in memory, MB", lambda value: value / 1e6, smaller=True
        ),
        "quality-native": speed,
    }


def png(spec: Spec) -> bytes:
    """Return a chart on white, for paper."""
    import vl_convert

    drawn: bytes = vl_convert.vegalite_to_png(
        {**spec, "width": _PAPER["width"], "background": "white"}, scale=_PAPER["scale"]
    )
    return drawn


def script() -> str:
    """Return Vega, Vega-Lite and vega-embed as one offline script that defines `vegaEmbed`."""
    import vl_convert

    bundle: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    return bundle.replace("</script", "<\\/script")


def write_png(path: Path, spec: Spec) -> None:
    """Write a chart; raises OutputError where that cannot be."""
    try:
        path.write_bytes(png(spec))
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error


def front(points: Sequence[tuple[float, float]], *, smaller: bool) -> list[tuple[float, float]]:
    """Return the points `(x, perplexity)` that no other beats in both, in order of x.

    smaller: whether a smaller x is better.
    """
    best: list[tuple[float, float]] = []
    for x, y in sorted(set(points), key=lambda point: (point[0] if smaller else -point[0], point[1])):
        if not best or y < best[-1][1]:
            best.append((x, y))
    return sorted(best)


def _pareto(
    lines: Sequence[Line], field: str, title: str, scale: Callable[[float], float], *, smaller: bool
) -> Spec:
    rows: list[dict[str, Any]] = [
        {
            "name": line.row.name,
            "short": short(line.row.method),
            "kind": line.row.kind,
            "target": line.row.target or "whole model",
            "x": scale(getattr(line, field)),
            "perplexity": line.perplexity,
        }
        for line in lines
        if getattr(line, field) is not None and line.perplexity is not None
    ]
    if len(rows) < 2:
        return {}
    kinds = [kind for kind in KINDS if any(row["kind"] == kind for row in rows)]
    edge = [
        {"x": x, "perplexity": y}
        for x, y in front([(row["x"], row["perplexity"]) for row in rows], smaller=smaller)
    ]
    x = {"field": "x", "type": "quantitative", "title": title, "scale": {"zero": False, "padding": 12}}
    tooltip = [
        {"field": "name", "title": "row"},
        {"field": "kind"},
        {"field": "perplexity", "format": ".3f"},
        {"field": "x", "title": title, "format": ".3f"},
    ]
    points = {
        "data": {"values": rows},
        "mark": {"type": "point", "filled": True, "size": 110, "opacity": 0.9},
        "encoding": {
            "x": x,
            "y": _PERPLEXITY,
            "color": {
                "field": "kind",
                "scale": {"domain": kinds, "range": [_COLOURS[kind] for kind in kinds]},
                "legend": _LEGEND,
            },
            "shape": {
                "field": "target",
                "legend": {**_LEGEND, "symbolFillColor": "#8a8f98", "symbolStrokeColor": "#8a8f98"},
            },
            "tooltip": tooltip,
        },
    }
    line = {
        "data": {"values": edge},
        "mark": {"type": "line", "strokeDash": [4, 3], "opacity": 0.7, "color": "#8a8f98"},
        "encoding": {"x": x, "y": _PERPLEXITY},
    }
    return {**frame(340), "layer": [line, points, _names(rows, edge, x)]}


def _names(
    rows: Sequence[Mapping[str, Any]], edge: Sequence[Mapping[str, Any]], x: Mapping[str, Any]
) -> Spec:
    """Return the names of the points that no other beats."""
    best = {(point["x"], point["perplexity"]) for point in edge}
    named = [{**row, "label": row["short"]} for row in rows if (row["x"], row["perplexity"]) in best]
    text = {"type": "text", "dy": -12, "fontSize": 12, "fontWeight": 600}
    return {
        "data": {"values": named},
        "mark": text,
        "encoding": {"x": x, "y": _PERPLEXITY, "text": {"field": "label"}},
    }


def _heat_map(cells: Sequence[Cell]) -> Spec:
    one = len({cell.row.target for cell in cells if cell.removed}) == 1
    rows = [
        {"row": f"{half} · {_called(cell, one)}", "block": index, "removed": share, "half": half}
        for cell in cells
        for index, shares in enumerate(cell.removed)
        for half, share in zip(("attention", "FFN"), shares, strict=True)
    ]
    if not rows:
        return {}
    names = [
        f"{half} · {_called(cell, one)}" for cell in cells if cell.removed for half in ("attention", "FFN")
    ]
    tooltip = [
        {"field": "row"},
        {"field": "block"},
        {"field": "removed", "format": ".1%", "title": "removed"},
    ]
    return {
        **frame(22 * len(names) + 40),
        "data": {"values": rows},
        "mark": {"type": "rect", "color": "#d9480f", "stroke": "#8a8f98", "strokeWidth": 0.2},
        "encoding": {
            "x": {
                "field": "block",
                "type": "ordinal",
                "title": "block",
                "axis": {"labelOverlap": True, "labelAngle": 0},
            },
            "y": {
                "field": "row",
                "type": "ordinal",
                "title": None,
                "sort": names,
                "axis": {"labelLimit": 150},
            },
            # Opacity, not a scheme of colours: nothing removed looks like nothing, on white as on black.
            "opacity": {
                "field": "removed",
                "type": "quantitative",
                "scale": {"domain": [0, 1], "range": [0, 1]},
                "legend": None,
            },
            "tooltip": tooltip,
        },
    }


def _called(cell: Cell, one_target: bool) -> str:
    return short(cell.row.method) if one_target else f"{short(cell.row.method)}, {cell.row.target}"


def frame(height: int) -> Spec:
    """Return what every chart begins with: as wide as its place, `height` pixels high."""
    return {
        "$schema": _SCHEMA,
        "width": "container",
        "height": height,
        "autosize": {"type": "fit", "contains": "padding"},
        "background": None,
        "config": _CONFIG,
    }


_PERPLEXITY: Mapping[str, Any] = {
    "field": "perplexity",
    "type": "quantitative",
    "title": "perplexity (lower is better)",
    "scale": {"type": "log", "nice": False, "padding": 24},
    "axis": {"tickCount": 6},
}
_LEGEND: Mapping[str, Any] = {
    "orient": "bottom",
    "title": None,
    "columns": 3,
    "labelFontSize": 12,
    "symbolSize": 90,
}
_CONFIG: Mapping[str, Any] = {
    "view": {"stroke": None},
    "font": "system-ui, sans-serif",
    "axis": {"labelFontSize": 12, "titleFontSize": 12},
}
