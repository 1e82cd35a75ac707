"""What a warm start is worth: searches that begin with another search's results, against ones that begin with nothing.

    python benchmarks/warm_start.py [--landscape table analytic] [--seeds N] [--policy NAME ...] [--source NAME ...]
                                    [--json FILE]

On the table of the embedded task (benchmarks/tables: really trained, really measured), under four budgets in turn,
and on analytic landscapes, one a seed; the same for all that are compared (paired). The source is a search of 60
evaluations by the same policy with another seed. What of it is learned and what is measured first is decided by the
code that decides it in a run (npas_ray/runs/warm_start_fit.py):

- another budget: the same space and device, under a budget 1.5 times as long: its best are over the budget here;
- narrower space: that space without one operator; all candidates fit, none has that operator;
- wider space: more rates than here; few candidates fit, the best are moved to the nearest ones (analytic only);
- another device: each operator of each layer faster or slower; accuracies are learned, latencies are not;
- another task: other accuracies on the same device; latencies are learned, accuracies are not (analytic only);
- a list: ten best of the narrower space, as architectures without results.

Regret in points after 10, 25, 50 and 100 evaluations of this search; candidates over the budget count.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks._landscapes import CHANCE, MODEL, Analytic, Landscape
from benchmarks.tables.landscape import SHARES, Tabular
from benchmarks.tables.table import load
from npas_ray.config import SearchConfig
from npas_ray.networks.backbone import DIGITS
from npas_ray.runs.warm_start_fit import fit
from npas_ray.runs.warm_start_sources import Found, Source
from npas_ray.search.encoding import IntArray
from npas_ray.search.policy import Status
from npas_ray.search.registry import make_policy
from npas_ray.search.replayable import ReplayablePolicy
from npas_ray.space.choices import RATES, Operator
from npas_ray.space.search_space import SearchSpace

Floats = NDArray[np.float64]
CHECKPOINTS = (10, 25, 50, 100)
SOURCE_EVALUATIONS = 60
EPOCHS = 2
LONGER = 1.5
WIDER = SearchSpace(DIGITS, rates=(*RATES, 1.5, 4))
CONFIG = SearchConfig.from_json(
    {"name": "b", "devices": [{"kind": "adb", "model": MODEL}], "training": {"epochs": EPOCHS}}
)
OTHER_TASK = SearchConfig.from_json(CONFIG.to_json() | {"task": {"train_images": 500}})
DENSE = {MODEL: {"latency_ms": 1.0, "artifact_key": "k", "device": {}}}


class Inside(Landscape):
    """A part of a landscape's space, with its accuracies and latencies, or with those of others."""

    def __init__(self, of: Landscape, space: SearchSpace, *, budget_ms: float) -> None:
        super().__init__(space, accuracy_noise=of.accuracy_noise, latency_noise=of.latency_noise)
        self.of, self.budget_ms = of, budget_ms
        self.accuracy_of: Landscape = of
        self.slower: Callable[[IntArray], Floats] = lambda rows: np.ones(len(rows))  # rows of this space
        self._there = [
            np.array([there.index(choice) for choice in here])
            for here, there in zip(self.encoding.choices, of.encoding.choices, strict=True)
        ]

    def _map(self, rows: IntArray) -> IntArray:
        return np.stack([there[rows[:, layer]] for layer, there in enumerate(self._there)], axis=1)

    def accuracy(self, rows: IntArray) -> Floats:
        return self.accuracy_of.accuracy(self._map(rows))

    def latency_ms(self, rows: IntArray) -> Floats:
        return self.of.latency_ms(self._map(rows)) * self.slower(rows)

    def noisy(self, accuracy: float, rng: np.random.Generator) -> float:
        return self.of.noisy(accuracy, rng)


class Analytics:
    """Analytic landscapes of a wide space; the search is in the usual part of it."""

    name, space = "analytic", SearchSpace(DIGITS)

    def base(self, seed: int) -> Landscape:
        return Analytic(WIDER, seed=seed)


class Tables:
    """The embedded task, under a budget that 3, 10, 30 or 60 % of the space keep."""

    name = "table"

    def __init__(self) -> None:
        self.table = load("digits")
        self.space = self.table.space

    def base(self, seed: int) -> Landscape:
        return Tabular(self.table, feasible_share=SHARES[seed % len(SHARES)])


def another_budget(here: Inside, seed: int) -> Source:
    return _searched(Inside(here.of, here.space, budget_ms=LONGER * here.budget_ms), CONFIG, DENSE, seed)


def narrower_space(here: Inside, seed: int) -> Source:
    kept = [o for o in Operator if o not in (Operator.CONV1X1_DW3X3_CONV1X1, Operator.FC)]
    space = SearchSpace(DIGITS, operators=kept)
    return _searched(Inside(here.of, space, budget_ms=here.budget_ms), CONFIG, DENSE, seed)


def wider_space(here: Inside, seed: int) -> Source:
    return _searched(Inside(here.of, WIDER, budget_ms=here.budget_ms), CONFIG, DENSE, seed)


def another_device(here: Inside, seed: int) -> Source:
    rng = np.random.default_rng([8, seed])
    there = Inside(here.of, here.space, budget_ms=here.budget_ms)
    factors = []
    for choices in there.encoding.choices:
        speed = {operator: rng.normal(0, 0.5) for operator in Operator}
        factors.append(np.array([speed[choice.operator] for choice in choices]))
    layers = len(factors)
    there.slower = lambda rows: np.exp(
        sum(of_layer[rows[:, layer]] for layer, of_layer in enumerate(factors)) / np.sqrt(layers)
    )
    sample = there.random(4000, rng)
    kept = float(np.mean(here.latency_ms(sample) <= here.budget_ms))
    there.budget_ms = float(np.quantile(there.latency_ms(sample), kept))
    return _searched(there, CONFIG, {}, seed)


def another_task(here: Inside, seed: int) -> Source:
    there = Inside(here.of, here.space, budget_ms=here.budget_ms)
    there.accuracy_of = Analytic(WIDER, seed=seed + 1000)
    return _searched(there, OTHER_TASK, DENSE, seed)


def a_list(here: Inside, seed: int) -> Source:
    found = [found for found in narrower_space(here, seed).found if found.accuracy is not None]
    ranked = sorted(found, key=lambda found: -(found.accuracy or 0.0))
    return Source("list", tuple(Found(found.architecture) for found in ranked[:10]), chosen=True)


SOURCES: dict[str, Callable[[Inside, int], Source]] = {
    "another budget": another_budget,
    "narrower space": narrower_space,
    "wider space": wider_space,
    "another device": another_device,
    "another task": another_task,
    "a list": a_list,
}
ANALYTIC_ONLY = {"wider space", "another task"}
_POLICY = ["npas"]  # of the source, and of the searches that begin with it


def _searched(there: Landscape, config: SearchConfig, dense: dict[str, Any], seed: int) -> Source:
    """What a search of SOURCE_EVALUATIONS there leaves."""
    policy = make_policy(_POLICY[0], there.space, there.objective, seed=seed + 500)
    search(there, policy, seed=seed + 500, evaluations=SOURCE_EVALUATIONS)
    found = [
        Found(
            result.architecture,
            {EPOCHS: result.accuracy} if result.status is Status.DONE and result.accuracy is not None else {},
            result.latency_ms,
        )
        for result in policy.observations
    ]
    return Source("source", tuple(found), config=config, dense=dense)


def search(here: Landscape, policy: ReplayablePolicy, *, seed: int, evaluations: int) -> Floats:
    """True accuracy `[evaluations]` of the candidate that measured best within the budget, evaluation by evaluation."""
    rng = np.random.default_rng([99, seed])
    curve: list[float] = []
    measured, true = -1.0, CHANCE
    while len(curve) < evaluations and (batch := policy.propose(min(5, evaluations - len(curve)))):
        results = [here.evaluate(architecture, rng) for architecture in batch]
        policy.observe(results)
        for result in results:
            if result.status is Status.DONE and result.accuracy is not None and result.accuracy > measured:
                measured = result.accuracy
                true = float(here.accuracy(here.encoding.encode([result.architecture]))[0])
            curve.append(true)
    return np.array(curve + [true] * (evaluations - len(curve)))


def regrets(where: list[tuple[Inside, float]], source: str | None) -> Floats:
    """Points `[seeds, checkpoints]` of searches in landscapes with known optima."""
    rows = []
    for seed, (here, optimum) in enumerate(where):
        policy = make_policy(_POLICY[0], here.space, here.objective, seed=seed)
        if source is not None:
            found = SOURCES[source](here, seed)
            taken = fit(found, config=CONFIG, space=here.space, objective=here.objective, dense=DENSE)
            policy.warm_start(prior=taken.prior, start_with=taken.start_with)
        curve = search(here, policy, seed=seed, evaluations=CHECKPOINTS[-1])
        rows.append([100 * (optimum - curve[checkpoint - 1]) for checkpoint in CHECKPOINTS])
    return np.array(rows)


def landscapes(kind: Analytics | Tables, seeds: int) -> list[tuple[Inside, float]]:
    found = []
    optima: dict[float, float] = {}  # the table has a few budgets only
    for seed in range(seeds):
        base = kind.base(seed)
        here = Inside(base, kind.space, budget_ms=base.budget_ms)
        if here.budget_ms not in optima:
            optima[here.budget_ms] = here.optimum()
        found.append((here, optima[here.budget_ms]))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--landscape", nargs="+", choices=["table", "analytic"], default=["table", "analytic"])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--policy", nargs="+", default=["npas"])
    parser.add_argument("--source", nargs="+", choices=SOURCES, default=list(SOURCES))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    report: dict[str, Any] = {"seeds": arguments.seeds, "checkpoints": CHECKPOINTS, "landscapes": {}}
    for kind in [Tables() if name == "table" else Analytics() for name in arguments.landscape]:
        where = landscapes(kind, arguments.seeds)
        for _POLICY[0] in arguments.policy:
            print(f"\n{kind.name}, {_POLICY[0]}: regret in points, mean (quartiles), {arguments.seeds} paired seeds")
            print(f"{'begins with':16}" + "".join(f"{f'after {c}':>22}" for c in CHECKPOINTS) + "  better at 25")
            rows = report["landscapes"].setdefault(kind.name, {}).setdefault(_POLICY[0], {})
            cold = None
            for source in (None, *arguments.source):
                if source in ANALYTIC_ONLY and kind.name != "analytic":
                    continue
                started = time.perf_counter()
                found = regrets(where, source)
                cold = found if cold is None else cold
                low, high = np.quantile(found, [0.25, 0.75], axis=0)
                cells = [f"{m:7.2f} ({a:5.2f}-{b:5.2f})" for m, a, b in zip(found.mean(axis=0), low, high, strict=True)]
                wins = "" if source is None else f"{(found[:, 1] < cold[:, 1]).sum():8} of {len(found)}"
                print(f"{source or 'nothing':16}" + "".join(f"{cell:>22}" for cell in cells) + wins, flush=True)
                rows[source or "nothing"] = {"regret_points": found.tolist(), "wall_s": time.perf_counter() - started}
                if arguments.json:
                    arguments.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
