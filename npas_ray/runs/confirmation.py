"""The best candidate, believed only after further seeds: the best of many is the luckiest of many. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Protocol

from npas_ray.journal import Candidate
from npas_ray.runs.reach import none_feasible
from npas_ray.search.hypervolume import nondominated
from npas_ray.search.policy import Status
from npas_ray.search.reward import Mode, Objective
from npas_ray.space.choices import Architecture

FINALISTS = 3
SEEDS_OF_A_FRONT = 2  # of every member
SEEDS_TO_COMPARE = 3  # of every finalist
SEEDS_TO_BELIEVE = 5  # of the one that is then in front; if that sets it back, the next one is in front
PROMOTED = "stopped by the ladder at first, trained to the end before the best was chosen"


class Lab(Protocol):
    """Where candidates are trained: see Laboratory."""

    @property
    def objective(self) -> Objective: ...
    @property
    def epochs(self) -> int: ...
    @property
    def seed(self) -> int: ...
    def train(
        self, architecture: Architecture, epochs: int, *, seed: int | None = None
    ) -> Future[Mapping[str, Any]]: ...


class Books(Protocol):
    """What is known, and where what is found is written down: see Conductor."""

    def candidates(self) -> list[Candidate]: ...
    def overlooked(self) -> list[str]: ...
    def trained(self, key: str, evaluation: Mapping[str, Any]) -> None: ...
    def promote(self, key: str, reason: str) -> None: ...


def confirm(lab: Lab, books: Books, *, without: Collection[str] = ()) -> Candidate:
    """The best candidate within the budgets whose accuracy several seeds agree on, none of `without`.

    What the ladder stopped early, and would not have stopped if it had known all results, is trained to the end first;
    then front runners get further seeds until one is in front with enough of them. Can be interrupted and called again.
    Raises NoFeasibleCandidate.
    """
    _promote(lab, books)
    while True:
        known = books.candidates()
        ranked = ranking([candidate for candidate in known if candidate.key not in without], lab.objective)
        if not ranked:
            raise none_feasible(known, lab.objective)
        by_key = {candidate.key: candidate for candidate in ranked}
        wanted = undecided({key: [e["accuracy"] for e in c.best_trained] for key, c in by_key.items()})
        if not wanted:
            return ranked[0]
        _train_again([(by_key[key], more) for key, more in wanted.items()], lab, books)


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


def confirm_front(lab: Lab, books: Books) -> bool:
    """Evaluates the members of the front again until each has `SEEDS_OF_A_FRONT` seeds; whether there was any to do.

    A member that was only lucky falls behind the front, and what it hid comes forward and is evaluated too.
    """
    _promote(lab, books)
    trained = False
    while True:
        short = [c for c in front_members(books.candidates(), lab.objective) if len(c.best_trained) < SEEDS_OF_A_FRONT]
        if not short:
            return trained
        _train_again([(candidate, 1) for candidate in short], lab, books)
        trained = True


def front_members(candidates: list[Candidate], objective: Objective) -> list[Candidate]:
    """The trained candidates that no other one beats in accuracy and every axis."""
    points = {c.key: objective.point(c.observation()) for c in candidates if c.status is Status.DONE}
    known = [(c, point) for c in candidates if (point := points.get(c.key)) is not None]
    kept = nondominated([point for _, point in known])
    return [candidate for (candidate, _), on in zip(known, kept, strict=True) if on]


def _promote(lab: Lab, books: Books) -> None:
    """Trains the most promising stopped candidates to the end: at least one if there is nothing else to choose from."""
    known = {candidate.key: candidate for candidate in books.candidates()}
    stopped = [c for c in known.values() if c.status is Status.STOPPED]
    trained = [c for c in stopped if c.epochs == lab.epochs]  # of a call that was interrupted
    left = FINALISTS - len(trained) - sum(c.reason == PROMOTED for c in known.values())
    chosen = [known[key] for key in books.overlooked()[: max(0, left)]]
    if not chosen and not trained and not ranking(list(known.values()), lab.objective):
        chosen = sorted(stopped, key=lambda c: (c.epochs or 0, c.accuracy or 0.0))[-FINALISTS:]
    pending = {c.key: lab.train(c.architecture, lab.epochs) for c in chosen}
    for key, evaluation in pending.items():
        books.trained(key, evaluation.result())
    for candidate in (*trained, *chosen):
        books.promote(candidate.key, PROMOTED)


def _train_again(more: Iterable[tuple[Candidate, int]], lab: Lab, books: Books) -> None:
    """As many further seeds of each candidate, to the end."""
    pending = []
    for candidate, count in more:
        used = {evaluation["seed"] for evaluation in candidate.best_trained}
        new = [seed for seed in range(lab.seed, lab.seed + len(used) + count) if seed not in used][:count]
        pending += [(candidate.key, lab.train(candidate.architecture, lab.epochs, seed=seed)) for seed in new]
    for key, evaluation in pending:
        books.trained(key, evaluation.result())
