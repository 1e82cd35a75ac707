"""Would a simpler search have done as well? Random and local search, simulated on a surrogate of a run's own results.

Nothing here was measured: accuracies and latencies of candidates that the run never tried are what surrogates say that
were fitted to the results of this very run. So every seed draws another task that those results do not contradict, and
on that task random search, local search and the run's own choice are compared; how far the gaps differ from seed to
seed is their interval. Where the surrogate cannot rank the run's own results, nothing is shown but why.

The run has no advantage in this: its curve is not what it measured, but what the same drawn task says of its choices;
baselines get whole trainings where the run had a ladder of them, no candidate of theirs fails, and surrogates know
little about what the run avoided, which makes it look better than it is. docs/reports.md has what the simulation is
worth where the truth is known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from npas_ray.config import SearchConfig
from npas_ray.errors import NpasError
from npas_ray.journal import Candidate
from npas_ray.reports.linear_surrogate import ChoiceFeatures, LinearSurrogate, cross_validated
from npas_ray.reports.run_data import RunData, is_done
from npas_ray.reports.simulated_search import Task, local_search, random_search, steps_of
from npas_ray.runs.setting import backbone_of, make_space
from npas_ray.search.encoding import Encoding, IntArray
from npas_ray.search.latency_surrogate import CostFeatures

Floats = NDArray[np.float64]

#: fewer trained candidates than that say nothing of a space
MIN_TRAINED = 15
#: rank correlation of cross-validated predictions with results, below which the surrogate means nothing
MIN_RANK = 0.3
#: seeds, fewer where a run is long: about so many evaluations are simulated in all for each searcher
SEEDS, _EVALUATIONS = 64, 100_000
#: of a curve of any length
_POINTS = 200
#: prior deviations of the details of latencies, as `LearnedLatency` has them
_LATENCY_DETAILS = (0.05, 0.2, 0.6)
_SEARCHERS = {"random": random_search, "local": local_search}


@dataclass(frozen=True)
class Curve:
    """Accuracy of the best so far, over seeds, at some numbers of evaluations; NaN before any seed has one."""

    mean: Floats  # [points]
    low: Floats  # 10th percentile
    high: Floats  # 90th


@dataclass(frozen=True)
class Gap:
    """By how much the run is ahead of a baseline after so many evaluations, a difference of accuracies (fractions)."""

    searcher: str
    evaluations: int
    mean: float
    low: float  # 95 % of the seeds are in low..high
    high: float

    @property
    def verdict(self) -> str:
        """ahead, behind, or even where the interval includes 0."""
        return "ahead" if self.low > 0 else "behind" if self.high < 0 else "even"

    def __str__(self) -> str:
        side = "ahead of" if self.mean >= 0 else "behind"
        interval = f"{100 * self.low:+.1f} to {100 * self.high:+.1f}"
        return f"{100 * abs(self.mean):.1f} points {side} {self.searcher} search ({interval})"


@dataclass(frozen=True)
class Fit:
    """How well the surrogates foretell results that they have not seen (ten-fold cross-validation)."""

    trained: int
    rank: float  # Spearman's, of accuracies
    error: float  # root mean square, of accuracies (a fraction)
    latency_error: Mapping[str, float]  # by device model with a budget: median relative error
    noise: float  # of one evaluation: its standard deviation (a fraction)
    noise_source: str  # "measured" from candidates that several seeds evaluated, or "fitted"


@dataclass(frozen=True)
class Baselines:
    """What the simulation found; without `curves` for the reason in `why_not`."""

    why_not: str | None
    fit: Fit | None = None
    seeds: int = 0
    evaluations: tuple[int, ...] = ()  # where the curves are known: 1 .. all that the run concluded
    run: Curve | None = None
    curves: Mapping[str, Curve] | None = None  # by searcher
    gaps: tuple[Gap, ...] = ()

    @property
    def basis(self) -> str:
        """What all of this rests on, in words."""
        if self.fit is None:
            return ""
        errors = [f"{model} ±{100 * error:.1f} %" for model, error in self.fit.latency_error.items()]
        return (
            f"simulated on a surrogate of this run's {self.fit.trained} trained candidates; cross-validated, it ranks"
            f" them with a correlation of {self.fit.rank:.2f} and is off by {100 * self.fit.error:.1f} points"
            + (f", latency on {', '.join(errors)}" if errors else "")
        )

    @property
    def headline(self) -> str:
        """The gaps at the end in a sentence."""
        last = [gap for gap in self.gaps if gap.evaluations == self.evaluations[-1]]
        if not last:
            return ""
        even = [f"{gap.searcher} search" for gap in last if gap.verdict == "even"]
        doubt = f"; from {' and '.join(even)} it cannot be told apart" if even else ""
        return f"After {self.evaluations[-1]} evaluations this run is {' and '.join(map(str, last))}{doubt}"

    def to_json(self) -> dict[str, Any]:
        """Plain data; no curves, which are in baselines.csv."""
        return {
            "why_not": self.why_not,
            "basis": self.basis or None,
            "seeds": self.seeds,
            "fit": None if self.fit is None else {**vars(self.fit), "latency_error": dict(self.fit.latency_error)},
            "gaps": [{**vars(gap), "verdict": gap.verdict} for gap in self.gaps],
        }


def simulate(data: RunData, *, seeds: int | None = None) -> Baselines:
    """The comparison for a run, from its journal alone. Deterministic; seconds at most."""
    try:
        config = SearchConfig.from_json(dict(data.config))
        space = make_space(config)
    except (NpasError, ValueError) as error:
        return Baselines(f"its space is not known here: {str(error).splitlines()[0]}")
    if config.objective.mode != "best":
        return Baselines("it looked for a whole front, and only searches for one best candidate are simulated")
    encoding = Encoding(space)
    concluded = [candidate for candidate in data.concluded if candidate.architecture in space]
    trained = [candidate for candidate in concluded if is_done(candidate)]
    if len(trained) < MIN_TRAINED:
        return Baselines(f"{len(trained)} candidates were trained, and at least {MIN_TRAINED} are needed to fit one")
    rows = encoding.encode(candidate.architecture for candidate in trained)
    accuracies = np.array([candidate.accuracy or 0.0 for candidate in trained])
    chance = 1 / backbone_of(config).classes
    squash = Squash(chance)
    features = ChoiceFeatures(encoding)
    predicted = squash.back(
        cross_validated(features, rows, squash(accuracies), sizes=encoding.sizes, whole=features.whole)
    )
    if np.ptp(accuracies) < 1e-9:
        return Baselines("all candidates are equally accurate")
    surrogate = LinearSurrogate.fit(features, rows, squash(accuracies), whole=features.whole)
    noise, source = _noise(trained, fitted=surrogate.noise * squash.slope(accuracies))
    excess, latency_error = _excess(data, config, encoding, concluded)
    fit = Fit(
        len(trained),
        _rank(predicted, accuracies),
        float(np.sqrt(np.mean((predicted - accuracies) ** 2))),
        latency_error,
        noise,
        source,
    )
    if not fit.rank >= MIN_RANK:
        return Baselines(
            f"cross-validated, the surrogate ranks the run's own {len(trained)} results with a correlation of"
            f" {fit.rank:.2f}, and below {MIN_RANK:g} a curve would mean nothing",
            fit,
        )
    total = len(data.concluded)
    points = _points(total)
    seeds = seeds or int(np.clip(_EVALUATIONS // total, 12, SEEDS))
    incumbents, which = _incumbents(data.concluded, encoding)
    steps = steps_of(encoding)
    curves: dict[str, list[Floats]] = {"run": [], **{name: [] for name in _SEARCHERS}}
    for seed in range(seeds):
        value = surrogate.function(surrogate.draw(np.random.default_rng([config.seed, seed])), encoding.sizes)

        def judge(some: IntArray, value: Callable[[IntArray], Floats] = value) -> tuple[Floats, Floats]:
            return squash.back(value(some)), excess(some)

        task = Task(encoding, judge, noise, chance, config.objective.alpha, steps)
        known = np.concatenate([[np.nan], squash.back(value(incumbents))])  # the first stands for none
        curves["run"].append(known[which][points - 1])
        for name, search in _SEARCHERS.items():
            # the same evaluations of random search as of the start of local search: their gaps differ less
            curves[name].append(search(task, total, np.random.default_rng([config.seed, seed, 1]))[points - 1])
    found = {name: np.stack(of_seeds) for name, of_seeds in curves.items()}  # seeds x points
    return Baselines(
        None,
        fit,
        seeds,
        tuple(points.tolist()),
        _curve(found["run"]),
        {name: _curve(found[name]) for name in _SEARCHERS},
        _gaps(found, points, chance),
    )


class Squash:
    """Accuracies in (chance, 1) as numbers on which effects add up, and back: the logistic function."""

    def __init__(self, chance: float) -> None:
        self._chance = chance

    def __call__(self, accuracies: Floats) -> Floats:
        share = np.clip((accuracies - self._chance) / (1 - self._chance), 0.01, 0.99)
        return np.asarray(np.log(share / (1 - share)))

    def slope(self, accuracies: Floats) -> float:
        """Accuracy for each unit, at the median."""
        share = (float(np.median(accuracies)) - self._chance) / (1 - self._chance)
        return (1 - self._chance) * max(share * (1 - share), 0.01)

    def back(self, values: Floats) -> Floats:
        return np.asarray(self._chance + (1 - self._chance) / (1 + np.exp(-np.clip(values, -30, 30))))


def _rank(predicted: Floats, results: Floats) -> float:
    if np.ptp(predicted) < 1e-12:
        return 0.0
    return float(spearmanr(predicted, results).statistic)


def _noise(trained: Sequence[Candidate], *, fitted: float) -> tuple[float, str]:
    """Standard deviation of one evaluation: from candidates with several seeds, else what the fit takes for noise."""
    groups = [[float(e["accuracy"]) for e in candidate.evaluations] for candidate in trained]
    squares = sum(float(np.var(group, ddof=1)) * (len(group) - 1) for group in groups if len(group) > 1)
    freedom = sum(len(group) - 1 for group in groups)
    if freedom >= 3:
        return float(np.sqrt(squares / freedom)), "measured"
    return fitted, "fitted"


def _excess(
    data: RunData, config: SearchConfig, encoding: Encoding, concluded: Sequence[Candidate]
) -> tuple[Callable[[IntArray], Floats], dict[str, float]]:
    """By how much rows `[m, L]` exceed the budgets `[m]`, and the median error of each model's latencies."""
    features = CostFeatures(encoding, backbone_of(config))
    parts: list[tuple[float, Callable[[IntArray], Floats]]] = []
    errors: dict[str, float] = {}
    for model, budget_ms in data.budgets_ms.items():
        measured = [candidate for candidate in concluded if model in candidate.measurements]
        if len(measured) < 2:
            continue
        rows = encoding.encode(candidate.architecture for candidate in measured)
        latency_ms = np.array([candidate.latency_ms[model] for candidate in measured])
        predicted = cross_validated(features, rows, latency_ms, sizes=encoding.sizes, details=_LATENCY_DETAILS)
        errors[model] = float(np.median(np.abs(predicted / latency_ms - 1)))
        fitted = LinearSurrogate.fit(features, rows, latency_ms, details=_LATENCY_DETAILS)
        parts.append((budget_ms, fitted.function(fitted.mean, encoding.sizes)))

    def excess(rows: IntArray) -> Floats:
        total = np.zeros(len(rows))
        for budget_ms, latency in parts:
            total += np.maximum(0.0, latency(rows) / budget_ms - 1)
        return total

    return excess, errors


def _points(total: int) -> NDArray[np.int64]:
    """Up to _POINTS numbers of evaluations, the first and the last among them."""
    return np.unique(np.linspace(1, total, min(total, _POINTS)).round().astype(np.int64))


def _incumbents(concluded: Sequence[Candidate], encoding: Encoding) -> tuple[IntArray, NDArray[np.int64]]:
    """Rows of the run's incumbents as they followed each other, and which (from 1; 0 for none) it had after each
    conclusion. By the first evaluation of each, as the search saw it then; later seeds are of the end."""
    best, found, which = -1.0, [], []
    for candidate in concluded:
        if is_done(candidate):
            top = candidate.evaluations[-1].get("epochs")
            first = next(e for e in candidate.evaluations if e.get("epochs") == top)
            if float(first["accuracy"]) > best:
                best = float(first["accuracy"])
                found.append(candidate.architecture)
        which.append(len(found))
    return encoding.encode(found), np.array(which, dtype=np.int64)


def _curve(found: Floats) -> Curve:
    """Of curves `[seeds, points]`; a seed without a candidate within the budgets is at the bottom."""
    known = np.isfinite(found).any(axis=0)
    mean, low, high = (np.full(found.shape[1], np.nan) for _ in range(3))
    some = found[:, known]
    mean[known] = np.nanmean(some, axis=0)
    low[known], high[known] = np.nanquantile(some, [0.1, 0.9], axis=0)
    return Curve(mean, low, high)


def _gaps(found: Mapping[str, Floats], points: NDArray[np.int64], chance: float) -> tuple[Gap, ...]:
    """After a quarter, half and all of the evaluations; who has found nothing yet can only guess."""
    gaps = []
    total = int(points[-1])
    for searcher in _SEARCHERS:
        for evaluations in dict.fromkeys((max(1, total // 4), max(1, total // 2), total)):
            at = int(np.abs(points - evaluations).argmin())
            run, other = (np.nan_to_num(found[name][:, at], nan=chance) for name in ("run", searcher))
            low, high = np.quantile(run - other, [0.025, 0.975])
            gaps.append(Gap(searcher, int(points[at]), float((run - other).mean()), float(low), float(high)))
    return tuple(gaps)
