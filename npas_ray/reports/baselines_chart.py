"""Geometry of the comparison with simulated searches: curves with their bands, and gaps with their intervals. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from npas_ray.reports.baselines import Baselines, Curve, Gap
from npas_ray.reports.charts import Frame, Tick, staircase
from npas_ray.reports.scales import Scale, padded

Floats = NDArray[np.float64]

#: room for the names at the ends of the curves
WIDE = Frame(980, 380, right=168, bottom=54)
NARROW = Frame(380, 320, left=46, right=14, top=14, bottom=52)
NAMES = {"run": "this run", "local": "local search", "random": "random search"}
#: pixels between two names at least
_LINE_HEIGHT = 19
#: of the drawing of a gap, in units of its own
GAP_WIDTH, _GAP_EDGE = 320, 6


@dataclass(frozen=True)
class Line:
    """One searcher: the path of its mean, that of its band, and its name at the end."""

    searcher: str
    path: str
    band: str
    label: str
    end_y: float
    label_y: float


@dataclass(frozen=True)
class CurveChart:
    frame: Frame
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    lines: tuple[Line, ...]
    end_x: float


@dataclass(frozen=True)
class GapRow:
    """One gap, as a point between two whiskers."""

    gap: Gap
    label: str
    x: float
    x_low: float
    x_high: float


def curve_chart(baselines: Baselines, frame: Frame) -> CurveChart | None:
    """Accuracy of the best so far against evaluations; None if nothing was simulated."""
    if baselines.run is None or baselines.curves is None:
        return None
    curves = {**{name: baselines.curves[name] for name in ("random", "local")}, "run": baselines.run}
    evaluations = np.array(baselines.evaluations, dtype=np.float64)
    total = float(evaluations[-1])
    x = Scale(0, max(total, 2), frame.x0, frame.x1)
    y = _accuracy_scale(curves, evaluations, frame)
    lines = [
        Line(
            name,
            _path(evaluations, curve.mean, x, y, stepped=name == "run"),
            _band(evaluations, curve, x, y),
            f"{NAMES[name]} {100 * curve.mean[-1]:.1f}",
            y(float(curve.mean[-1])),
            0.0,
        )
        for name, curve in curves.items()
        if np.isfinite(curve.mean[-1])
    ]
    return CurveChart(
        frame,
        tuple(Tick(x(tick), f"{tick:g}") for tick in x.ticks(8 if frame.width > 500 else 4) if tick == int(tick)),
        tuple(Tick(y(tick), f"{100 * tick:g}") for tick in y.ticks(6)),
        tuple(_apart(lines, frame)),
        x(total),
    )


def gap_rows(baselines: Baselines) -> tuple[tuple[GapRow, ...], float]:
    """The gaps on one scale, and where on it there is none; positions in 0..GAP_WIDTH."""
    if not baselines.gaps:
        return (), 0.0
    least, most = min(0.0, *(gap.low for gap in baselines.gaps)), max(0.0, *(gap.high for gap in baselines.gaps))
    scale = Scale(*padded(least, most, least=0.005), _GAP_EDGE, GAP_WIDTH - _GAP_EDGE)
    rows = tuple(
        GapRow(gap, NAMES[gap.searcher], scale(gap.mean), scale(gap.low), scale(gap.high)) for gap in baselines.gaps
    )
    return rows, scale(0.0)


def _accuracy_scale(curves: Mapping[str, Curve], evaluations: Floats, frame: Frame) -> Scale:
    """The first tenth of the evaluations may lie below the chart: where all are at the bottom."""
    late = evaluations >= 0.1 * evaluations[-1]
    lows = np.concatenate([np.fmin(curve.mean, curve.low)[late] for curve in curves.values()])
    highs = np.concatenate([np.fmax(curve.mean, curve.high)[late] for curve in curves.values()])
    low, high = padded(float(np.nanmin(lows)), float(np.nanmax(highs)), share=0.06, least=0.01)
    return Scale(max(low, 0.0), min(high, 1.0), frame.y0, frame.y1)


def _path(evaluations: Floats, values: Floats, x: Scale, y: Scale, *, stepped: bool = False) -> str:
    """Where the values are known; `stepped` as one search goes, and not the mean of many."""
    points = [(x(float(at)), y(float(v))) for at, v in zip(evaluations, values, strict=True) if np.isfinite(v)]
    if stepped:
        return staircase(points, end=points[-1][0]) if points else ""
    return "M" + "L".join(f"{at_x:g} {at_y:g}" for at_x, at_y in points) if points else ""


def _band(evaluations: Floats, curve: Curve, x: Scale, y: Scale) -> str:
    upper = _path(evaluations, curve.high, x, y)
    lower = _path(evaluations[::-1], curve.low[::-1], x, y)
    return f"{upper}L{lower[1:]}Z" if upper else ""


def _apart(lines: Sequence[Line], frame: Frame) -> list[Line]:
    """With labels that do not lie on each other, in the order of the ends."""
    order = sorted(range(len(lines)), key=lambda index: lines[index].end_y)
    at = [lines[index].end_y for index in order]
    for place in range(1, len(at)):
        at[place] = max(at[place], at[place - 1] + _LINE_HEIGHT)
    over = max(0.0, at[-1] - (frame.y0 - 4)) if at else 0.0
    moved = {index: height - over for index, height in zip(order, at, strict=True)}
    for place in range(len(order) - 2, -1, -1):  # what was pushed up may now lie on the next one
        moved[order[place]] = min(moved[order[place]], moved[order[place + 1]] - _LINE_HEIGHT)
    return [
        Line(line.searcher, line.path, line.band, line.label, line.end_y, moved[index])
        for index, line in enumerate(lines)
    ]
