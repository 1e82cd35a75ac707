"""The trainers of a run: started at once, used when the teacher is there."""

from __future__ import annotations

import uuid
from types import TracebackType
from typing import Any, Self, cast

import ray

from npas_ray.config import SearchConfig
from npas_ray.runs.directory import RunDirectory
from npas_ray.runs.placement import here
from npas_ray.runs.progress import Progress
from npas_ray.runs.setting import backbone_of, block_height_of, tap_unit_of, task_of
from npas_ray.training.trainer_actor import TeacherOf, Trainer
from npas_ray.training.trainer_pool import TrainerPool


class Trainers:
    """Trainer actors that live as long as the with statement.

    The first one trains the teacher, if the run has none yet, while the caller does something else; the others, on any
    node of the cluster, get it from there.
    """

    def __init__(self, config: SearchConfig, run: RunDirectory, *, workers: int) -> None:
        self._names = [f"trainer-{config.name}-{uuid.uuid4().hex[:8]}-{index}" for index in range(workers)]
        self._backbone = backbone_of(config)
        self._directory = str(run.teacher.resolve())
        self._options = {
            "block_height": block_height_of(config),
            "tap_unit": tap_unit_of(config).value,
            "task": task_of(config),
        }
        self._hired: list[Any] = []

    def __enter__(self) -> Self:
        # the first one writes the teacher into the run's directory, so it stays with it
        self._hire(self._names[0], teacher=self._directory, scheduling_strategy=here())
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        for trainer in self._hired:
            ray.kill(trainer)

    def pool(self, progress: Progress) -> Any:
        """The handle of the pool, when the teacher is trained. Raises RayError."""
        progress.phase("training the teacher")
        teacher = ray.get(self._hired[0].teacher.remote())
        progress.log(f"teacher: {teacher['accuracy']:.1%} on the validation set, {teacher['wall_s']:.0f} s")
        for name in self._names[1:]:
            self._hire(name, teacher=TeacherOf(self._names[0]), scheduling_strategy="SPREAD")
        return cast(Any, TrainerPool).remote(self._names)

    def _hire(self, name: str, *, teacher: str | TeacherOf, scheduling_strategy: Any) -> None:
        actor = cast(Any, Trainer).options(name=name, scheduling_strategy=scheduling_strategy)
        self._hired.append(actor.remote(self._backbone, teacher, **self._options))
