"""Searchers against each other on tables of really trained and measured networks, and where nothing is as expected.

    python benchmarks/searchers.py [--quick] [--json FILE] [--svg FOLDER] [--seeds N] [--landscape NAME ...]
                                   [--policy NAME ...] [--front] [--train-all] [--keep FILE] [--processes N]

Every policy runs with and without the word of a latency predictor (as wrong as a calibrated one). Seeds are paired:
the same noise and the same budget (tables; from hard to reach to hardly in the way) or the same landscape (analytic).
Candidates over the budget are not trained, as in a real search (but see --train-all). The regret is the accuracy of
the best architecture within the budget less the noiseless value of the policy's choice, which is what it recommends
after each batch: the candidate that measured best, or by `npas` the one that it believes to be best; in points. With
--front there is no budget, and hypervolumes of accuracy and latency are compared. No network is trained here:
benchmarks/tables/README.md says what the tables are.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # run as a script: the packages lie beside this folder
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from benchmarks._harness import finish, parser
from benchmarks._landscapes import Floats
from benchmarks._races import ADVERSARIAL, EACH_OF_A_FRONT, LANDSCAPES, PREDICTOR, TABLES, Race, optimum, run_all
from benchmarks._standings import Standings, bars, front_bars
from benchmarks._svg import lines
from benchmarks.tables.landscape import SHARES
from npas_ray.search.registry import POLICIES

CHECKPOINTS = (25, 50, 100, 200, 400)
#: the table of the embedded task
OWN = "digits"
FRONT_CHECKPOINTS = (50, 100, 200)


def race(arguments: argparse.Namespace, landscape: str) -> Standings:
    """All policies on one landscape."""
    seeds, last = range(arguments.seeds), arguments.checkpoints[-1]
    races = [
        Race(landscape, policy, seed, last, arguments.front, arguments.train_all)
        for seed in seeds
        for policy in arguments.policy
    ]
    curves: dict[str, dict[int, Sequence[float]]] = {policy: {} for policy in arguments.policy}
    costs: dict[str, list[float]] = {policy: [] for policy in arguments.policy}
    for outcome in run_all(races, processes=arguments.processes, kept=arguments.keep):
        curves[outcome.race.policy][outcome.race.seed] = outcome.values
        costs[outcome.race.policy].append(outcome.propose_ms)
    values = {policy: np.array([found[seed] for seed in seeds]) for policy, found in curves.items()}
    if arguments.front:
        picked = {
            policy: table[:, [c // EACH_OF_A_FRONT - 1 for c in arguments.checkpoints]]
            for policy, table in values.items()
        }
        return Standings(landscape, arguments.checkpoints, {p: 100 * v for p, v in picked.items()}, costs, front=True)
    return Standings(landscape, arguments.checkpoints, _regrets(landscape, values, arguments.checkpoints), costs)


def _regrets(landscape: str, values: Mapping[str, Floats], checkpoints: Sequence[int]) -> dict[str, Floats]:
    """In points, `[seeds, checkpoints]`. Where a policy found better than the optimum that was known, it is that."""
    budgets = len(SHARES) if landscape in TABLES else len(next(iter(values.values())))  # others have one for each seed
    best = np.empty(budgets)
    for place in range(budgets):
        found = max(float(table[place::budgets].max(initial=0)) for table in values.values())
        best[place] = max(optimum(landscape, place), found)
    known = best[np.arange(len(next(iter(values.values())))) % budgets]
    columns = [c - 1 for c in checkpoints]
    return {policy: 100 * (known[:, None] - table[:, columns]) for policy, table in values.items()}


def main() -> int:
    made = parser(str(__doc__).partition("\n")[0])
    made.add_argument("--svg", type=Path, metavar="FOLDER", help="write a plot of each landscape there")
    made.add_argument("--seeds", type=int)
    made.add_argument("--landscape", nargs="+", choices=LANDSCAPES, default=[*TABLES, ADVERSARIAL])
    made.add_argument("--policy", nargs="+", help=f"of the registry, each also with {PREDICTOR} (default: all of them)")
    made.add_argument("--front", action="store_true", help="whole fronts, judged by their hypervolume")
    made.add_argument("--train-all", action="store_true", help="train candidates over the budget too, as the paper did")
    made.add_argument("--evaluations", type=int, help="up to so many")
    made.add_argument("--keep", type=Path, metavar="FILE", help="keep every search's outcome there, and go on from it")
    made.add_argument("--processes", type=int, default=1)
    arguments = made.parse_args()
    quick: bool = arguments.quick
    arguments.seeds = arguments.seeds or (4 if quick else 20)
    most = arguments.evaluations or (50 if quick else 200 if arguments.front else 400)
    checkpoints = FRONT_CHECKPOINTS if arguments.front else CHECKPOINTS
    arguments.checkpoints = [c for c in checkpoints if c <= most]
    told = [PREDICTOR, ""]
    arguments.policy = arguments.policy or [
        name + suffix for name in (("npas", "random", "local") if quick else POLICIES) for suffix in told
    ]
    report: dict[str, Any] = {"seeds": arguments.seeds, "front": arguments.front, "landscapes": {}, "bars": []}
    for name in arguments.landscape:
        standings = race(arguments, name)
        print(standings, flush=True)
        report["landscapes"][name] = standings.to_json()
        report["bars"] += (front_bars if arguments.front else bars)(standings, own=name == OWN)
        if arguments.svg is not None:
            words = "hypervolume, % of the box" if arguments.front else "mean regret, points"
            plot = lines(f"{name}: {words}", standings.series(), axes=("evaluations", words))
            arguments.svg.mkdir(parents=True, exist_ok=True)
            (arguments.svg / f"searchers-{name}{'-front' if arguments.front else ''}.svg").write_text(plot)
    print("\n" + "\n".join(f"{'met   ' if bar['met'] else 'MISSED'} {bar['words']}" for bar in report["bars"]))
    finish("searchers", report, arguments.json)
    return int(not quick and not all(bar["met"] for bar in report["bars"]))


if __name__ == "__main__":
    sys.exit(main())
