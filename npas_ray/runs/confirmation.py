"""The best candidate, believed only after further seeds: the best of many is the luckiest of many."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from npas_ray.journal import Candidate
from npas_ray.runs.laboratory import Laboratory
from npas_ray.runs.reach import none_feasible
from npas_ray.search.hypervolume import nondominated
from npas_ray.search.policy import Status
from npas_ray.search.reward import Mode, Objective

FINALISTS = 3
SEEDS_OF_A_FRONT = 2  # of every member
SEEDS_TO_COMPARE = 3  # of every finalist
SEEDS_TO_BELIEVE = 5  # of the one that is then in front; if that sets it back, the next one is in front
PROMOTED = "stopped by the ladder at first, trained to the end before the best was chosen"


def confirm(lab: Laboratory, conductor: Any) -> Candidate:
    """The best candidate within the budgets whose accuracy several seeds agree on.

    What the ladder stopped early, and would not have stopped if it had known all results, is trained to the end first;
    then front runners get further seeds until one is in front with enough of them. Can be interrupted and called again.
    Raises NoFeasibleCandidate.
    """
    import ray

    _promote(lab, conductor)
    while True:
        known = cast("list[Candidate]", ray.get(conductor.candidates.remote()))
        ranked = ranking(known, lab.objective)
        if not ranked:
            raise none_feasible(known, lab.objective)
        by_key = {candidate.key: candidate for candidate in ranked}
        wanted = undecided({key: [e["accuracy"] for e in c.best_trained] for key, c in by_key.items()})
        if not wanted:
            return ranked[0]
        _train_again([(by_key[key], more) for key, more in wanted.items()], lab, conductor)


def undecided(accuracies: Mapping[str, Sequence[float]]) -> dict[str, int]:
    """How many more seeds which candidates need before the first one can be believed; empty: it can.

    `accuracies` has those of each candidate's seeds, the best candidate first. Pure.
    """
    leader, seeds = next(iter(accuracies.items()))
    if len(seeds) >= SEEDS_TO_BELIEVE:
        return {}
    if len(seeds) >= SEEDS_TO_COMPARE:
        return {leader: SEEDS_TO_BELIEVE - len(seeds)}
    return {key: 1 for key in list(accuracies)[:FINALISTS] if len(accuracies[key]) < SEEDS_TO_COMPARE}


def ranking(candidates: list[Candidate], objective: Objective) -> list[Candidate]:
    """Candidates trained to the end and within the budgets, best first: by mean accuracy, then speed, then age.

    Of a front: by how large a share of the box up to the reference a candidate dominates alone (`Objective.reward`).
    That is a compromise: neither the slowest nor the smallest has a large one.
    """

    def goodness(candidate: Candidate) -> float:
        if objective.mode is Mode.BEST:
            return candidate.accuracy or 0.0
        return objective.reward(candidate.observation()) or 0.0

    feasible = [c for c in candidates if c.status is Status.DONE and objective.keeps(c.observation())]
    return sorted(feasible, key=lambda c: (-goodness(c), sum(c.latency_ms.values()), c.ordinal))


def confirm_front(lab: Laboratory, conductor: Any) -> bool:
    """Evaluates the members of the front again until each has `SEEDS_OF_A_FRONT` seeds; whether there was any to do.

    A member that was only lucky falls behind the front, and what it hid comes forward and is evaluated too.
    """
    import ray

    _promote(lab, conductor)
    trained = False
    while True:
        known = cast("list[Candidate]", ray.get(conductor.candidates.remote()))
        short = [c for c in front_members(known, lab.objective) if len(c.best_trained) < SEEDS_OF_A_FRONT]
        if not short:
            return trained
        _train_again([(candidate, 1) for candidate in short], lab, conductor)
        trained = True


def front_members(candidates: list[Candidate], objective: Objective) -> list[Candidate]:
    """The trained candidates that no other one beats in accuracy and every axis."""
    points = {c.key: objective.point(c.observation()) for c in candidates if c.status is Status.DONE}
    known = [(c, point) for c in candidates if (point := points.get(c.key)) is not None]
    kept = nondominated([point for _, point in known])
    return [candidate for (candidate, _), on in zip(known, kept, strict=True) if on]


def _promote(lab: Laboratory, conductor: Any) -> None:
    """Trains the most promising stopped candidates to the end: at least one if there is nothing else to choose from."""
    import ray

    known = {c.key: c for c in cast("list[Candidate]", ray.get(conductor.candidates.remote()))}
    stopped = [c for c in known.values() if c.status is Status.STOPPED]
    trained = [c for c in stopped if c.epochs == lab.epochs]  # of a call that was interrupted
    left = FINALISTS - len(trained) - sum(c.reason == PROMOTED for c in known.values())
    chosen = [known[key] for key in cast("list[str]", ray.get(conductor.overlooked.remote()))[: max(0, left)]]
    if not chosen and not trained and not ranking(list(known.values()), lab.objective):
        chosen = sorted(stopped, key=lambda c: (c.epochs or 0, c.accuracy or 0.0))[-FINALISTS:]
    pending = {c.key: lab.train(c.architecture, lab.epochs) for c in chosen}
    for key, evaluation in pending.items():
        ray.get(conductor.trained.remote(key, dict(evaluation.result())))
    for candidate in (*trained, *chosen):
        ray.get(conductor.promote.remote(candidate.key, PROMOTED))


def _train_again(more: Iterable[tuple[Candidate, int]], lab: Laboratory, conductor: Any) -> None:
    """As many further seeds of each candidate, to the end."""
    import ray

    pending = []
    for candidate, count in more:
        used = {evaluation["seed"] for evaluation in candidate.best_trained}
        new = [seed for seed in range(lab.seed, lab.seed + len(used) + count) if seed not in used][:count]
        pending += [(candidate.key, lab.train(candidate.architecture, lab.epochs, seed=seed)) for seed in new]
    for key, evaluation in pending:
        ray.get(conductor.trained.remote(key, dict(evaluation.result())))
