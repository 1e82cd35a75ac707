"""Geometry of the charts of a whole front: accuracy against size and energy, hypervolume over the search. Pure."""

from __future__ import annotations

from npas_ray.reports.charts import Chart, Frame, Mark, Tick, accuracy_scale, staircase
from npas_ray.reports.fronts import WholeFront
from npas_ray.reports.pareto import front
from npas_ray.reports.run_data import RunData, is_done
from npas_ray.reports.scales import Scale, padded
from npas_ray.search.axes import SIZE


def cost_chart(data: RunData, whole: WholeFront, axis: str, frame: Frame) -> Chart | None:
    """Accuracy against a cost that the architecture decides; None before anything was trained.

    The line is the front of these two alone; members of the whole front may lie under it, as they win elsewhere.
    """
    unit = 1000.0 if axis == SIZE else 1.0
    points = {c.key: (c.accuracy or 0.0, (whole.cost(c, axis) or 0.0) / unit) for c in data.concluded if is_done(c)}
    done = [candidate for candidate in data.concluded if candidate.key in points]
    if not done:
        return None
    costs = [cost for _, cost in points.values()]
    low, high = padded(min(costs), max(costs), least=max(max(costs) * 0.02, 1e-9))
    x, y = Scale(max(low, 0.0), high, frame.x0, frame.x1), accuracy_scale(done, frame)
    kinds = dict.fromkeys((c.key for c in whole.members), "front") | ({data.best.key: "best"} if data.best else {})
    marks = [
        Mark(c, x(points[c.key][1]), y(points[c.key][0]), kinds.get(c.key, "done"))
        for c in sorted(done, key=lambda c: ("done", "front", "best").index(kinds.get(c.key, "done")))
    ]
    best = [(x(cost), y(accuracy)) for accuracy, cost in front(points.values(), lambda point: point)]
    return Chart(
        frame,
        tuple(Tick(x(tick), f"{tick:g}") for tick in x.ticks(8 if frame.width > 500 else 4)),
        tuple(Tick(y(tick), f"{100 * tick:g}") for tick in y.ticks(6)),
        tuple(marks),
        staircase(best, end=frame.x1),
    )


def volume_chart(data: RunData, whole: WholeFront, frame: Frame) -> Chart | None:
    """Hypervolume over the number of conclusions; None before there is any."""
    if not whole.curve:
        return None
    concluded = len(data.concluded)
    x = Scale(0, max(concluded, data.wanted or 0, 2), frame.x0, frame.x1)
    low, high = padded(whole.curve[0][1], whole.curve[-1][1], share=0.1, least=0.01)
    y = Scale(max(low, 0.0), min(high, 1.0), frame.y0, frame.y1)
    steps = [(x(index), y(volume)) for index, volume in whole.curve]
    return Chart(
        frame,
        tuple(Tick(x(tick), f"{tick:g}") for tick in x.ticks(8 if frame.width > 500 else 4) if tick == int(tick)),
        tuple(Tick(y(tick), f"{tick:g}") for tick in y.ticks(6)),
        tuple(
            Mark(data.concluded[index - 1], at_x, at_y, "front")
            for (index, _), (at_x, at_y) in zip(whole.curve, steps, strict=True)
        ),
        staircase(steps, end=x(concluded)),
    )
