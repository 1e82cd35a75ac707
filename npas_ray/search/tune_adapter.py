"""A policy as a searcher of Ray Tune: the one place where the two meet.

`suggest` runs in Tune's event loop, so it never computes: it asks the conductor's actor, returns None until the answer
is there, and the configuration that it returns is in the journal already.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import ray
from ray.actor import ActorHandle
from ray.tune.search import Searcher

from npas_ray.runs.conductor import Conductor, Issued
from npas_ray.runs.ray_session import raise_if_interrupted

# With no live trial Tune polls once a second, so then suggest may as well wait for the conductor
WAIT_WHEN_IDLE_S = 1.0


class ConductedSearcher(Searcher):
    """Feeds Tune from a conductor and tells it of trials that Tune gave up.

    `max_live` trials run at once. `on_result(result)` is called for every trial that ends well. After too many losses
    in a row `broken` holds the last reason, and no more trials are started.
    """

    def __init__(
        self,
        conductor: ActorHandle[Conductor],
        *,
        max_live: int,
        metric: str,
        on_result: Callable[[dict[str, Any]], None],
    ) -> None:
        super().__init__(metric=metric, mode="max")
        self.broken: str | None = None
        self._conductor = conductor
        self._max_live = max_live
        self._on_result = on_result
        self._live: dict[str, str] = {}  # trial id -> candidate key
        self._asked: ray.ObjectRef[Any] | None = None

    def set_max_concurrency(self, max_concurrent: int) -> bool:
        """The searcher owns the limit: Tune must not wrap it in a limiter of its own."""
        return True

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        raise_if_interrupted()
        if self.broken:
            return self._finished_or_none()
        if len(self._live) >= self._max_live:
            return None
        if self._asked is None:
            self._asked = cast(Any, self._conductor).issue.remote()
        ready, _ = ray.wait([self._asked], timeout=0 if self._live else WAIT_WHEN_IDLE_S)
        if not ready:
            return None
        issued = cast("Issued | None", ray.get(self._asked))
        self._asked = None
        if issued is not None and issued.key in self._live.values():
            return None  # the conductor was restarted, and issues again what is under way here
        if issued is None:
            return self._finished_or_none()
        self._live[trial_id] = issued.key
        return {
            "key": issued.key,
            "ordinal": issued.ordinal,
            # layer by layer, so that TensorBoard's hyper-parameter page has a column for each
            "layers": {f"{index:02d}": str(choice) for index, choice in enumerate(issued.architecture.layers)},
        }

    def _finished_or_none(self) -> dict[str, Any] | None:
        """FINISHED ends the experiment at once, so never while a live trial may still fail and be tried again."""
        return None if self._live else cast(Any, Searcher.FINISHED)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        key = self._live.pop(trial_id, None)
        if key is None:
            return
        if error or result is None:
            reason = "its trial broke down again and again; see the errors under tune/"
            if ray.get(cast(Any, self._conductor).lost.remote(key, reason)):
                self.broken = f"candidate {key}: {reason}"
            return
        self._on_result(result)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the journal is the truth."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the journal is the truth."""
