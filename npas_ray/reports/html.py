"""report.html: one page that needs nothing else, offline. Everything in it is escaped: names come from devices."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from npas_ray.config.words import duration, printable
from npas_ray.journal import Candidate
from npas_ray.reports import baselines_chart, charts, front_charts
from npas_ray.reports.fronts import WholeFront, said_cost, title_of
from npas_ray.reports.run_data import Note, RunData, accuracy_std, macs_of, seeds_said
from npas_ray.reports.short import SCHEMES, short
from npas_ray.reports.text import counted, replicated
from npas_ray.runs.warm_start import WARM_START
from npas_ray.search.axes import label_of, model_of
from npas_ray.search.policy import Status
from npas_ray.space.choices import Operator, Scheme

TEMPLATES = Path(__file__).parent / "templates"
MAX_ROWS = 5000  # of the table; the rest is in candidates.csv
MAX_STRIPS = 12  # candidates whose layers are shown


def render(data: RunData, *, now: float | None = None) -> str:
    """The page as text."""
    best = data.best
    rows = _rows(data)
    gap_rows, gap_zero = baselines_chart.gap_rows(data.baselines)
    js = (TEMPLATES / "report.js").read_text(encoding="utf-8")
    return (
        _environment()
        .get_template("report.html")
        .render(
            css=Markup((TEMPLATES / "report.css").read_text(encoding="utf-8")),
            js=Markup(js),
            # the browser runs this script and no other, and loads nothing: a second wall behind the escaping
            js_hash=base64.b64encode(hashlib.sha256(js.encode()).digest()).decode(),
            data=data,
            made_at=time.time() if now is None else now,
            counted=counted(data),
            best=best,
            cards=_cards(data),
            fronts=[_front(data, model) for model in data.models],
            whole=None if data.whole_front is None else _whole(data, data.whole_front),
            progress=[chart for frame in _FRAMES if (chart := charts.progress_chart(data, frame)) is not None],
            baselines=data.baselines,
            baseline_charts=[
                curves
                for frame in (baselines_chart.WIDE, baselines_chart.NARROW)
                if (curves := baselines_chart.curve_chart(data.baselines, frame)) is not None
            ],
            gap_rows=gap_rows,
            gap_zero=gap_zero,
            gap_width=baselines_chart.GAP_WIDTH,
            strips=_strips(data),
            profile=_profile(best),
            rows=rows,
            macs_known=any(row.kept_macs is not None for row in rows),
            left_out=max(0, len(data.candidates) - MAX_ROWS),
            tips={candidate.ordinal: _tip(candidate, data) for candidate in data.candidates},
            devices=_devices(data),
            conditions=_flat(_first_measurement(best).get("conditions")) if best else {},
            notes=[(note, _note(note)) for note in data.notes],
            config=yaml.safe_dump(json.loads(json.dumps(data.config)), sort_keys=False, allow_unicode=True),
            statistic=_statistic(data),
            all_schemes=SCHEMES,
            short=short,
            classed=_class,
            Status=Status,
            Scheme=Scheme,
        )
    )


_FRAMES = (charts.WIDE, charts.NARROW)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        finalize=_visible,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = lambda share, digits=2: f"{100 * share:.{digits}f} %"
    environment.filters["ms"] = lambda value: f"{value:.4g} ms"
    environment.filters["clock"] = lambda at: time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(at))
    environment.filters["duration"] = duration
    environment.filters["count"] = _short_count
    environment.filters["capitalize_first"] = lambda text: text[:1].upper() + text[1:]
    return environment


def _visible(value: Any) -> Any:
    """Text with its control characters spelled out: names and reasons come from devices."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return "".join(c if c in "\n\t" or c.isprintable() else printable(c) for c in value)


def _short_count(count: int) -> str:
    """1,234 or 1.23 M"""
    return f"{count:,}" if count < 100_000 else f"{count / 1e6:.3g} M"


def _note(note: Note) -> dict[str, str]:
    """Its facts; the configuration of a session is that of the run, which the page shows anyway."""
    if not isinstance(note.data, dict):
        return _flat(note.data)
    if note.kind == WARM_START:  # hundreds of results of other searches: their number will do
        said = note.data.get("said", ())
        return {str(index): str(line).strip() for index, line in enumerate(said, start=1)}
    return _flat({k: v for k, v in note.data.items() if k != "config"})


@dataclass(frozen=True)
class Card:
    """One figure at the head of the page."""

    value: str
    label: str
    detail: str = ""


def _cards(data: RunData) -> list[Card]:
    best, cards = data.best, []
    if best is not None and best.accuracy is not None:
        spread = accuracy_std(best)
        seeds = f"± {100 * spread:.2f}, {seeds_said(best)}, " if spread is not None else ""
        label = "best accuracy" if data.whole_front is None else "accuracy of the compromise"
        cards.append(Card(f"{100 * best.accuracy:.2f} %", label, f"{seeds}candidate #{best.ordinal}"))
        for model, latency_ms in best.latency_ms.items():
            budget_ms = data.budgets_ms.get(model)
            detail = (
                "no budget" if budget_ms is None else f"{latency_ms / budget_ms:.0%} of the budget of {budget_ms:g} ms"
            )
            label = f"its latency on {model}{' (emulated)' if data.emulated(model) else ''}"
            cards.append(Card(f"{latency_ms:.4g} ms", label, detail))
    final = data.latest_note("final")
    if isinstance(final.get("test_accuracy"), int | float):
        epochs = f"after {final['epochs']} epochs" if "epochs" in final else ""
        cards.append(Card(f"{100 * final['test_accuracy']:.2f} %", "shipped network, test set", epochs))
        latencies = final.get("latency_ms")
        for model, ms in (latencies if isinstance(latencies, dict) else {}).items():
            emulated = " (emulated)" if data.emulated(model) else ""
            cards.append(Card(f"{ms:.4g} ms", f"shipped, on {model}{emulated}", replicated(final, model).strip()))
    wanted = f" of {data.wanted}" if data.wanted is not None else ""
    cards.append(Card(f"{len(data.concluded)}{wanted}", "candidates concluded", _pace(data)))
    if data.whole_front is not None:
        detail = f"{len(data.whole_front.members)} on the front over all axes"
        cards.append(Card(f"{data.whole_front.hypervolume:.3f}", "hypervolume", detail))
        return cards
    for model in data.models:
        volume = data.hypervolume(model)
        if volume is not None:
            on = f" on {model}" if len(data.models) > 1 else ""
            detail = f"{len(data.front(model))} on the front; area under it{on} up to {volume[1]:.4g} ms"
            cards.append(Card(f"{volume[0]:.3f}", "hypervolume", detail))
    return cards


def _pace(data: RunData) -> str:
    """From the first proposal to the last conclusion; pauses between sessions are in it."""
    ends = [candidate.concluded_at for candidate in data.concluded if candidate.concluded_at is not None]
    if not ends:
        return ""
    return f"within {duration(max(ends) - min(candidate.proposed_at for candidate in data.candidates))}"


@dataclass(frozen=True)
class Front:
    """The Pareto chart of one device model, once for each width of screen."""

    model: str
    emulated: bool
    budget_ms: float | None
    charts: tuple[charts.Chart, ...]
    clipped: int
    kinds: frozenset[str]


def _front(data: RunData, model: str) -> Front:
    drawn = tuple(chart for frame in _FRAMES if (chart := charts.pareto_chart(data, model, frame)) is not None)
    clipped = sum(mark.clipped for mark in drawn[0].marks) if drawn else 0
    kinds = frozenset(mark.kind for chart in drawn for mark in chart.marks)
    return Front(model, data.emulated(model), data.budgets_ms.get(model), drawn, clipped, kinds)


@dataclass(frozen=True)
class Whole:
    """The front over all axes: what was reached, its members with their costs, and its charts by axis."""

    described: str
    titles: tuple[str, ...]
    members: tuple[tuple[Candidate, float | None, tuple[str, ...]], ...]  # candidate, deviation of accuracy, costs
    volume: tuple[charts.Chart, ...]
    by_axis: tuple[tuple[str, tuple[charts.Chart, ...]], ...]


def _whole(data: RunData, whole: WholeFront) -> Whole:
    members = [
        (c, accuracy_std(c), tuple(said_cost(axis, whole.cost(c, axis) or 0.0) for axis in whole.axes))
        for c in whole.members
    ]
    drawn = [
        (title_of(axis), [front_charts.cost_chart(data, whole, axis, frame) for frame in _FRAMES])
        for axis in whole.axes
        if model_of(axis) is None
    ]
    volume = [front_charts.volume_chart(data, whole, frame) for frame in _FRAMES]
    return Whole(
        whole.describe(),
        tuple(label_of(axis) for axis in whole.axes),
        tuple(members),
        tuple(chart for chart in volume if chart is not None),
        tuple((title, tuple(chart for chart in both if chart is not None)) for title, both in drawn),
    )


@dataclass(frozen=True)
class Strip:
    """What the layers of one candidate became."""

    candidate: Candidate
    is_best: bool


def _strips(data: RunData) -> list[Strip]:
    """The best one, and the fronts' members from the most accurate on."""
    members = {c.key: c for model in data.models for c in data.front(model)}
    members |= {c.key: c for c in (data.whole_front.members if data.whole_front else ())}
    ranked = sorted(members.values(), key=lambda candidate: -(candidate.accuracy or 0.0))[:MAX_STRIPS]
    return [Strip(candidate, candidate == data.best) for candidate in ranked]


def _profile(best: Candidate | None) -> list[tuple[str, float, float]]:
    """(layer, ms, share of the slowest layer) of the best candidate on its first device."""
    steps = _first_measurement(best).get("steps_ms") if best else None
    known = [(str(name), float(ms)) for name, ms in steps] if isinstance(steps, list | tuple) else []
    slowest = max((ms for _, ms in known), default=0.0)
    return [(name, ms, ms / slowest) for name, ms in known] if slowest > 0 else []


def _first_measurement(candidate: Candidate) -> Mapping[str, Any]:
    return next(iter(candidate.measurements.values()), {})


@dataclass(frozen=True)
class Row:
    """One candidate in the table; `latencies` has (latency, low, high) in ms for each device model."""

    candidate: Candidate
    status: str
    std: float | None
    latencies: tuple[tuple[float, float | None, float | None] | None, ...]
    macs: int | None
    kept_macs: int | None
    wall_s: float | None
    on_front: bool


def _rows(data: RunData) -> list[Row]:
    fronts = [data.front(model) for model in data.models]
    on_front = {c.key for members in fronts for c in members}
    if data.whole_front is not None:
        on_front = {c.key for c in data.whole_front.members}
    return [_row(candidate, data, candidate.key in on_front) for candidate in data.candidates[:MAX_ROWS]]


def _row(candidate: Candidate, data: RunData, on_front: bool) -> Row:
    macs, kept_macs = macs_of(candidate)
    measured = (candidate.measurements.get(model) for model in data.models)
    return Row(
        candidate,
        "under-way" if candidate.status is None else str(candidate.status),
        accuracy_std(candidate),
        tuple(None if m is None else (m["latency_ms"], m.get("ci_low_ms"), m.get("ci_high_ms")) for m in measured),
        macs,
        kept_macs,
        None if candidate.concluded_at is None else candidate.concluded_at - candidate.proposed_at,
        on_front,
    )


def _tip(candidate: Candidate, data: RunData) -> list[str]:
    """Lines of a tooltip."""
    spread = accuracy_std(candidate)
    lines = [f"#{candidate.ordinal} · {candidate.status or 'under way'}"]
    if candidate.accuracy is not None:
        seeds = f" ± {100 * spread:.2f}, {seeds_said(candidate)}" if spread is not None else ""
        lines.append(f"{100 * candidate.accuracy:.2f} %{seeds}")
        if len(candidate.rungs) > 1 or candidate.status is Status.STOPPED:
            lines.append(", ".join(f"{100 * a:.2f} % after {e} epochs" for e, a in candidate.rungs.items()))
    for model, measurement in candidate.measurements.items():
        low, high = measurement.get("ci_low_ms"), measurement.get("ci_high_ms")
        interval = f" [{low:.4g}, {high:.4g}]" if low is not None and high is not None else ""
        emulated = " (emulated)" if data.emulated(model) else ""
        lines.append(f"{measurement['latency_ms']:.4g} ms{interval} {model}{emulated}")
    return [*lines, " ".join(short(layer) for layer in candidate.architecture.layers)]


def _devices(data: RunData) -> list[dict[str, str]]:
    """Facts of every device that measured, each device once."""
    found: dict[str, dict[str, str]] = {}
    for candidate in data.candidates:
        for measurement in candidate.measurements.values():
            device = measurement.get("device")
            if isinstance(device, dict):
                found.setdefault(json.dumps([device.get("serial"), device.get("model")]), _flat(device))
    return list(found.values())


def _statistic(data: RunData) -> str:
    """How latencies were taken, as far as the measurements say."""
    best = data.best
    if best is None:
        return ""
    measurement = _first_measurement(best)
    conditions = measurement.get("conditions")
    said = measurement.get("statistic") or (conditions.get("statistic") if isinstance(conditions, dict) else None)
    samples = measurement.get("samples")
    return (
        f"{said or 'the statistic of the measurement protocol'} of the samples of a session"
        + (f" ({samples:,} samples for the best candidate)" if isinstance(samples, int) else "")
        + ", with its 95 % interval; every measured output was compared with the host's reference"
    )


def _class(operator: Operator) -> str:
    """CSS class of an operator."""
    return f"op-{operator.name.lower().replace('_', '-')}"


def _flat(value: Any, path: str = "") -> dict[str, str]:
    """Nested facts as rows of path and text."""
    if isinstance(value, Mapping):
        rows: dict[str, str] = {}
        for key, item in value.items():
            rows |= _flat(item, f"{path}.{key}" if path else str(key))
        return rows
    return {path: _said(value)}


def _said(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "-"}[value]
    if isinstance(value, Iterable) and not isinstance(value, str):
        return ", ".join(_said(item) for item in value)
    return str(value)
