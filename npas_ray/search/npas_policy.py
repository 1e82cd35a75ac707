"""The default searcher: models accuracy alone, takes latency as known, evolves its pool under the acquisition (own)."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import numpy as np

from npas_ray.search.accuracy_surrogate import AccuracyBelief, AccuracySurrogate
from npas_ray.search.best_acquisition import BestAcquisition
from npas_ray.search.capacity import Capacity
from npas_ray.search.encoding import Encoding, IntArray
from npas_ray.search.evolved_pool import evolve
from npas_ray.search.front_acquisition import CostBeliefs, FrontAcquisition, spread_start
from npas_ray.search.latency_surrogate import LatencyPredictor, latency_surrogate
from npas_ray.search.moves import Moves
from npas_ray.search.opening import best_within, spread_over
from npas_ray.search.policy import Observation, Status
from npas_ray.search.q_learning import QLearning, QLearningSettings
from npas_ray.search.replayable import ReplayablePolicy
from npas_ray.search.reward import Mode, Objective
from npas_ray.search.settings import whole
from npas_ray.space.choices import Architecture
from npas_ray.space.search_space import SearchSpace


class NpasPolicy(ReplayablePolicy):
    """Best accuracy within the latency budgets.

    What differs from the paper's method, which is `PaperPolicy`:

    - a surrogate models the accuracy of trained candidates only (`AccuracySurrogate`); latency enters as the
      probability that every budget is kept, from a predictor or from a surrogate learned online, and multiplies the
      expected improvement;
    - there is no random start: as soon as anything is known of latency, the surrogate chooses by what it believes
      beforehand, that networks which keep more of themselves are better;
    - the pool (mutations and crossovers of the best, the agent's rollouts, random ones) is evolved under the
      acquisition for several rounds before a batch is taken from it.

    Args:
        pool_size: candidates of the first round, and about as many again in all later ones.
        rounds: of evolution.
        batch_size: how many the caller should ask for at a time.
        initial_random: in mode front, candidates before the surrogate chooses: spread over the front's costs.
        parents: best candidates whose variations start the pool.
        max_results: the accuracy surrogate learns from at most this many results, the best half and the latest half.
        latency_predictor: latency by device model for a batch of architectures; without it, latency is learned
            from the measurements.
        q_learning: settings of the agent.
    """

    name = "npas"
    opens_by_accuracy = True

    def __init__(
        self,
        space: SearchSpace,
        objective: Objective,
        *,
        seed: int,
        pool_size: int = 200,
        rounds: int = 8,
        batch_size: int = 5,
        initial_random: int = 10,
        parents: int = 10,
        max_results: int = 1000,
        latency_predictor: LatencyPredictor | None = None,
        q_learning: QLearningSettings | None = None,
    ) -> None:
        super().__init__(space, objective, seed=seed)
        self._pool_size = whole("pool_size", pool_size, least=4)
        self._rounds = whole("rounds", rounds, least=0)
        self.batch_size = whole("batch_size", batch_size, least=1)
        self._initial_random = whole("initial_random", initial_random, least=2)
        self._parents = whole("parents", parents, least=1)
        self._max_results = whole("max_results", max_results, least=10)
        if latency_predictor is not None and not callable(latency_predictor):
            raise ValueError(f"latency_predictor is a function of architectures, got {latency_predictor!r}")
        self._encoding = Encoding(space)
        self._moves = Moves(self._encoding)
        capacity = Capacity(self._encoding, space.backbone)
        self._accuracy = AccuracySurrogate(self._encoding, capacity, max_results=self._max_results)
        self._macs = capacity.macs
        self._agent = QLearning(self._encoding.sizes, seed=seed, settings=q_learning)
        self._latency = latency_surrogate(objective, self._encoding, space.backbone, predictor=latency_predictor)
        self._costs = CostBeliefs(objective, self._encoding, self._latency) if objective.mode is Mode.FRONT else None
        # of every result that the accuracy surrogate learned, in its order
        self._feasible: list[bool] = []  # may win: trained to the end, measured here, within the budgets
        self._shares: list[list[float]] = []  # in mode front: costs / reference
        self._learned: list[Architecture] = []
        self._known_rows: set[bytes] = set()
        self._known_counts = [0, 0]  # of those proposed and of those observed that are in it

    # --- learning ----------------------------------------------------------------------------------------------

    def _learn(self, observation: Observation) -> None:
        reward = self.objective.reward(observation)
        if reward is None:
            return
        row = self._encoding.encode([observation.architecture])[0]
        self._agent.learn(row, reward)
        self._latency.learn(row, self.objective.learned_ms(observation))
        self._learn_accuracy(row, observation)

    def _learn_prior(self, observation: Observation) -> bool:
        """Accuracy and latency are learned apart, so each is of use without the other."""
        if super()._learn_prior(observation):
            return True
        if observation.status is not Status.FAILED:
            row = self._encoding.encode([observation.architecture])[0]
            self._latency.learn(row, self.objective.learned_ms(observation))
            self._learn_accuracy(row, observation)
        return False

    def _learn_accuracy(self, row: IntArray, observation: Observation) -> None:
        complete = observation.status is Status.DONE
        measured_here = observation.architecture in self._observed  # and not in the prior
        if observation.accuracy is not None and (complete or observation.status is Status.STOPPED):
            self._accuracy.learn(row, observation.accuracy, complete=complete, rungs=observation.rungs)
            self._learned.append(observation.architecture)
            self._feasible.append(complete and measured_here and self.objective.keeps(observation))
            self._shares.append(self.objective.shares(observation) if self._costs is not None else [])

    # --- proposing ---------------------------------------------------------------------------------------------

    def _candidates(self, count: int, rng: np.random.Generator) -> Iterable[Architecture]:
        self._latency.refresh()
        if self._costs is not None and (len(self._accuracy) < 2 or self.experience < self._initial_random):
            rows = self._moves.random(20 * count, rng)
            rows = rows[spread_start(self._costs(rows).mean, count)]
        elif self._latency.known:
            rows = self._improvements(count, rng)
        else:
            rows = self._opening(count, rng)
        return [self._encoding.decode(row) for row in rows]

    def _opening(self, count: int, rng: np.random.Generator) -> IntArray:
        """Rows whose work is spread evenly, so that some keep the budgets whatever these mean.

        Random ones; or where accuracies are known from elsewhere, the best that is believed to be had for that work.
        """
        rows = self._moves.random(20 * count, rng)
        spread = rows[spread_over(self._macs(rows), count)]
        belief = self._accuracy.belief()
        if not len(belief.rows):
            return spread
        best = belief.rows[np.argsort(-belief.fitted, kind="stable")[: self._pool_size // 4]]
        return best_within(
            self._macs(spread[:count]),
            moves=self._moves,
            start=np.concatenate([rows, best, self._moves.mutate(best, rng)]),
            work=self._macs,
            value=lambda some: belief.predict(some)[0],
            known=self._known(),
            rng=rng,
        )

    def _improvements(self, count: int, rng: np.random.Generator) -> IntArray:
        """`count` rows with the best expected improvement within the budgets, chosen together."""
        belief = self._accuracy.belief(as_accuracy=self._costs is not None)
        goal = self._goal(belief, rng)
        pool = evolve(
            self._moves,
            self._start(belief.rows[goal.elite(self._parents)], rng),
            lambda rows: goal.score(rows, *belief.predict(rows)),
            known=self._known(),
            size=self._pool_size,
            rounds=self._rounds,
            rng=rng,
        )[: max(100 if count > 1 else 40, 2 * count)]
        if count == 1 and not self.pending:
            return pool[:1]
        pending = self._encoding.encode(self.pending)
        points = np.concatenate([pool, pending])
        chosen = goal.choose(points, *belief.joint(points), noise=belief.noise, count=count, pending=len(pending))
        return pool[chosen]

    def _goal(self, belief: AccuracyBelief, rng: np.random.Generator) -> BestAcquisition | FrontAcquisition:
        """What is to be gained: accuracy of the best, or volume under the front."""
        feasible = np.array(self._feasible, dtype=bool)[belief.results]
        if self._costs is None:
            floor = float(belief.of_accuracy(self.objective.chance))
            return BestAcquisition(self._latency, fitted=belief.fitted, feasible=feasible, floor=floor)
        shares = np.array([self._shares[result] for result in belief.results]).reshape(-1, len(self.objective.axes))
        return FrontAcquisition(self._costs, accuracies=belief.fitted, shares=shares, feasible=feasible, rng=rng)

    def _start(self, elite: IntArray, rng: np.random.Generator) -> IntArray:
        """Variations of the best, the agent's rollouts and random rows; without a best, random ones alone."""
        size = self._pool_size
        if not len(elite):
            return self._moves.random(size, rng)
        elite = np.unique(elite, axis=0)
        first, second = elite[rng.integers(len(elite), size=(2, size // 8))]
        return np.concatenate(
            [
                self._moves.mutate(elite[rng.integers(len(elite), size=size // 2)], rng),
                self._moves.cross(first, second, rng),
                self._agent.rollouts(size // 8, rng),
                self._moves.random(size // 4, rng),
            ]
        )

    def _known(self) -> set[bytes]:
        """Rows that were proposed or observed."""
        for place, known in enumerate((self._proposed, self._observed)):  # both grow at their ends only
            new = self._encoding.encode(itertools.islice(known, self._known_counts[place], None))
            self._known_rows.update(row.tobytes() for row in new)
            self._known_counts[place] = len(known)
        return self._known_rows

    def _believed(self) -> dict[Architecture, float]:
        """By what the surrogate believes by now, so that no winner is a lucky one."""
        belief = self._accuracy.belief()
        return {
            self._learned[result]: float(value)
            for result, value in zip(belief.results, belief.fitted, strict=True)
            if self._feasible[result]
        }
