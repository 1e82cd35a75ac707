"""A run's warm start: what it took from other searches is in its own journal, as it was at its first start.

So a resume is the same search, whatever became of the sources. Latencies can only be judged when this run's devices
have measured the dense network, so it is settled then, before the first proposal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from npas_ray.config import SearchConfig
from npas_ray.errors import RunError
from npas_ray.journal import Journal
from npas_ray.runs.directory import RunDirectory
from npas_ray.runs.progress import Progress
from npas_ray.runs.setting import DENSE
from npas_ray.runs.warm_start_fit import Dense, fit
from npas_ray.runs.warm_start_sources import read_source
from npas_ray.search.policy import Observation, Status
from npas_ray.search.replayable import ReplayablePolicy
from npas_ray.search.reward import Objective
from npas_ray.space.choices import Architecture
from npas_ray.space.search_space import SearchSpace

#: the journal's note with what was taken
WARM_START = "warm-start"


@dataclass(frozen=True)
class WarmStart:
    """What a search begins with, and where it is from in words."""

    prior: tuple[Observation, ...] = ()
    start_with: tuple[Architecture, ...] = ()
    said: tuple[str, ...] = ()

    def apply(self, policy: ReplayablePolicy) -> ReplayablePolicy:
        """The policy, which has to be a new one. Raises InvalidObservation."""
        return policy.warm_start(prior=self.prior, start_with=self.start_with)

    def to_json(self) -> dict[str, Any]:
        return {
            "said": list(self.said),
            "start_with": [architecture.to_json() for architecture in self.start_with],
            "prior": [_to_json(observation) for observation in self.prior],
        }

    @classmethod
    def from_json(cls, data: Any) -> WarmStart:
        """Inverse of `to_json`. Raises ValueError, KeyError, TypeError."""
        return cls(
            tuple(_from_json(item) for item in data["prior"]),
            tuple(Architecture.from_json(item) for item in data["start_with"]),
            tuple(str(line) for line in data["said"]),
        )


def gather(
    config: SearchConfig, *, own_path: Path, space: SearchSpace, objective: Objective, dense: Dense | None
) -> WarmStart:
    """Everything that the configuration's sources have for this search; of an architecture that several of them know,
    the first one's word counts.

    `dense` as for `fit`. Raises RunError: a source is missing, damaged, or this very run.
    """
    prior: dict[Architecture, Observation] = {}
    start_with: dict[Architecture, None] = {}
    said: list[str] = []
    for source in config.search.warm_start:
        path = Path(source.path).expanduser()
        if source.run is not None and path.resolve() == own_path.resolve():
            raise RunError(f"search.warm_start: {path} is this very run; continue it with --resume instead")
        found = read_source(path, is_run=source.run is not None, keys=source.keys or (), layer_names=space.layer_names)
        taken = fit(found, config=config, space=space, objective=objective, dense=dense, start_with=source.start_with)
        for observation in taken.prior:
            prior.setdefault(observation.architecture, observation)
        start_with |= dict.fromkeys(taken.start_with)
        said += [taken.said[0], *(f"  {line}" for line in taken.said[1:])]
    return WarmStart(tuple(prior.values()), tuple(start_with), tuple(said))


def check_warm_start(config: SearchConfig, run: RunDirectory, space: SearchSpace) -> WarmStart:
    """What it would be, as far as can be said before a device has measured anything. Changes nothing.

    Raises RunError.
    """
    settled = _settled(run) if run.journal.is_file() else None
    if settled is not None:
        return settled
    return gather(config, own_path=run.path, space=space, objective=Objective(), dense=None)


def settle_warm_start(
    config: SearchConfig, run: RunDirectory, space: SearchSpace, objective: Objective, progress: Progress
) -> None:
    """Puts what the configuration asks for into the run's journal, once, and says what that is. Raises RunError."""
    if not config.search.warm_start or _settled(run) is not None:
        return
    with run.writing(), Journal.open(run.journal) as journal:
        dense = {data["model"]: data["measurement"] for _, _, _, data in journal.events(DENSE)}
        taken = gather(config, own_path=run.path, space=space, objective=objective, dense=dense)
        journal.note(WARM_START, taken.to_json())
    for line in taken.said:
        progress.log(f"warm start: {line}")


def warm_start_of(config: SearchConfig, run: RunDirectory) -> WarmStart:
    """What the run began with; nothing, if its configuration asks for nothing. Raises RunError: it is damaged."""
    if not config.search.warm_start:
        return WarmStart()
    settled = _settled(run)
    if settled is None:
        raise RunError(f"{run.journal} lacks the warm start of the run; start a new run")
    return settled


def _settled(run: RunDirectory) -> WarmStart | None:
    with Journal.open(run.journal, read_only=True) as journal:
        notes = journal.events(WARM_START)
    try:
        return WarmStart.from_json(notes[0][3]) if notes else None
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"the warm start in {run.journal} is damaged: {error}; start a new run") from error


def _to_json(observation: Observation) -> dict[str, Any]:
    data = {
        "architecture": observation.architecture.to_json(),
        "status": str(observation.status),
        "accuracy": observation.accuracy,
        "latency_ms": dict(observation.latency_ms),
        "latency_ci_ms": {model: list(interval) for model, interval in observation.latency_ci_ms.items()},
        "rungs": {str(epochs): accuracy for epochs, accuracy in observation.rungs.items()},
    }
    return {name: value for name, value in data.items() if value not in (None, {})}


def _from_json(data: Mapping[str, Any]) -> Observation:
    return Observation(
        Architecture.from_json(data["architecture"]),
        Status(data["status"]),
        data.get("accuracy"),
        dict(data.get("latency_ms", {})),
        {model: (low, high) for model, (low, high) in data.get("latency_ci_ms", {}).items()},
        {int(epochs): accuracy for epochs, accuracy in data.get("rungs", {}).items()},
    )
