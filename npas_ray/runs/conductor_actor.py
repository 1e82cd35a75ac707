"""The conductor as a Ray actor: opens the journal, rebuilds the policy, and then is a Conductor."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from npas_ray.config import SearchConfig
from npas_ray.journal import Journal
from npas_ray.runs.calibrated import policy_of
from npas_ray.runs.conductor import Conductor
from npas_ray.runs.directory import RunDirectory
from npas_ray.runs.setting import ladder_of
from npas_ray.search.reward import Objective


class ConductorActor(Conductor):
    """Restarted by Ray it rebuilds itself from the journal and goes on; candidates under way are issued again."""

    def __init__(self, run_path: Path, config: SearchConfig, objective: Objective) -> None:
        run = RunDirectory(run_path)
        self._held = ExitStack()  # for the life of the process
        self._held.enter_context(run.writing())
        policy = policy_of(config, run, objective)
        super().__init__(
            Journal.open(run.journal),
            policy,
            candidates=config.search.candidates,
            ladder=ladder_of(config),
            batch_size=policy.batch_size,
        )
