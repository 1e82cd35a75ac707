"""A searcher of Ray Tune behind npas's interface: a class that somebody else wrote, told what npas finds.

It is used as Tune uses it: asked with `suggest`, told with `on_trial_result` and `on_trial_complete`. What was known
before it was made, as when a run is resumed, is told by `add_evaluated_point` where it has that; else it is given as
`points_to_evaluate`: the searcher suggests that first and is answered at once. Imports Ray.
"""

from __future__ import annotations

import importlib
import inspect
import logging
import math
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

from ray.tune.search import Searcher

from npas_ray.search.parameters import Parameter, Parametrisation
from npas_ray.search.policy import Observation
from npas_ray.search.reward import Objective
from npas_ray.space.choices import Architecture

METRIC, MODE = "reward", "max"
#: what searchers call their seed
_SEEDS = ("seed", "random_state_seed", "random_state")


class Answer(StrEnum):
    """Of a searcher that suggests nothing of the space."""

    WAIT = "it wants results first"
    FINISHED = "it has nothing more to say"
    ILLEGAL = "what it said is not in the space"


Told = tuple[Architecture, Observation | None]  # None: under way

logger = logging.getLogger(__name__)


def searcher_class(path: str) -> type[Searcher]:
    """The class that "module:Class" names. Raises ValueError saying what is wrong with it."""
    module, colon, name = path.partition(":")
    if not (module and colon and name):
        raise ValueError(f"searcher is written as 'module:Class', got {path!r}")
    try:
        found = getattr(importlib.import_module(module), name)
    except ImportError as error:
        raise ValueError(f"searcher {path!r} cannot be imported: {error}") from error
    except AttributeError:
        raise ValueError(f"searcher {path!r}: module {module!r} has no {name!r}") from None
    if not (isinstance(found, type) and issubclass(found, Searcher)):
        raise ValueError(f"searcher {path!r} is no subclass of ray.tune.search.Searcher")
    return found


class Questioned:
    """A searcher in use: architectures out, observations in."""

    def __init__(
        self,
        kind: type[Searcher],
        said: Parametrisation,
        objective: Objective,
        *,
        arguments: Mapping[str, Any],
        seed: int,
        numbers: bool,
        known: Sequence[Told] = (),
    ) -> None:
        """A new searcher that is told what is `known`. Raises ValueError if it cannot be made with the arguments."""
        self._said = said
        self._objective = objective
        self._numbers = numbers
        self._trials: dict[Architecture, list[str]] = {}  # that wait for the result
        self._asked = 0
        accepted = inspect.signature(kind).parameters
        given = {"metric": METRIC, "mode": MODE} | dict(arguments)
        for name in _SEEDS:
            if name in accepted:
                given.setdefault(name, seed)
        if not _adds_points(kind) and known and "points_to_evaluate" in accepted:
            given["points_to_evaluate"] = [self._config(architecture) for architecture, _ in known]
        given = {k: v for k, v in given.items() if k in accepted or k in arguments or _takes_any(accepted)}
        try:
            self._searcher = kind(**given)
            self._searcher.set_search_properties(given.get("metric", METRIC), given.get("mode", MODE), self._space())
        except Exception as error:  # anybody's code
            said_so = f"{type(error).__name__}: {error}".splitlines()[0]
            raise ValueError(f"searcher {kind.__name__} cannot be made: {said_so}") from error
        self._catch_up(known)

    def _catch_up(self, known: Sequence[Told]) -> None:
        told = 0
        for architecture, observation in known:
            if _adds_points(type(self._searcher)):
                told += observation is None or self._add_point(observation)
                continue
            suggested = self.suggest()
            if suggested == architecture and observation is not None:
                self.conclude(observation)
                told += 1
            else:
                told += suggested == architecture
        if told < len(known):
            logger.warning(
                "%s was told %d of %d earlier results: it has neither add_evaluated_point nor points_to_evaluate",
                type(self._searcher).__name__,
                told,
                len(known),
            )

    # --- asking ------------------------------------------------------------------------------------------------

    def suggest(self) -> Architecture | Answer:
        """An architecture of the space, or why there is none."""
        trial_id = f"npas-{self._asked:06d}"
        config = self._searcher.suggest(trial_id)
        if config is None:
            return Answer.WAIT
        if not isinstance(config, Mapping):
            return Answer.FINISHED
        self._asked += 1
        try:
            architecture = self._said.architecture(self._positions(config))
        except ValueError as error:
            logger.warning("%s suggested %s: passed over", type(self._searcher).__name__, error)
            self._searcher.on_trial_complete(trial_id, error=True)
            return Answer.ILLEGAL
        self._trials.setdefault(architecture, []).append(trial_id)
        return architecture

    # --- telling -----------------------------------------------------------------------------------------------

    def conclude(self, observation: Observation) -> bool:
        """Tells the result of a candidate to every suggestion that it answers. False if it suggested no such thing."""
        waiting = self._trials.pop(observation.architecture, [])
        for trial_id in waiting:
            reward = self._objective.reward(observation)
            if reward is None:
                self._searcher.on_trial_complete(trial_id, error=True)
                continue
            result = self._result(observation, reward)
            self._searcher.on_trial_result(trial_id, result)
            self._searcher.on_trial_complete(trial_id, result=result)
        if not waiting and _adds_points(type(self._searcher)):
            self._add_point(observation)
        return bool(waiting)

    def _add_point(self, observation: Observation) -> bool:
        reward = self._objective.reward(observation)
        config = self._config(observation.architecture)
        try:
            self._searcher.add_evaluated_point(config, 0.0 if reward is None else reward, error=reward is None)
        except Exception as error:  # such as a searcher of several metrics, which takes one value here
            logger.warning("%s does not take an earlier result: %s", type(self._searcher).__name__, error)
            return False
        return True

    def _result(self, observation: Observation, reward: float) -> dict[str, Any]:
        """As Tune gives it: flat, and with its own keys."""
        latencies = {f"latency_ms/{model}": ms for model, ms in observation.latency_ms.items()}
        accuracy = self._objective.chance if observation.accuracy is None else observation.accuracy
        epochs = max(observation.rungs, default=1) or 1
        return {METRIC: reward, "accuracy": accuracy, **latencies, "training_iteration": epochs, "done": True}

    # --- the space ---------------------------------------------------------------------------------------------

    def _space(self) -> dict[str, Any]:
        from ray import tune

        if self._numbers:
            return {parameter.name: tune.uniform(0.0, 1.0) for parameter in self._parameters()}
        return {parameter.name: tune.choice(list(parameter.values)) for parameter in self._parameters()}

    def _parameters(self) -> list[Parameter]:
        return [parameter for parameter in self._said.parameters if len(parameter.values) > 1]

    def _config(self, architecture: Architecture) -> dict[str, Any]:
        positions = self._said.positions(architecture)
        if self._numbers:
            return {p.name: (positions[p.name] + 0.5) / len(p.values) for p in self._parameters()}
        return {p.name: p.values[positions[p.name]] for p in self._parameters()}

    def _positions(self, config: Mapping[str, Any]) -> dict[str, int]:
        """Raises ValueError for what is not in the space."""
        found = {parameter.name: 0 for parameter in self._said.parameters}
        for parameter in self._parameters():
            value = config.get(parameter.name)
            if self._numbers and isinstance(value, int | float) and math.isfinite(value):
                found[parameter.name] = min(len(parameter.values) - 1, max(0, int(value * len(parameter.values))))
            elif not self._numbers and value in parameter.values:
                found[parameter.name] = parameter.values.index(value)
            else:
                raise ValueError(f"{parameter.name}={value!r}, which is not in the space")
        return found


def _adds_points(kind: type[Searcher]) -> bool:
    return kind.add_evaluated_point is not Searcher.add_evaluated_point


def _takes_any(accepted: Mapping[str, inspect.Parameter]) -> bool:
    return any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in accepted.values())
