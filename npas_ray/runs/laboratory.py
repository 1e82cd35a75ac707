"""Where candidates are measured and trained: the farm and the trainers of one run, as a handle that trials can hold."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, cast

import ray
from numpy.typing import NDArray
from ray.actor import ActorHandle

from device_farm.compiler.graph import Graph
from device_farm.compiler.sparsity import TapUnit
from device_farm.fleet.farm import Farm
from device_farm.measurement.codec import measurement_to_json
from npas_ray.journal import Candidate
from npas_ray.networks.backbone import Backbone
from npas_ray.networks.lowering import lower
from npas_ray.runs.conductor import Conductor
from npas_ray.runs.evaluation import Evaluator
from npas_ray.search.policy import Status
from npas_ray.search.reward import Objective
from npas_ray.space.choices import Architecture
from npas_ray.training.trainer_pool import TrainerPool

#: on disk and in memory, what a training leaves: see Evaluation
Evaluation = Mapping[str, Any]


@dataclass(frozen=True)
class Laboratory:
    """Measures and trains architectures of one backbone. Serialisable: every trial gets a copy.

    `block_height` is the number of filters that share a tap list, the same for masks and kernels;
    `tap_unit` says whether a tap is one channel or four. `epochs` is how long a finished candidate was trained; what
    the ladder stops was trained for less.
    """

    backbone: Backbone
    block_height: int
    tap_unit: TapUnit
    models: tuple[str, ...]
    objective: Objective
    epochs: int
    seed: int
    trials_at_once: int
    farm: Farm
    trainers: ActorHandle[TrainerPool]

    def measure(self, architecture: Architecture, model: str) -> Mapping[str, Any]:
        """Measurement of the architecture on a device of the model, as JSON. Raises FarmError."""
        graph = lower(self.backbone, architecture, block_height=self.block_height, tap_unit=self.tap_unit)
        return measurement_to_json(self.farm.measure(graph, model=model))

    def measure_deployed(self, graph: Graph, weights: Mapping[str, NDArray[Any]], model: str) -> Mapping[str, Any]:
        """Measurement of what ships, with its own weights, as JSON. Raises FarmError."""
        return measurement_to_json(self.farm.measure(graph, model=model, weights=weights))

    def train(self, architecture: Architecture, epochs: int, *, seed: int | None = None) -> Future[Evaluation]:
        """Starts a fast evaluation and returns at once; its result has "accuracy", "epochs", "seed" and more."""
        seed = self.seed if seed is None else seed
        result = cast(Any, self.trainers).call.remote("evaluate", architecture.to_json(), epochs=epochs, seed=seed)
        return cast("Future[Evaluation]", result.future())

    def train_in_full(self, architecture: Architecture, *, epochs: int) -> tuple[Evaluation, bytes]:
        """The training of what ships: its evaluation, and weights and masks as trainer_actor.pack makes them."""
        result = cast(Any, self.trainers).call.remote(
            "full_train", architecture.to_json(), epochs=epochs, seed=self.seed
        )
        return cast("tuple[Evaluation, bytes]", ray.get(result))

    def evaluator(self, conductor: ActorHandle[Conductor]) -> Evaluator:
        """An evaluator that works here and writes into the conductor's journal."""
        return Evaluator(
            self.models,
            self.objective.budgets_ms,
            self.epochs,
            self.measure,
            self.train,
            ConductorBook(conductor),
            counted_ms=self.objective.counted_ms,
        )


class ConductorBook:
    """The conductor's actor as a Book, and as Books: every call returns when the fact is on disk."""

    def __init__(self, conductor: ActorHandle[Conductor]) -> None:
        self._conductor = cast(Any, conductor)

    def measured(self, key: str, model: str, measurement: Mapping[str, Any]) -> None:
        ray.get(self._conductor.measured.remote(key, model, measurement))

    def trained(self, key: str, evaluation: Mapping[str, Any]) -> None:
        ray.get(self._conductor.trained.remote(key, dict(evaluation)))

    def next_rung(self, key: str) -> int | None:
        return cast("int | None", ray.get(self._conductor.next_rung.remote(key)))

    def conclude(self, key: str, status: Status, reason: str | None = None) -> None:
        ray.get(self._conductor.conclude.remote(key, status, reason))

    def candidates(self) -> list[Candidate]:
        return cast("list[Candidate]", ray.get(self._conductor.candidates.remote()))

    def overlooked(self) -> list[str]:
        return cast("list[str]", ray.get(self._conductor.overlooked.remote()))

    def promote(self, key: str, reason: str) -> None:
        ray.get(self._conductor.promote.remote(key, reason))
