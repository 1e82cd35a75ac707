"""What a warm start is worth: searches that begin with another search's results, against ones that begin with nothing.

    python benchmarks/warm_start.py [--seeds N] [--policy NAME ...] [--source NAME ...] [--json FILE]

Analytic landscapes as in benchmarks/_landscapes.py, one a seed, the same for all that are compared (paired). The source
is a search of 60 evaluations by the same policy with another seed. What of it is learned and what is measured first is
decided by the code that decides it in a run (npas_ray/runs/warm_start_fit.py):

- same space: the same landscape and device, under a budget 1.5 times as long, so its best are over the budget here;
- narrower space: that space without one operator; all candidates fit, none has that operator;
- wider space: more rates than here; few candidates fit, the best are moved to the nearest ones;
- another device: each operator of each layer up to twice as fast or slow; accuracies are learned, latencies are not;
- another task: another landscape's accuracies on the same device; latencies are learned, accuracies are not;
- a list: the ten best of the narrower space, as architectures without results.

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

from benchmarks._landscapes import Analytic as Landscape
from benchmarks._races import search
from npas_ray.config import SearchConfig
from npas_ray.networks.backbone import DIGITS
from npas_ray.runs.warm_start_fit import fit
from npas_ray.runs.warm_start_sources import Found, Source
from npas_ray.search.policy import Status
from npas_ray.search.registry import make_policy
from npas_ray.space.choices import RATES, Operator
from npas_ray.space.search_space import SearchSpace

Floats = NDArray[np.float64]
CHECKPOINTS = (10, 25, 50, 100)
SOURCE_EVALUATIONS = 60
EPOCHS = 2
SPACE = SearchSpace(DIGITS)
LACKING = (Operator.CONV1X1_DW3X3_CONV1X1, Operator.FC)
NARROWER = SearchSpace(DIGITS, operators=[operator for operator in Operator if operator not in LACKING])
WIDER = SearchSpace(DIGITS, rates=(*RATES, 1.5, 4))
LONGER = 1.5
CONFIG = SearchConfig.from_json(
    {"name": "b", "devices": [{"kind": "adb", "model": "device"}], "training": {"epochs": EPOCHS}}
)
OTHER_TASK = SearchConfig.from_json(CONFIG.to_json() | {"task": {"train_images": 500}})
DENSE = {"device": {"latency_ms": 1.0, "artifact_key": "k", "device": {}}}


def landscape(space: SearchSpace, like: Landscape, seed: int) -> Landscape:
    """The same landscape on another space: its random draws do not depend on the choices, only its scale does."""
    other = Landscape(space, seed=seed)
    for name in ("_middle", "_deviation", "top"):
        setattr(other, name, getattr(like, name))
    return _with_budget(other, like.budget_ms)


def _with_budget(scape: Landscape, budget_ms: float) -> Landscape:
    scape.budget_ms = budget_ms
    return scape


def same_space(here: Landscape, seed: int) -> Source:
    scape = landscape(SPACE, here, seed)
    return _searched(_with_budget(scape, LONGER * here.budget_ms), CONFIG, DENSE, seed)


def narrower_space(here: Landscape, seed: int) -> Source:
    return _searched(landscape(NARROWER, here, seed), CONFIG, DENSE, seed)


def wider_space(here: Landscape, seed: int) -> Source:
    return _searched(landscape(WIDER, here, seed), CONFIG, DENSE, seed)


def another_device(here: Landscape, seed: int) -> Source:
    scape, rng = landscape(SPACE, here, seed), np.random.default_rng([8, seed])
    for layer, choices in enumerate(scape.encoding.choices):
        speed = {operator: 2 ** rng.uniform(-1, 1) for operator in Operator}
        scape._latency[layer] = scape._latency[layer] * np.array([speed[choice.operator] for choice in choices])
    budget_ms = float(np.quantile(scape.latency_ms(scape.random(4000, rng)), 0.15))
    return _searched(_with_budget(scape, budget_ms), CONFIG, {}, seed)


def another_task(here: Landscape, seed: int) -> Source:
    scape = Landscape(SPACE, seed=seed + 1000)
    scape._latency = here._latency
    return _searched(_with_budget(scape, here.budget_ms), OTHER_TASK, DENSE, seed)


def a_list(here: Landscape, seed: int) -> Source:
    found = narrower_space(here, seed).found
    ranked = sorted((f for f in found if f.accuracy is not None), key=lambda f: -(f.accuracy or 0.0))
    return Source("list", tuple(Found(f.architecture) for f in ranked[:10]), chosen=True)


SOURCES: dict[str, Callable[[Landscape, int], Source]] = {
    "same space": same_space,
    "narrower space": narrower_space,
    "wider space": wider_space,
    "another device": another_device,
    "another task": another_task,
    "a list": a_list,
}


def _searched(scape: Landscape, config: SearchConfig, dense: dict[str, Any], seed: int) -> Source:
    """What a search of SOURCE_EVALUATIONS on that landscape leaves."""
    policy = make_policy(POLICY, scape.space, scape.objective, seed=seed + 500)
    search(scape, policy, seed=seed + 500, evaluations=SOURCE_EVALUATIONS)
    found = [
        Found(
            result.architecture,
            {EPOCHS: result.accuracy} if result.status is Status.DONE and result.accuracy is not None else {},
            result.latency_ms,
        )
        for result in policy.observations
    ]
    return Source("source", tuple(found), config=config, dense=dense)


POLICY = "npas"  # of the source and of the searches that begin with it; main sets it


def regrets(source: str | None, seeds: int) -> Floats:
    """Points `[seeds, checkpoints]`."""
    rows = []
    for seed in range(seeds):
        here, optimum = _landscapes(seed)
        policy = make_policy(POLICY, SPACE, here.objective, seed=seed)
        if source is not None:
            found = SOURCES[source](here, seed)
            taken = fit(found, config=CONFIG, space=SPACE, objective=here.objective, dense=DENSE)
            policy.warm_start(prior=taken.prior, start_with=taken.start_with)
        curve, _ = search(here, policy, seed=seed, evaluations=CHECKPOINTS[-1])
        rows.append([100 * (optimum - curve[checkpoint - 1]) for checkpoint in CHECKPOINTS])
    return np.array(rows)


_KNOWN: dict[int, tuple[Landscape, float]] = {}


def _landscapes(seed: int) -> tuple[Landscape, float]:
    if seed not in _KNOWN:
        here = Landscape(SPACE, seed=seed)
        _KNOWN[seed] = (here, here.optimum())
    return _KNOWN[seed]


def main() -> None:
    global POLICY
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--policy", nargs="+", default=["npas", "paper", "local"])
    parser.add_argument("--source", nargs="+", choices=SOURCES, default=list(SOURCES))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    report: dict[str, Any] = {"seeds": arguments.seeds, "checkpoints": CHECKPOINTS, "policies": {}}
    for POLICY in arguments.policy:
        print(f"\n{POLICY}: regret in points, mean (quartiles), {arguments.seeds} paired seeds")
        print(f"{'begins with':16}" + "".join(f"{f'after {c}':>22}" for c in CHECKPOINTS) + "   better than cold at 25")
        cold = None
        rows = report["policies"][POLICY] = {}
        for source in (None, *arguments.source):
            started = time.perf_counter()
            found = regrets(source, arguments.seeds)
            cold = found if cold is None else cold
            low, high = np.quantile(found, [0.25, 0.75], axis=0)
            cells = [f"{m:7.2f} ({a:5.2f}-{b:5.2f})" for m, a, b in zip(found.mean(axis=0), low, high, strict=True)]
            wins = "" if source is None else f"{(found[:, 1] < cold[:, 1]).sum():8} of {arguments.seeds}"
            print(f"{source or 'nothing':16}" + "".join(f"{c:>22}" for c in cells) + wins, flush=True)
            rows[source or "nothing"] = {"regret_points": found.tolist(), "wall_s": time.perf_counter() - started}
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
