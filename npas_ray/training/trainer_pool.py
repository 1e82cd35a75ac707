"""Hands fast evaluations to idle trainers. An async Ray actor, so that any number of trials can wait at once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayActorError

ATTEMPTS = 3


@ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)
class TrainerPool:
    """Evaluates on whichever of the named trainers is idle; one that dies is restarted by Ray, its work done again."""

    def __init__(self, names: Sequence[str]) -> None:
        # names, not handles: Ray could not restart this actor once the handles given to it are out of scope
        self._idle: asyncio.Queue[ActorHandle[Any]] = asyncio.Queue()
        for name in names:
            self._idle.put_nowait(ray.get_actor(name))

    async def call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """The result of `trainer.method(*args, **kwargs)`. Raises what it raises."""
        for attempt in range(1, ATTEMPTS + 1):
            trainer = await self._idle.get()
            try:
                return await getattr(trainer, method).remote(*args, **kwargs)
            except RayActorError:
                if attempt == ATTEMPTS:
                    raise
            finally:
                self._idle.put_nowait(trainer)
        raise AssertionError("unreachable")
