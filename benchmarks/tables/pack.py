"""Makes the committed tables of what was trained and measured, and says how good their surrogates are.

python -m benchmarks.tables.pack WORK [--space digits ...]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr

from benchmarks._harness import machine
from benchmarks.tables.features import Features, Floats
from benchmarks.tables.measure import PROTOCOL
from benchmarks.tables.spaces import SPACES
from benchmarks.tables.surrogate import Surrogate, fit_accuracy, fit_latency, logit
from benchmarks.tables.table import EPOCHS, FOLDER, Noise, Table, save
from benchmarks.tables.train import read_lines
from device_farm.compiler import host_target
from device_farm.compiler.version import compiler_version
from npas_ray.search.encoding import IntArray
from npas_ray.space.choices import Architecture

FOLDS = 5
Key = tuple[str, ...]


def read_latencies(work: Path, name: str) -> tuple[dict[Key, float], float, int]:
    """Of every architecture the mean of its quiet sessions, else of all; what quiet sessions differ by; not quiet."""
    sessions: dict[Key, list[tuple[float, bool]]] = {}
    for line in read_lines(work / "measured.jsonl"):
        if line["space"] == name and "latency_ms" in line:
            sessions.setdefault(tuple(line["layers"]), []).append((line["latency_ms"], line["quiet"]))
    known, ratios, noisy = {}, [], 0
    for key, taken in sessions.items():
        quiet = [latency_ms for latency_ms, calm in taken if calm]
        noisy += not quiet
        known[key] = float(np.mean(quiet or [latency_ms for latency_ms, _ in taken]))
        ratios += [np.log(quiet[1] / quiet[0])] if len(quiet) > 1 else []
    return known, float(np.std(ratios) / np.sqrt(2)) if ratios else 0.0, noisy


def cross_validated(
    rows: IntArray, values: Floats, fit: Callable[[IntArray, Floats], Callable[[IntArray], Floats]]
) -> Floats:
    """Answers `[n]` of surrogates that did not see the value."""
    fold = np.random.default_rng(0).permutation(len(values)) % FOLDS
    out = np.empty(len(values))
    for k in range(FOLDS):
        out[fold == k] = fit(rows[fold != k], values[fold != k])(rows[fold == k])
    return out


def seeds_deviation(evaluations: Floats) -> float:
    """Standard deviation of one training, in logits, from architectures `[n, seeds]` with several."""
    several = evaluations[np.isfinite(evaluations).sum(axis=1) > 1]
    values = logit(several)
    freedom = np.isfinite(several).sum() - len(several)
    centred = values - np.nanmean(values, axis=1, keepdims=True)
    return float(np.sqrt(np.nansum(np.where(np.isfinite(several), centred, 0) ** 2) / max(1, freedom)))


def read_plan(path: Path) -> tuple[str, list[Key]]:
    """The space and the architectures of a file of the plan."""
    lines = list(read_lines(path))
    return lines[0]["space"], list(dict.fromkeys(tuple(line["layers"]) for line in lines))


def pack(work: Path, name: str, *, without: Collection[Key] = ()) -> tuple[Table, dict[str, Any]]:
    """The table and what is known about it, as if those of `without` had never been evaluated."""
    latencies, latency_noise, noisy = read_latencies(work, name)
    latencies = {key: latency_ms for key, latency_ms in latencies.items() if key not in without}
    trained: dict[Key, dict[tuple[int, int], float]] = {}
    cpu_s: dict[int, list[float]] = {}
    for line in read_lines(work / "trained.jsonl"):
        if line["space"] == name and tuple(line["layers"]) not in without:
            trained.setdefault(tuple(line["layers"]), {})[line["epochs"], line["seed"]] = line["accuracy"]
            cpu_s.setdefault(line["epochs"], []).append(line["cpu_s"])
    keys = sorted(set(trained) | set(latencies))
    columns = tuple(sorted({column for found in trained.values() for column in found}))
    features = Features(SPACES[name].space)
    rows = features.encoding.encode(Architecture.from_json(list(key)) for key in keys)
    evaluations = np.array([[trained.get(key, {}).get(column, np.nan) for column in columns] for key in keys])
    latency_ms = np.array([latencies.get(key, np.nan) for key in keys])
    ours = evaluations[:, [epochs == EPOCHS for epochs, _ in columns]]
    counts = np.isfinite(ours).sum(axis=1)
    has = counts > 0
    mean = np.nansum(ours, axis=1)[has] / counts[has]
    measured = np.isfinite(latency_ms)

    def accuracies(rows: IntArray, values: Floats) -> Callable[[IntArray], Floats]:
        fitted = fit_accuracy(features, rows, values, np.ones(len(values)))
        return lambda others: fitted(features, others)

    def times(rows: IntArray, values: Floats) -> Callable[[IntArray], Floats]:
        fitted = fit_latency(features, rows, values)
        return lambda others: fitted(features, others)

    guessed = cross_validated(rows[has], mean, accuracies)
    guessed_ms = cross_validated(rows[measured], latency_ms[measured], times)
    luck = seeds_deviation(ours) or 0.1
    error = float(np.sqrt(np.mean((logit(guessed) - logit(mean)) ** 2)))
    own = np.sqrt(max(error**2 - luck**2, (0.3 * luck) ** 2))
    table = Table(
        name=name,
        space=SPACES[name].space,
        rows=rows,
        columns=columns,
        evaluations=evaluations,
        latency_ms=latency_ms,
        accuracy_surrogate=_rounded(fit_accuracy(features, rows[has], mean, counts[has].astype(np.float64))),
        latency_surrogate=_rounded(fit_latency(features, rows[measured], latency_ms[measured])),
        noise=Noise(evaluation=luck, surrogate=float(own), latency=latency_noise),
    )
    best = mean >= np.quantile(mean, 0.75)
    wrong = np.abs(guessed_ms / latency_ms[measured] - 1)
    facts = {
        "architectures": len(keys),
        "trained": {
            f"{epochs} epochs, seed {seed}": int(np.isfinite(evaluations[:, place]).sum())
            for place, (epochs, seed) in enumerate(columns)
        },
        "cpu_s_a_training": {f"{epochs} epochs": float(np.mean(s)) for epochs, s in sorted(cpu_s.items())},
        "measured": int(measured.sum()),
        "measured_on_a_shared_core": noisy,
        "accuracy": _quantiles(mean),
        "latency_ms": _quantiles(latency_ms[measured]),
        "cross_validated": {
            "accuracy_spearman": float(spearmanr(guessed, mean).statistic),
            "accuracy_spearman_best_quarter": float(spearmanr(guessed[best], mean[best]).statistic),
            "accuracy_rmse": float(np.sqrt(np.mean((guessed - mean) ** 2))),
            "accuracy_rmse_best_quarter": float(np.sqrt(np.mean((guessed[best] - mean[best]) ** 2))),
            "accuracy_luck_of_one_training": _luck(ours),
            "latency_spearman": float(spearmanr(guessed_ms, latency_ms[measured]).statistic),
            "latency_median_error": float(np.median(wrong)),
            "latency_p95_error": float(np.quantile(wrong, 0.95)),
        },
        "target": host_target().name,
        "compiler": compiler_version(),
        "protocol": PROTOCOL.key,
        "made_by": "python -m benchmarks.tables.{choose,train,measure,pack} (see benchmarks/tables/README.md)",
        "machine": machine(),
    }  # fmt: skip
    return table, facts


def _quantiles(values: Floats) -> dict[str, float]:
    named = {"min": 0.0, "p10": 0.1, "median": 0.5, "p90": 0.9, "max": 1.0}
    return {name: float(np.quantile(values, share)) for name, share in named.items()}


def _luck(evaluations: Floats) -> float:
    """Standard deviation of one training's accuracy, as it is."""
    several = evaluations[np.isfinite(evaluations).sum(axis=1) > 1]
    if not len(several):
        return float("nan")
    freedom = np.isfinite(several).sum() - len(several)
    return float(np.sqrt(np.nansum((several - np.nanmean(several, axis=1, keepdims=True)) ** 2) / freedom))


def _rounded(surrogate: Surrogate) -> Surrogate:
    """As it comes back from the file."""
    return Surrogate.from_arrays(surrogate.arrays(""), "")


def show(name: str, facts: Mapping[str, Any]) -> None:
    print(f"\n{name}: {facts['architectures']} architectures, {facts['measured']} measured; {facts['trained']}")
    for what in ("accuracy", "latency_ms", "cross_validated"):
        print(f"  {what}: " + ", ".join(f"{key} {value:.4g}" for key, value in facts[what].items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--space", nargs="+", choices=SPACES, default=list(SPACES))
    parser.add_argument("--out", type=Path, default=FOLDER)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name in arguments.space:
        table, facts = pack(arguments.work, name)
        save(table, facts, arguments.out)
        show(name, facts)


if __name__ == "__main__":
    main()
