"""candidates.csv and pareto.csv as pandas frames."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd

from npas_ray.journal import Candidate
from npas_ray.reports.run_data import RunData, accuracy_std, macs_of
from npas_ray.search.axes import ENERGY, SIZE


def candidates_table(data: RunData) -> pd.DataFrame:
    """One row a candidate, in the order of the proposals. Columns that depend on the run: one set of latency columns
    for each device model, one column for each layer."""
    columns = _columns(data)
    rows = [_row(candidate, data) for candidate in data.candidates]
    return pd.DataFrame(rows, columns=columns).astype({"status": "object"})


def pareto_table(data: RunData) -> pd.DataFrame:
    """One row for each device model and member of its front, fastest first; the columns of `candidates_table` and the
    model in front of them. In mode front the members of the whole front come first, as the model "(all axes)"."""
    whole = [] if data.whole_front is None else data.whole_front.members
    rows = [{"model": "(all axes)"} | _row(candidate, data) for candidate in whole]
    rows += [{"model": _text(m)} | _row(candidate, data) for m in data.models for candidate in data.front(m)]
    return pd.DataFrame(rows, columns=["model", *_columns(data)])


def baselines_table(data: RunData) -> pd.DataFrame:
    """Simulated (see baselines.py): accuracy of the best after so many evaluations, for this run and simpler searches.

    The mean over the seeds, and p10 and p90 with 80 % of them in between. No rows where nothing was simulated.
    """
    found = data.baselines
    curves = {} if found.run is None or found.curves is None else {"run": found.run, **found.curves}
    columns: dict[str, Any] = {"evaluations": list(found.evaluations) if curves else []}
    for name in ("run", "random", "local"):
        for part, attribute in (("mean", "mean"), ("p10", "low"), ("p90", "high")):
            columns[f"{name}_{part}"] = getattr(curves[name], attribute) if curves else []
    return pd.DataFrame(columns)


def to_csv(table: pd.DataFrame) -> str:
    """As text; numbers as they were measured, nothing where nothing is known."""
    return str(table.to_csv(index=False, lineterminator="\n"))


def _columns(data: RunData) -> list[str]:
    latencies = [column for model in data.models for column in _latency_columns(model)]
    fixed = ["ordinal", "key", "status", "reason", "accuracy", "accuracy_std", "seeds", "accuracy_in_search", "epochs"]
    fixed += [_rung_column(epochs) for epochs in _rungs(data)]
    timed = ["macs", "kept_macs", "train_wall_s", "proposed_at", "wall_s"]
    chance = ["p_within_budgets"] if data.budgets_ms else []  # by the intervals of the measurements
    costs = [_COSTS[axis] for axis in data.whole_front.axes if axis in _COSTS] if data.whole_front else []
    return [*fixed, *latencies, *chance, *costs, *timed, *data.layer_names]


_COSTS = {SIZE: "size_bytes", ENERGY: "energy_proxy_uj"}


def _rungs(data: RunData) -> list[int]:
    """Epochs of the rungs of a run with a ladder, rising; empty for one without."""
    rungs = sorted({epochs for candidate in data.candidates for epochs in candidate.rungs})
    return rungs if len(rungs) > 1 else []


def _rung_column(epochs: int) -> str:
    return f"accuracy[{epochs} epochs]"


def _latency_columns(model: str) -> list[str]:
    name = _text(model)
    return [f"latency_ms[{name}]", f"ci_low_ms[{name}]", f"ci_high_ms[{name}]", f"emulated[{name}]"]


def _row(candidate: Candidate, data: RunData) -> dict[str, Any]:
    macs, kept_macs = macs_of(candidate)
    row: dict[str, Any] = {
        "ordinal": candidate.ordinal,
        "key": candidate.key,
        "status": "under-way" if candidate.status is None else str(candidate.status),
        "reason": None if candidate.reason is None else _text(candidate.reason),
        "accuracy": candidate.accuracy,
        "accuracy_std": accuracy_std(candidate),
        "seeds": len(candidate.best_trained),
        "accuracy_in_search": candidate.best_trained[0]["accuracy"] if candidate.best_trained else None,
        "epochs": candidate.epochs,
        "macs": macs,
        "kept_macs": kept_macs,
        "train_wall_s": _total(evaluation.get("wall_s") for evaluation in candidate.evaluations),
        "proposed_at": pd.Timestamp(candidate.proposed_at, unit="s", tz="UTC").isoformat(timespec="milliseconds"),
        "wall_s": None if candidate.concluded_at is None else candidate.concluded_at - candidate.proposed_at,
    }
    row |= {_rung_column(epochs): candidate.rungs.get(epochs) for epochs in _rungs(data)}
    for model, measurement in candidate.measurements.items():
        device = measurement.get("device") or {}
        values = (measurement["latency_ms"], measurement.get("ci_low_ms"), measurement.get("ci_high_ms"))
        row |= dict(zip(_latency_columns(model), (*values, bool(device.get("emulated"))), strict=True))
    if data.budgets_ms and candidate.measurements:
        intervals = {m: (v.get("ci_low_ms"), v.get("ci_high_ms")) for m, v in candidate.measurements.items()}
        known = {m: (low, high) for m, (low, high) in intervals.items() if low is not None and high is not None}
        row["p_within_budgets"] = round(data.objective.probability_feasible(candidate.latency_ms, known), 4)
    if data.whole_front is not None:
        row |= {
            _COSTS[axis]: data.whole_front.cost(candidate, axis) for axis in data.whole_front.axes if axis in _COSTS
        }
    row |= {name: str(layer) for name, layer in zip(data.layer_names, candidate.architecture.layers, strict=False)}
    return row


def _total(values: Iterable[Any]) -> float | None:
    known = [float(value) for value in values if isinstance(value, int | float)]
    return sum(known) if known else None


def _text(text: str) -> str:
    """Text that a spreadsheet does not take for a formula: reasons and model names come from devices."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text
