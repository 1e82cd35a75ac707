"""Any searcher of Ray Tune as a policy: ask it, tell it, and see to it that nothing is tried twice."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from npas_ray.search.parameters import Parameters, parametrised
from npas_ray.search.policy import Observation
from npas_ray.search.replayable import ReplayablePolicy
from npas_ray.search.reward import Objective
from npas_ray.search.settings import whole
from npas_ray.space.choices import Architecture
from npas_ray.space.search_space import SearchSpace

if TYPE_CHECKING:
    from npas_ray.search.tune_searcher import Questioned

#: known suggestions in a row before a random candidate is taken
_PATIENCE = 30


class TunePolicy(ReplayablePolicy):
    """A searcher of Tune's, or a class of yours, used as it is.

    It maximises "reward" unless its arguments say otherwise; results also hold "accuracy" and "latency_ms/MODEL". A
    suggestion that is known already is answered with its result and another one is asked for; one that is under way
    waits for the same result; one that is not in the space is told as an error. After 30 of these, and where the
    searcher would rather wait for results, a random candidate keeps the devices busy. When it says that it is finished,
    the search ends.

    A searcher has a state of its own, so this policy is not rebuilt exactly: after a restart the searcher is made anew
    and told all results that the journal holds (see `tune_searcher`), and goes on from there with its randomness begun
    anew. All else that policies promise holds.

    Args:
        searcher: "module:Class", such as "ray.tune.search.optuna:OptunaSearch" or one of your own on PYTHONPATH.
        arguments: of its constructor. Where it takes a seed it is given the search's.
        parameters: how the space is said: "choices" (a category for each layer), "factors" (operator, scheme and rate
            of each layer), or "numbers" (a number in [0, 1] for each layer, for searchers that know no categories).
        batch_size: how many the caller should ask for at a time.
    """

    name = "tune"

    def __init__(
        self,
        space: SearchSpace,
        objective: Objective,
        *,
        seed: int,
        searcher: str = "",
        arguments: Mapping[str, Any] | None = None,
        parameters: str = "choices",
        batch_size: int = 1,
    ) -> None:
        super().__init__(space, objective, seed=seed)
        self.batch_size = whole("batch_size", batch_size, least=1)
        if parameters not in (*Parameters, "numbers"):
            raise ValueError(f"parameters is one of {', '.join(Parameters)}, numbers, got {parameters!r}")
        if not isinstance(arguments, Mapping | None):
            raise ValueError(f"arguments is a mapping, got {arguments!r}")
        if not isinstance(searcher, str) or not searcher:
            raise ValueError(
                "searcher names a class, such as 'ray.tune.search.optuna:OptunaSearch' or 'my_module:MySearcher';"
                f" got {searcher!r}"
            )
        self._path = searcher
        self._arguments = dict(arguments or {})
        self._numbers = parameters == "numbers"
        self._said = parametrised(space, Parameters.CHOICES if self._numbers else Parameters(parameters))
        self._results: dict[Architecture, Observation] = {}
        self._questioned: Questioned | None = None
        if space.size > 1:
            self._make([])  # says now what is wrong with it

    def _make(self, known: list[tuple[Architecture, Observation | None]]) -> Questioned:
        from npas_ray.search.tune_searcher import Questioned, searcher_class

        return Questioned(
            searcher_class(self._path),
            self._said,
            self.objective,
            arguments=self._arguments,
            seed=self.seed,
            numbers=self._numbers,
            known=known,
        )

    def _learn(self, observation: Observation) -> None:
        self._results[observation.architecture] = observation
        if self._questioned is not None:
            self._questioned.conclude(observation)

    def _candidates(self, count: int, rng: np.random.Generator) -> Iterator[Architecture]:
        from npas_ray.search.tune_searcher import Answer

        if self.space.size == 1:  # nothing to ask about
            return
        if self._questioned is None:
            results: list[tuple[Architecture, Observation | None]] = list(self._results.items())
            self._questioned = self._make([*results, *((architecture, None) for architecture in self.pending)])
        taken: set[Architecture] = set()
        known = 0
        while len(taken) < count and known < _PATIENCE:
            suggested = self._questioned.suggest()
            if isinstance(suggested, Architecture) and not self.is_known(suggested) and suggested not in taken:
                taken.add(suggested)
                yield suggested
                continue
            if suggested in (Answer.WAIT, Answer.FINISHED):
                self.finished = suggested is Answer.FINISHED
                return
            known += 1
            if isinstance(suggested, Architecture) and suggested in self._results:
                self._questioned.conclude(self._results[suggested])
