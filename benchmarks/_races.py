"""Policies let loose on landscapes, one process and one thread each, and what they had found after every evaluation."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from benchmarks._landscapes import ANALYTIC_SPACES, CHANCE, Adversarial, Analytic, Floats, Landscape
from benchmarks.tables.landscape import SHARES, Tabular
from benchmarks.tables.table import FOLDER, load
from npas_ray.networks.backbone import DIGITS
from npas_ray.search.hypervolume import hypervolume
from npas_ray.search.registry import make_policy, settings_of
from npas_ray.search.replayable import ReplayablePolicy
from npas_ray.space.search_space import SearchSpace

PREDICTOR = "+predictor"
TABLES = tuple(sorted(path.stem for path in FOLDER.glob("*.npz")))
ADVERSARIAL = "adversarial"
#: evaluations between two hypervolumes
EACH_OF_A_FRONT = 10
#: tables, the adversarial space, analytic landscapes
LANDSCAPES = (*TABLES, ADVERSARIAL, *(f"analytic-{name}" for name in ANALYTIC_SPACES))


@dataclass(frozen=True)
class Race:
    """One policy on one landscape. The seed is the policy's, the noise's, and picks the landscape's budget."""

    landscape: str
    policy: str  # of the registry; with PREDICTOR it gets the latency of a predictor, as a veto and, if it can, else
    seed: int
    evaluations: int
    front: bool = False
    train_all: bool = False


@dataclass(frozen=True)
class Outcome:
    """After each evaluation the noiseless value of the policy's choice; of a front after each tenth the hypervolume.

    The choice is what the policy recommends. `propose_ms` is CPU time a candidate, of the last ten batches.
    """

    race: Race
    values: tuple[float, ...]
    propose_ms: float


def landscape_of(name: str, seed: int, *, front: bool = False, train_all: bool = False) -> Landscape:
    """Analytic ones are others for every seed; tables are one, under one of some budgets."""
    landscape: Landscape
    if name in TABLES:
        share = max(SHARES) if front else SHARES[seed % len(SHARES)]
        landscape = Tabular(_table(name), feasible_share=share, train_all=train_all)
    elif name == ADVERSARIAL:
        landscape = Adversarial(SearchSpace(DIGITS), seed=seed, train_all=train_all)
    else:
        landscape = Analytic(ANALYTIC_SPACES[name.removeprefix("analytic-")](), seed=seed, train_all=train_all)
    landscape.front = front
    return landscape


_table = cache(load)


def policy_of(name: str, landscape: Landscape, seed: int) -> ReplayablePolicy:
    """A policy of the registry, with or without a predictor of latencies."""
    kind, told = name.removesuffix(PREDICTOR), name.endswith(PREDICTOR)
    knows = told and "latency_predictor" in settings_of(kind)
    settings = {"latency_predictor": landscape.predict} if knows else {}
    policy = make_policy(kind, landscape.space, landscape.objective, seed=seed, settings=settings)
    if told and not landscape.front:
        policy.veto = landscape.surely_over
    return policy


def run(race: Race) -> Outcome:
    """One search."""
    landscape = landscape_of(race.landscape, race.seed, front=race.front, train_all=race.train_all)
    policy = policy_of(race.policy, landscape, race.seed)
    values, propose_ms = search(landscape, policy, seed=race.seed, evaluations=race.evaluations)
    return Outcome(race, tuple(values.tolist()), propose_ms)


def search(landscape: Landscape, policy: ReplayablePolicy, *, seed: int, evaluations: int) -> tuple[Floats, float]:
    """Values after each evaluation (of a front each tenth) and CPU ms a proposal, see Outcome."""
    rng = np.random.default_rng([99, seed])
    values: list[float] = []
    points: list[tuple[float, float]] = []
    seconds = []
    done = 0
    while done < evaluations:
        start = time.process_time()
        batch = policy.propose(min(policy.batch_size, evaluations - done))
        seconds.append((time.process_time() - start) / max(1, len(batch)))
        if not batch:
            break
        results = [landscape.evaluate(architecture, rng) for architecture in batch]
        policy.observe(results)
        for result in results:
            done += 1
            if landscape.front:
                points.append(landscape.true_point(result.architecture))
                if done % EACH_OF_A_FRONT == 0:
                    values.append(hypervolume(points, (1.0, 1.0)))
        if not landscape.front:
            choice = policy.recommend(1)
            values += [landscape.true_value(choice[0]) if choice else CHANCE] * len(results)
    wanted = evaluations // EACH_OF_A_FRONT if landscape.front else evaluations
    values += (values[-1:] or [CHANCE]) * (wanted - len(values))
    return np.array(values), 1e3 * float(np.median(seconds[-10:]))


def optimum(name: str, seed: int) -> float:
    """The best value within the budget that is known."""
    return landscape_of(name, seed).optimum()


def run_all(races: Sequence[Race], *, processes: int, kept: Path | None) -> Iterator[Outcome]:
    """Outcomes as they come. With `kept`, a file of lines, those in it are not run again."""
    known = {outcome.race: outcome for outcome in _read(kept)} if kept else {}
    yield from (known[race] for race in races if race in known)
    context = get_context("spawn")
    with ProcessPoolExecutor(processes, context) as pool:
        waiting = [pool.submit(run, race) for race in races if race not in known]
        for future in as_completed(waiting):
            outcome = future.result()
            if kept:
                with kept.open("a") as file:
                    file.write(json.dumps(asdict(outcome)) + "\n")
            yield outcome


def _read(path: Path) -> Iterable[Outcome]:
    if not path.exists():
        return
    for text in path.read_text().splitlines():
        line = json.loads(text)
        yield Outcome(Race(**line["race"]), tuple(line["values"]), line["propose_ms"])
