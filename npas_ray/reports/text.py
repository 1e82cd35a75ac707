"""A run's results for a terminal."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from device_farm.measurement.codec import replicated_from_json
from npas_ray.config.words import duration, printable
from npas_ray.journal import Candidate
from npas_ray.reports.fronts import WholeFront, said_cost
from npas_ray.reports.run_data import RunData, accuracy_std, seeds_said
from npas_ray.reports.short import SCHEMES, short
from npas_ray.search.axes import label_of
from npas_ray.search.policy import Status

if TYPE_CHECKING:
    from npas_ray.reports.baselines import Baselines
    from npas_ray.reports.write import ReportPaths


def results(data: RunData, paths: ReportPaths) -> str:
    """The Pareto tables of all device models, and where the report lies."""
    whole = data.whole_front
    volume = None if whole is None else whole.describe()
    ending = [counted(data), volume, believed(data), shipped(data), f"report: {printable(str(paths.html))}"]
    tables = [pareto(data, model) for model in data.models] if whole is None else [front(data, whole)]
    compared = [baselines(data.baselines)] if data.concluded else []
    return "\n\n".join([*tables, *compared, "\n".join(line for line in ending if line)])


def front(data: RunData, whole: WholeFront) -> str:
    """The front over all axes, cheapest on the first axis first."""
    title = f"Pareto front over accuracy, {', '.join(printable(label_of(axis)) for axis in whole.axes)}"
    title += " (emulated)" if data.emulated() else ""
    if not whole.members:
        return f"{title}\n  no candidate was trained within the budgets"
    rows = [("", "#", "accuracy", *(printable(label_of(axis)) for axis in whole.axes), *data.layer_names)]
    for candidate in whole.members:
        costs = [said_cost(axis, whole.cost(candidate, axis) or 0.0) for axis in whole.axes]
        layers = [short(layer) for layer in candidate.architecture.layers]
        star = "*" if candidate == data.best else ""
        rows.append((star, str(candidate.ordinal), _accuracy(candidate), *costs, *layers))
    return "\n".join([title, *_aligned(rows), f"  * compromise; {_legend(whole.members)}"])


def pareto(data: RunData, model: str) -> str:
    """The front on one device model, fastest first."""
    budget_ms = data.budgets_ms.get(model)
    title = f"Pareto front on {printable(model)}{' (emulated)' if data.emulated(model) else ''}"
    title += f", budget {budget_ms:.4g} ms" if budget_ms is not None else ""
    title += f", dense network {data.dense_ms[model]:.4g} ms" if model in data.dense_ms else ""
    members = data.front(model)
    if not members:
        return f"{title}\n  no candidate was trained within the budget"
    rows = [("", "#", "accuracy", "latency ms", "95 % interval", *data.layer_names)]
    rows += [_row(candidate, model, is_best=candidate == data.best) for candidate in members]
    return "\n".join([title, *_aligned(rows), f"  * best; {_legend(members)}"])


def baselines(found: Baselines) -> str:
    """How far the run is ahead of simulated random and local search, or why that cannot be said."""
    if found.why_not is not None:
        return f"Against simpler searches: {found.why_not}"
    rows: list[tuple[str, ...]] = [("ahead of", "after", "points", "95 % of the seeds", "")]
    for gap in found.gaps:
        interval = f"{100 * gap.low:+.1f} to {100 * gap.high:+.1f}"
        verdict = {"ahead": "ahead", "behind": "behind", "even": "cannot be told"}[gap.verdict]
        rows.append((gap.searcher, str(gap.evaluations), f"{100 * gap.mean:+.1f}", interval, verdict))
    return "\n".join([f"Against simpler searches, {found.basis}", *_aligned(rows)])


def counted(data: RunData) -> str:
    """48 candidates: 30 done, 15 over budget, 3 failed"""
    counts = {
        "done": len(data.with_status(Status.DONE)),
        "stopped early": len(data.with_status(Status.STOPPED)),
        "over budget": len(data.with_status(Status.OVER_BUDGET)),
        "failed": len(data.with_status(Status.FAILED)),
        "under way": len(data.with_status(None)),
    }
    said = [f"{count} {what}" for what, count in counts.items() if count]
    return f"{len(data.candidates)} candidates" + (f": {', '.join(said)}" if said else "")


def believed(data: RunData) -> str | None:
    """best: candidate #31, 91.60 % ± 0.52, mean of 5 seeds, the search saw 92.40 %"""
    found = data.best
    spread = None if found is None else accuracy_std(found)
    if found is None or spread is None:
        return None
    accuracy = f"{100 * (found.accuracy or 0):.2f} % ± {100 * spread:.2f}"
    return f"best: candidate #{found.ordinal}, {accuracy}, {seeds_said(found)}"


def shipped(data: RunData) -> str | None:
    """shipped: candidate #31 after 20 epochs, test accuracy 92.30 %, 0.0712 ms on local"""
    final = data.latest_note("final")
    if not isinstance(final.get("test_accuracy"), int | float):
        return None
    latencies = final.get("latency_ms")
    said = [
        f"{ms:.4g} ms{replicated(final, model)} on {printable(model)}"
        for model, ms in (latencies if isinstance(latencies, dict) else {}).items()
    ]
    told = [f"candidate #{final.get('ordinal', '?')} after {final.get('epochs', '?')} epochs"]
    return "shipped: " + ", ".join([*told, f"test accuracy {100 * final['test_accuracy']:.2f} %", *said])


def replicated(final: Mapping[str, Any], model: str) -> str:
    """How well what ships is known there: " +- 2.1 % (3 phones, 6 sessions)"; nothing in runs from before."""
    try:
        latency = replicated_from_json(final["replicated"][model])
    except (KeyError, TypeError, ValueError):
        return ""
    sessions = f"{latency.sessions} session{'s' if latency.sessions > 1 else ''}"
    where = f"{latency.phones} phones" if latency.phones > 1 else "this one device only"
    out = f", {len(latency.left_out)} left out" if latency.left_out else ""
    return f" ± {100 * latency.half_width:.1f} % ({where}, {sessions}{out})"


def best(data: RunData) -> str | None:
    """91.25 % at 0.0712 ms on local"""
    found = data.best
    if found is None or found.accuracy is None:
        return None
    latencies = ", ".join(f"{ms:.4g} ms on {printable(model)}" for model, ms in found.latency_ms.items())
    return f"{found.accuracy:.2%} at {latencies}".replace("%", " %", 1)


def status(data: RunData, *, now: float | None = None) -> str:
    """Where a run stands, in a few lines."""
    now = time.time() if now is None else now
    ago = "" if data.changed_at is None else f", last change {duration(now - data.changed_at)} ago"
    wanted = "?" if data.wanted is None else data.wanted
    rows = {
        "run": f"{printable(data.name)} ({printable(str(data.path))})",
        "state": f"{data.state}{ago}",
        "candidates": f"{len(data.concluded)} of {wanted} concluded; {counted(data)}",
        "best": best(data) or "none yet",
    }
    if data.state == "unfinished":
        rows["continue"] = "npas search CONFIG --resume, with the configuration of the run"
    return "\n".join(f"{name:12}{said}" for name, said in rows.items())


def _row(candidate: Candidate, model: str, *, is_best: bool) -> tuple[str, ...]:
    measurement = candidate.measurements[model]
    accuracy = _accuracy(candidate)
    low, high = measurement.get("ci_low_ms"), measurement.get("ci_high_ms")
    interval = "" if low is None or high is None else f"{low:.4f}..{high:.4f}"
    latency = f"{candidate.latency_ms[model]:.4f}"
    layers = [short(layer) for layer in candidate.architecture.layers]
    return ("*" if is_best else "", str(candidate.ordinal), accuracy, latency, interval, *layers)


def _accuracy(candidate: Candidate) -> str:
    spread = accuracy_std(candidate)
    return f"{100 * (candidate.accuracy or 0):.2f} %" + ("" if spread is None else f" ± {100 * spread:.2f}")


def _legend(members: list[Candidate]) -> str:
    used = {layer.scheme for candidate in members for layer in candidate.architecture.layers}
    schemes = ", ".join(f"{letters} {scheme}" for scheme, letters in SCHEMES.items() if scheme in used and letters)
    return "dw = 3x3dw+1x1, ir = 1x1+3x3dw+1x1, - skip" + (f"; pruned: {schemes}, and the rate" if schemes else "")


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        ("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))).rstrip() for row in rows
    ]
