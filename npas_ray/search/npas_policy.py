"""The default searcher: models accuracy alone, takes latency as known, evolves its pool under the acquisition (own)."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from npas_ray.search.acquisition import choose_batch, log_expected_improvement
from npas_ray.search.encoding import Encoding, IntArray
from npas_ray.search.front_acquisition import CostBeliefs, FrontAcquisition, spread_start
from npas_ray.search.gaussian_process import GaussianProcess
from npas_ray.search.latency_surrogate import LatencyPredictor, LatencySurrogate, LearnedLatency, PredictedLatency
from npas_ray.search.moves import Moves
from npas_ray.search.policy import Observation, Status
from npas_ray.search.q_learning import QLearning, QLearningSettings
from npas_ray.search.replayable import ReplayablePolicy
from npas_ray.search.reward import Mode, Objective
from npas_ray.search.settings import whole
from npas_ray.search.soft_kernel import SoftKernel, SoftParameters
from npas_ray.space.choices import Architecture
from npas_ray.space.search_space import SearchSpace

Floats = NDArray[np.float64]


class NpasPolicy(ReplayablePolicy):
    """Best accuracy within the latency budgets.

    What differs from the paper's method, which is `PaperPolicy`:

    - the GP models the accuracy of trained candidates only; latency enters as the probability that every budget is
      kept, from a predictor or from a surrogate learned online, and multiplies the expected improvement;
    - the kernel grades how much alike choices are (`SoftKernel`);
    - the pool (mutations and crossovers of the best, the agent's rollouts, random ones) is evolved under the
      acquisition for several rounds before a batch is taken from it.

    The kernel's parameters are fitted whenever the results have grown by 15 %, on all results of that moment.

    Args:
        pool_size: candidates of the first round, and about as many again in all later ones.
        rounds: of evolution.
        batch_size: how many the caller should ask for at a time.
        initial_random: candidates before the surrogate chooses: random ones, near below the budget as soon as
            anything is known of latency.
        parents: best candidates whose variations start the pool.
        max_results: the accuracy surrogate learns from at most this many results, the best half and the latest half.
        latency_predictor: latency by device model for a batch of architectures; without it, latency is learned
            from the measurements.
        q_learning: settings of the agent.
    """

    name = "npas"

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
        max_results: int = 2000,
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
        self._kernel = SoftKernel(self._encoding)
        self._agent = QLearning(self._encoding.sizes, seed=seed, settings=q_learning)
        self._latency: LatencySurrogate = (
            LearnedLatency(objective, self._encoding, space.backbone)
            if latency_predictor is None
            else PredictedLatency(objective, self._encoding, latency_predictor)
        )
        self._rows: list[IntArray] = []  # trained candidates, in the order of the observations
        self._accuracies: list[float] = []
        self._feasible: list[bool] = []
        self._shares: list[list[float]] = []  # in mode front: costs / reference
        self._costs = CostBeliefs(objective, self._encoding, self._latency) if objective.mode is Mode.FRONT else None
        self._fitted: tuple[int, SoftParameters] = (0, SoftParameters.prior(self._encoding.layers))

    def _learn(self, observation: Observation) -> None:
        reward = self.objective.reward(observation)
        if reward is None:
            return
        row = self._encoding.encode([observation.architecture])[0]
        self._agent.learn(row, reward)
        self._latency.learn(row, self.objective.learned_ms(observation))
        if observation.status is Status.DONE and observation.accuracy is not None:
            self._rows.append(row)
            self._accuracies.append(observation.accuracy)
            self._feasible.append(self.objective.keeps(observation))
            self._shares.append(self.objective.shares(observation))

    def _learn_prior(self, observation: Observation) -> bool:
        """Accuracy and latency are learned apart, so each is of use without the other."""
        if super()._learn_prior(observation):
            return True
        if observation.status is Status.FAILED:
            return False
        row = self._encoding.encode([observation.architecture])[0]
        self._latency.learn(row, self.objective.learned_ms(observation))
        if observation.status is Status.DONE and observation.accuracy is not None:
            self._rows.append(row)
            self._accuracies.append(observation.accuracy)
            self._feasible.append(False)  # nobody knows
            self._shares.append(self.objective.shares(observation))
        return False

    def _candidates(self, count: int, rng: np.random.Generator) -> Iterable[Architecture]:
        self._latency.refresh()
        if len(self._rows) < 2 or self.experience < self._initial_random:
            rows = self._near_budget(count, rng)
        else:
            rows = self._improvements(count, rng)
        return [self._encoding.decode(row) for row in rows]

    # --- the start ---------------------------------------------------------------------------------------------

    def _near_budget(self, count: int, rng: np.random.Generator) -> IntArray:
        """Random rows, those first that keep the budget and come near it: bigger networks are better ones."""
        rows = self._moves.random(20 * count, rng)
        if self._costs is not None:
            return rows[spread_start(self._costs(rows).mean, count)]
        load = self._latency.load(rows)
        if np.isnan(load).any():
            return rows
        promising = np.where(load <= 1, load, 2 - load)  # 1 is at the budget, on either side less
        sure = self._latency.log_feasible(rows) > np.log(0.5)
        return rows[np.lexsort((-promising, ~sure))]

    # --- with a surrogate --------------------------------------------------------------------------------------

    def _improvements(self, count: int, rng: np.random.Generator) -> IntArray:
        """`count` rows with the best expected improvement within the budgets, chosen together."""
        rows, accuracies, feasible = self._results()
        parameters = self._parameters()
        surrogate = GaussianProcess.given(
            self._kernel.gram(parameters, rows, rows), accuracies, noise_ratio=parameters.noise
        )
        best = surrogate.fitted[feasible]
        incumbent = float(best.max()) if len(best) else self.objective.chance

        front = None
        if self._costs is not None:
            shares = np.array(self._shares)[self._kept()]
            front = FrontAcquisition(
                self._costs, accuracies=surrogate.fitted, shares=shares, feasible=feasible, rng=rng
            )

        def score(candidates: IntArray) -> Floats:
            cross = self._kernel.gram(parameters, candidates, rows)
            mean, std = surrogate.predict(cross, self._kernel.diagonal(parameters, candidates))
            if front is not None:
                return front.score(candidates, mean, std)
            return log_expected_improvement(mean, std, incumbent) + self._latency.log_feasible(candidates)

        order = np.argsort(-np.where(feasible, surrogate.fitted, surrogate.fitted - 1.0), kind="stable")
        order = order[: self._parents] if front is None else front.elite(2 * self._parents)
        elite = np.unique(rows[order], axis=0)
        pool = self._evolve(elite, score, rng)[: max(100, 2 * count)]
        pending = self._encoding.encode(self.pending)
        points = np.concatenate([pool, pending])
        mean, covariance = surrogate.joint(
            self._kernel.gram(parameters, points, rows), self._kernel.gram(parameters, points, points)
        )
        if front is not None:
            return pool[
                front.choose(points, mean, covariance, noise=surrogate.noise, count=count, pending=len(pending))
            ]
        chosen = choose_batch(
            mean,
            covariance,
            noise=surrogate.noise,
            incumbent=incumbent,
            count=count,
            pending=len(pending),
            log_weight=self._latency.log_feasible(points),
        )
        return pool[chosen]

    def _results(self) -> tuple[IntArray, Floats, NDArray[np.bool_]]:
        """Rows, accuracies and feasibility of the results that the surrogate learns from."""
        keep = self._kept()
        return np.stack(self._rows)[keep], np.array(self._accuracies)[keep], np.array(self._feasible)[keep]

    def _kept(self) -> NDArray[np.int64]:
        """Indices of the results that the surrogate learns from."""
        n = len(self._rows)
        keep = np.arange(n)
        if n > self._max_results:
            half = self._max_results // 2
            latest = np.arange(n - half, n)
            others = np.argsort(-np.array(self._accuracies[: n - half]), kind="stable")[: self._max_results - half]
            keep = np.concatenate([np.sort(others), latest])
        return keep

    def _parameters(self) -> SoftParameters:
        """Of the kernel, fitted on the results up to the last milestone, so that a replay fits on the same ones."""
        milestone = 5
        while int(milestone * 1.15) + 1 <= len(self._rows):
            milestone = int(milestone * 1.15) + 1
        if milestone != self._fitted[0]:
            y = np.array(self._accuracies[:milestone])
            y = (y - y.mean()) / max(float(y.std()), 1e-9)
            self._fitted = (milestone, self._kernel.fit(np.stack(self._rows[:milestone]), y))
        return self._fitted[1]

    def _evolve(self, elite: IntArray, score: Callable[[IntArray], Floats], rng: np.random.Generator) -> IntArray:
        """Unknown rows, best score first, after several rounds of variation and selection."""
        known = {row.tobytes() for row in self._encoding.encode([*self._proposed, *self._observed])}
        size = self._pool_size
        parents = rng.integers(len(elite), size=(2, size // 8))
        start = [
            self._moves.mutate(elite[rng.integers(len(elite), size=size // 2)], rng),
            self._moves.cross(elite[parents[0]], elite[parents[1]], rng),
            self._agent.rollouts(size // 8, rng),
            self._moves.random(size // 4, rng),
        ]
        pool, scores = np.empty((0, elite.shape[1]), dtype=np.int64), np.empty(0)
        fresh = np.concatenate(start)
        for round_ in range(self._rounds + 1):
            if round_:
                top = pool[: max(4, size // 8)]
                picks = top[rng.integers(len(top), size=(2, size // 2))]
                fresh = self._moves.mutate(picks[0], rng)
                crossed = rng.random(len(fresh)) < 0.3
                fresh[crossed] = self._moves.cross(picks[0], picks[1], rng)[crossed]
            fresh = np.unique(fresh, axis=0)
            fresh = fresh[[row.tobytes() not in known for row in fresh]]
            known.update(row.tobytes() for row in fresh)
            pool, scores = np.concatenate([pool, fresh]), np.concatenate([scores, score(fresh) if len(fresh) else []])
            order = np.argsort(-np.round(scores, 9), kind="stable")
            pool, scores = pool[order], scores[order]
            if not len(pool):
                break
        return pool
