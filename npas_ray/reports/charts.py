"""Geometry of the page's charts: what stands where, in pixels of an SVG. Pure; the template draws it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from npas_ray.journal import Candidate
from npas_ray.reports.run_data import RunData, accuracy_std, is_done
from npas_ray.reports.scales import Scale, padded

LOGARITHMIC_FROM = 20.0  # slowest / fastest
SHOWN_OVER_BUDGET = 1.5  # slower than so many budgets is drawn at the edge


@dataclass(frozen=True)
class Frame:
    """Size of a drawing and of the margins around its plot, pixels."""

    width: int
    height: int
    left: int = 58
    right: int = 18
    top: int = 18
    bottom: int = 58

    @property
    def x0(self) -> int:
        return self.left

    @property
    def x1(self) -> int:
        return self.width - self.right

    @property
    def y0(self) -> int:
        return self.height - self.bottom

    @property
    def y1(self) -> int:
        return self.top


WIDE = Frame(980, 440)
NARROW = Frame(380, 340, left=46, right=12, top=14, bottom=52)


@dataclass(frozen=True)
class Tick:
    at: float
    label: str


@dataclass(frozen=True)
class Mark:
    """One candidate in a chart."""

    candidate: Candidate
    x: float
    y: float
    kind: str  # front, done, best, stopped, over-budget, failed
    clipped: bool = False  # it lies further to the right than the chart reaches
    x_low: float | None = None  # error bars
    x_high: float | None = None
    y_low: float | None = None
    y_high: float | None = None


@dataclass(frozen=True)
class Chart:
    frame: Frame
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    marks: tuple[Mark, ...]
    line: str  # path of the front, or of the best so far
    budget_x: float | None = None
    logarithmic: bool = False


def pareto_chart(data: RunData, model: str, frame: Frame) -> Chart | None:
    """Accuracy against latency on one device model; None if nothing was measured there.

    Candidates over budget have no accuracy: they stand as ticks on the floor.
    """
    measured = [candidate for candidate in data.concluded if model in candidate.measurements]
    if not measured:
        return None
    done = [candidate for candidate in measured if is_done(candidate)]
    x = _latency_scale(data, model, measured, done, frame)
    y = accuracy_scale(done, frame)
    members = data.front(model)
    kinds = dict.fromkeys((c.key for c in members), "front") | ({data.best.key: "best"} if data.best else {})
    marks = []
    for candidate in measured:
        latency_ms = candidate.latency_ms[model]
        if not is_done(candidate):
            marks.append(Mark(candidate, x(latency_ms), frame.y0, str(candidate.status), latency_ms > x.high))
            continue
        measurement, spread = candidate.measurements[model], accuracy_std(candidate)
        accuracy = candidate.accuracy or 0.0
        low, high = measurement.get("ci_low_ms"), measurement.get("ci_high_ms")
        mark = Mark(
            candidate,
            x(latency_ms),
            y(accuracy),
            kinds.get(candidate.key, "done"),
            latency_ms > x.high,
            x_low=None if low is None else x(low),
            x_high=None if high is None else x(high),
            y_low=None if spread is None else y(accuracy - spread),
            y_high=None if spread is None else y(accuracy + spread),
        )
        marks.append(mark)
    marks.sort(
        key=lambda mark: ("over-budget", "failed", "stopped", "done", "front", "best").index(mark.kind)
    )  # drawn last: on top
    budget_ms = data.budgets_ms.get(model)
    budget_x = None if budget_ms is None or not x.low <= budget_ms <= x.high else x(budget_ms)
    return Chart(
        frame,
        tuple(Tick(x(tick), f"{tick:g}") for tick in x.ticks(8 if frame.width > 500 else 4)),
        tuple(Tick(y(tick), f"{100 * tick:g}") for tick in y.ticks(6)),
        tuple(marks),
        staircase([(x(c.latency_ms[model]), y(c.accuracy or 0.0)) for c in members], end=budget_x or frame.x1),
        budget_x,
        x.logarithmic,
    )


def progress_chart(data: RunData, frame: Frame) -> Chart | None:
    """Accuracy of the candidates in the order of their conclusions, and the best so far; None before the first."""
    concluded = data.concluded
    if not concluded:
        return None
    done = [candidate for candidate in concluded if is_done(candidate)]
    x = Scale(0, max(len(concluded), data.wanted or 0, 2), frame.x0, frame.x1)
    y = accuracy_scale(done, frame)
    marks: list[Mark] = []
    steps: list[tuple[float, float]] = []
    best = -1.0
    for index, candidate in enumerate(concluded, start=1):
        if not is_done(candidate):
            marks.append(Mark(candidate, x(index), frame.y0, str(candidate.status)))
            continue
        accuracy = candidate.accuracy or 0.0
        marks.append(Mark(candidate, x(index), y(accuracy), "front" if accuracy > best else "done"))
        if accuracy > best:
            best = accuracy
            steps.append((x(index), y(best)))
    return Chart(
        frame,
        tuple(Tick(x(tick), f"{tick:g}") for tick in x.ticks(8 if frame.width > 500 else 4) if tick == int(tick)),
        tuple(Tick(y(tick), f"{100 * tick:g}") for tick in y.ticks(6)),
        tuple(marks),
        staircase(steps, end=x(len(concluded))),
    )


def _latency_scale(
    data: RunData, model: str, measured: Sequence[Candidate], done: Sequence[Candidate], frame: Frame
) -> Scale:
    """From the fastest to the slowest; what is far over the budget is cut off, and so is a budget far away."""
    latencies = [candidate.latency_ms[model] for candidate in measured]
    budget_ms = data.budgets_ms.get(model)
    low, high = min(latencies), max(latencies)
    if budget_ms is not None and done:
        slowest_done = max(candidate.latency_ms[model] for candidate in done)
        high = max(min(high, budget_ms * SHOWN_OVER_BUDGET), slowest_done)
    if budget_ms is not None and budget_ms < 2 * high:
        low, high = min(low, budget_ms), max(high, budget_ms)
    if low > 0 and high / low > LOGARITHMIC_FROM:
        return Scale(low / 1.15, high * 1.15, frame.x0, frame.x1, logarithmic=True)
    low, high = padded(low, high, least=max(high * 0.02, 1e-9))
    return Scale(max(low, 0.0), high, frame.x0, frame.x1)


def accuracy_scale(done: Sequence[Candidate], frame: Frame) -> Scale:
    accuracies = [candidate.accuracy or 0.0 for candidate in done] or [0.0, 1.0]
    low, high = padded(min(accuracies), max(accuracies), share=0.1, least=0.01)
    return Scale(max(low, 0.0), min(high, 1.0), frame.y0, frame.y1)


def staircase(points: Sequence[tuple[float, float]], *, end: float) -> str:
    """An SVG path: each point holds until the next one, the last one to `end`."""
    if not points:
        return ""
    path = [f"M{points[0][0]:g} {points[0][1]:g}"]
    for x, y in points[1:]:
        path.append(f"H{x:g}V{y:g}")
    return "".join([*path, f"H{max(end, points[-1][0]):g}"])
