"""Are the simulated baselines of a report right? Held against the truth where it is known, and other surrogates.

    python benchmarks/honesty.py [--seeds N] [--evaluations N] [--policy NAME ...] [--runs RUN_DIR ...] [--json FILE]

On analytic landscapes a policy searches, a surrogate is fitted to its results as in a report, and the gaps that random
and local search are simulated to have are compared with the gaps that they really have there (24 seeds each): with
tasks drawn from the surrogate, as reports do it, and with the surrogate's best guess. With --runs: how well the linear
surrogate, the searcher's own model and trees foretell held-out results of real runs (ten-fold cross-validation).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks._landscapes import CHANCE, MODEL, Analytic, Landscape
from npas_ray.config import SearchConfig
from npas_ray.networks.backbone import DIGITS
from npas_ray.reports.baselines import Squash, simulate
from npas_ray.reports.linear_surrogate import ChoiceFeatures, LinearSurrogate, cross_validated
from npas_ray.reports.run_data import read_run
from npas_ray.reports.simulated_search import Task, local_search, random_search, steps_of
from npas_ray.runs.setting import make_space
from npas_ray.search.accuracy_surrogate import AccuracySurrogate
from npas_ray.search.capacity import Capacity
from npas_ray.search.encoding import Encoding, IntArray
from npas_ray.search.latency_surrogate import CostFeatures
from npas_ray.search.policy import Observation
from npas_ray.search.registry import make_policy
from npas_ray.space.search_space import SearchSpace

Floats = NDArray[np.float64]
SPACE = SearchSpace(DIGITS)
SEARCHERS = {"random": random_search, "local": local_search}
HOWS = ("truth", "drawn", "best guess")
DRAWS = 24


def searched(here: Landscape, name: str, seed: int, evaluations: int) -> list[Observation]:
    policy, rng = make_policy(name, here.space, here.objective, seed=seed), np.random.default_rng([99, seed])
    found: list[Observation] = []
    while len(found) < evaluations and (batch := policy.propose(min(5, evaluations - len(found)))):
        results = [here.evaluate(architecture, rng) for architecture in batch]
        policy.observe(results)
        found += results
    return found


def gaps(here: Landscape, results: list[Observation], seed: int) -> dict[str, dict[str, Floats]] | None:
    """Points that the choice of a search is ahead, `[DRAWS]`, by how it is known and by searcher."""
    done = [result for result in results if result.accuracy is not None]
    if len(done) < 15:
        return None
    encoding = here.encoding
    rows = encoding.encode(result.architecture for result in done)
    accuracies = np.array([result.accuracy for result in done], dtype=np.float64)
    all_rows = encoding.encode(result.architecture for result in results)
    latency_ms = np.array([result.latency_ms[MODEL] for result in results])
    squash, features = Squash(CHANCE), ChoiceFeatures(encoding)
    surrogate = LinearSurrogate.fit(features, rows, squash(accuracies), whole=features.whole)
    times = LinearSurrogate.fit(
        CostFeatures(encoding, here.space.backbone), all_rows, latency_ms, details=(0.05, 0.2, 0.6)
    )
    time_of = times.function(times.mean, encoding.sizes)
    best, steps = rows[accuracies.argmax()][None], steps_of(encoding)

    def task(value: Callable[[IntArray], Floats], latency: Callable[[IntArray], Floats]) -> Task:
        def judge(some: IntArray) -> tuple[Floats, Floats]:
            return value(some), np.maximum(0.0, latency(some) / here.budget_ms - 1)

        return Task(encoding, judge, here.accuracy_noise, CHANCE, 1.0, steps)

    found: dict[str, dict[str, list[float]]] = {how: {name: [] for name in SEARCHERS} for how in HOWS}
    for draw in range(DRAWS):
        drawn = surrogate.function(surrogate.draw(np.random.default_rng([seed, draw])), encoding.sizes)
        guess = surrogate.function(surrogate.mean, encoding.sizes)
        tasks = {
            "truth": task(here.accuracy, here.latency_ms),
            "drawn": task(lambda some, f=drawn: squash.back(f(some)), time_of),  # type: ignore[misc]
            "best guess": task(lambda some, f=guess: squash.back(f(some)), time_of),  # type: ignore[misc]
        }
        for how, known in tasks.items():
            own = float(known.judge(best)[0][0])
            for name, search in SEARCHERS.items():
                end = search(known, len(results), np.random.default_rng([seed, draw, 1]))[-1]
                found[how][name].append(100 * (own - (CHANCE if np.isnan(end) else float(end))))
    return {how: {name: np.array(values) for name, values in of.items()} for how, of in found.items()}


def against_the_truth(name: str, seeds: int, evaluations: int) -> dict[str, Any]:
    kept: list[dict[str, dict[str, Floats]]] = []
    for seed in range(seeds):
        here = Analytic(SPACE, seed=seed)
        found = gaps(here, searched(here, name, seed, evaluations), seed)
        if found is not None:
            kept.append(found)
    rows: dict[str, Any] = {"landscapes": len(kept)}
    print(f"\n{name}, {evaluations} evaluations, {len(kept)} of {seeds} landscapes with at least 15 trained candidates")
    print(
        f"{'ahead of':10}{'truth':>8}{'drawn':>8}{'guess':>8}{'off: drawn':>12}{'off: guess':>12}{'truth within':>14}"
    )
    for searcher in SEARCHERS:
        mean = {how: np.array([found[how][searcher].mean() for found in kept]) for how in HOWS}
        off = {how: float(np.abs(mean[how] - mean["truth"]).mean()) for how in HOWS[1:]}
        within = sum(
            bool(np.quantile(f["drawn"][searcher], 0.025) <= f["truth"][searcher].mean())
            and bool(f["truth"][searcher].mean() <= np.quantile(f["drawn"][searcher], 0.975))
            for f in kept
        )
        print(
            f"{searcher:10}{mean['truth'].mean():8.1f}{mean['drawn'].mean():8.1f}{mean['best guess'].mean():8.1f}"
            f"{off['drawn']:12.1f}{off['best guess']:12.1f}{within:8} of {len(kept)}",
            flush=True,
        )
        rows[searcher] = {"gap_points": {how: v.tolist() for how, v in mean.items()}, "truth_within": within}
    return rows


def surrogates(run_dir: Path) -> dict[str, float]:
    """Rank correlation of held-out predictions with the results of a run, by surrogate."""
    from sklearn.ensemble import ExtraTreesRegressor

    data = read_run(run_dir)
    config = SearchConfig.from_json(dict(data.config))
    space = make_space(config)
    encoding = Encoding(space)
    done = [candidate for candidate in data.done if candidate.architecture in space]
    rows = encoding.encode(candidate.architecture for candidate in done)
    y = np.array([candidate.accuracy or 0.0 for candidate in done])
    squash, features = Squash(CHANCE), ChoiceFeatures(encoding)
    linear = cross_validated(features, rows, squash(y), sizes=encoding.sizes, whole=features.whole)
    own, trees = np.empty(len(y)), np.empty(len(y))
    fold = np.arange(len(y)) % 10
    for index in range(10):
        held, kept = fold == index, fold != index
        surrogate = AccuracySurrogate(encoding, Capacity(encoding, space.backbone), max_results=2000)
        for row, accuracy in zip(rows[kept], y[kept], strict=True):
            surrogate.learn(row, float(accuracy), complete=True, rungs={})
        own[held] = surrogate.belief().predict(rows[held])[0]
        forest = ExtraTreesRegressor(200, min_samples_leaf=2, random_state=0).fit(features(rows[kept], 1.0), y[kept])
        trees[held] = forest.predict(features(rows[held], 1.0))
    found = {"linear": linear, "the searcher's own": own, "trees": trees}
    ranks = {name: float(spearmanr(predicted, y).statistic) for name, predicted in found.items()}
    said = "  ".join(f"{name} {rank:.2f}" for name, rank in ranks.items())
    print(f"{run_dir}: {len(done)} trained; rank correlation {said}; {simulate(data).headline}")
    return ranks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--evaluations", type=int, default=48)
    parser.add_argument("--policy", nargs="+", default=["npas", "local"])
    parser.add_argument("--runs", nargs="*", type=Path, default=[])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    report: dict[str, Any] = {"seeds": arguments.seeds, "evaluations": arguments.evaluations}
    report["surrogates"] = {str(run): surrogates(run) for run in arguments.runs}
    for name in arguments.policy if arguments.seeds else ():
        report.setdefault("policies", {})[name] = against_the_truth(name, arguments.seeds, arguments.evaluations)
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
