"""A run as reports see it: what its journal says, read once, and what follows from that."""

from __future__ import annotations

import fcntl
import functools
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from npas_ray.journal import Candidate, Journal
from npas_ray.networks.backbone import BACKBONES
from npas_ray.reports.fronts import WholeFront, whole_front
from npas_ray.reports.pareto import front, hypervolume
from npas_ray.runs.directory import RunDirectory
from npas_ray.search.policy import Status
from npas_ray.search.reward import Objective

if TYPE_CHECKING:
    from npas_ray.reports.baselines import Baselines

# what candidates() tells already
_OF_CANDIDATES = {"proposed", "measured", "trained", "concluded"}


@dataclass(frozen=True)
class Note:
    """What a run wrote down beside its candidates: sessions, the teacher, the final training."""

    at: float  # seconds since the epoch
    kind: str
    data: Any


@dataclass(frozen=True)
class RunData:
    """Everything that a run's journal says, at one moment."""

    path: Path
    config: Mapping[str, Any]
    candidates: tuple[Candidate, ...]
    notes: tuple[Note, ...] = ()
    created_at: float | None = None  # seconds since the epoch
    changed_at: float | None = None
    running: bool = False  # some process holds the run

    # --- what was asked for ------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return str(self.config.get("name") or self.path.resolve().name)

    @property
    def wanted(self) -> int | None:
        """How many candidates the run is to have; a later session may have asked for more than the first."""
        for note in reversed(self.notes):
            wanted = _inner(note.data, "config", "search", "candidates") if note.kind == "session" else None
            if isinstance(wanted, int):
                return wanted
        wanted = _inner(self.config, "search", "candidates")
        return wanted if isinstance(wanted, int) else None

    @property
    def budgets_ms(self) -> dict[str, float]:
        """By device model; shares of the dense network are settled once that is measured."""
        absolute, shares = (_inner(self.config, "objective", name) for name in ("budgets_ms", "budgets_of_dense"))
        budgets = dict(absolute) if isinstance(absolute, dict) else {}
        dense_ms = self.dense_ms
        for model, share in (shares if isinstance(shares, dict) else {}).items():
            if model in dense_ms:
                budgets[model] = share * dense_ms[model]
        return budgets

    @cached_property
    def dense_ms(self) -> dict[str, float]:
        """What the network that nothing was taken from takes on each device model."""
        return {
            note.data["model"]: float(note.data["measurement"]["latency_ms"])
            for note in self.notes
            if note.kind == "dense" and isinstance(note.data, dict)
        }

    @cached_property
    def models(self) -> tuple[str, ...]:
        """Device models with measurements, those with a budget first."""
        measured = dict.fromkeys(model for candidate in self.candidates for model in candidate.measurements)
        return tuple(dict.fromkeys((*(model for model in self.budgets_ms if model in measured), *measured)))

    @cached_property
    def layer_names(self) -> tuple[str, ...]:
        layers = max((len(candidate.architecture.layers) for candidate in self.candidates), default=0)
        backbone = BACKBONES.get(str(_inner(self.config, "space", "backbone")))
        if backbone is not None and backbone.layers == layers:
            return (*(block.name for block in backbone.blocks), *(("fc",) if backbone.searchable_head else ()))
        return tuple(f"layer{index}" for index in range(layers))

    # --- what came of it ---------------------------------------------------------------------------------------

    def with_status(self, status: Status | None) -> list[Candidate]:
        return [candidate for candidate in self.candidates if candidate.status is status]

    @property
    def concluded(self) -> list[Candidate]:
        """In the order of their conclusions."""
        ended = [candidate for candidate in self.candidates if candidate.conclusion is not None]
        return sorted(ended, key=lambda candidate: candidate.conclusion or 0)

    @property
    def done(self) -> list[Candidate]:
        """Trained, and within every budget."""
        return [candidate for candidate in self.candidates if is_done(candidate)]

    @property
    def finished(self) -> bool:
        return self.wanted is not None and len(self.concluded) >= self.wanted

    @cached_property
    def best(self) -> Candidate | None:
        """The most accurate within the budgets; of equals the one that is fastest, then the one that came first.

        Of a front, its compromise (`WholeFront.compromise`).
        """
        if self.whole_front is not None:
            return self.whole_front.compromise
        return max(self.done, key=rank, default=None)

    @cached_property
    def whole_front(self) -> WholeFront | None:
        """The front over all axes, of a run in mode front; None for others, and before its references were measured."""
        if _inner(self.config, "objective", "mode") != "front":
            return None
        return whole_front(
            self.latest_note("front"),
            backbone=str(_inner(self.config, "space", "backbone")),
            budgets_ms=self.budgets_ms,
            certainty=self.objective.certainty,
            concluded=self.concluded,
        )

    @cached_property
    def objective(self) -> Objective:
        """Budgets and how surely they have to be kept, for what a measurement's interval says of them."""
        certainty = _inner(self.config, "objective", "certainty")
        known = isinstance(certainty, int | float) and 0.5 <= certainty < 1
        return Objective(self.budgets_ms, certainty=float(certainty) if known else Objective.certainty)

    def front(self, model: str) -> list[Candidate]:
        """Trained candidates that no other one beats in both accuracy and latency on a model, fastest first."""
        return self._fronts.get(model, [])

    @cached_property
    def _fronts(self) -> dict[str, list[Candidate]]:
        measured = {model: [c for c in self.done if model in c.measurements] for model in self.models}
        return {model: front(measured[model], functools.partial(_point, model=model)) for model in self.models}

    def hypervolume(self, model: str) -> tuple[float, float] | None:
        """(share of the plane that the front dominates, reference latency_ms): 1 is all of it.

        The plane reaches from accuracy 0 to 1, and from 0 ms to the budget, or without one to the slowest candidate.
        """
        measured = [_point(candidate, model) for candidate in self.done if model in candidate.measurements]
        reference_ms = self.budgets_ms.get(model) or max((latency_ms for _, latency_ms in measured), default=0.0)
        if not measured or reference_ms <= 0:
            return None
        return hypervolume(measured, accuracy=0.0, latency_ms=reference_ms) / reference_ms, reference_ms

    @cached_property
    def baselines(self) -> Baselines:
        """What simpler searches would have found, simulated; takes seconds."""
        from npas_ray.reports.baselines import simulate

        return simulate(self)

    def emulated(self, model: str | None = None) -> bool:
        """Whether any latency (of a model) was taken on an emulated device."""
        return bool(self._emulated) if model is None else model in self._emulated

    @cached_property
    def _emulated(self) -> set[str]:
        return {
            model
            for candidate in self.candidates
            for model, measurement in candidate.measurements.items()
            if _inner(measurement, "device", "emulated")
        }

    def latest_note(self, kind: str) -> dict[str, Any]:
        """The data of the last note of a kind; empty if there is none."""
        found = [note.data for note in self.notes if note.kind == kind and isinstance(note.data, dict)]
        return found[-1] if found else {}

    def summary(self) -> dict[str, Any]:
        """What a script wants to know, as plain data."""
        return {
            "name": self.name,
            "run_dir": str(self.path),
            "state": self.state,
            "wanted": self.wanted,
            "proposed": len(self.candidates),
            "concluded": len(self.concluded),
            "done": len(self.with_status(Status.DONE)),
            "over_budget": len(self.with_status(Status.OVER_BUDGET)),
            "failed": len(self.with_status(Status.FAILED)),
            "stopped": len(self.with_status(Status.STOPPED)),
            "under_way": len(self.with_status(None)),
            "created_at": self.created_at,
            "changed_at": self.changed_at,
            "budgets_ms": self.budgets_ms,
            "emulated": self.emulated(),
            "final": self.latest_note("final") or None,
            "best": None if self.best is None else as_json(self.best),
            "front": {model: [as_json(candidate) for candidate in self.front(model)] for model in self.models},
            "whole_front": None if self.whole_front is None else self.whole_front.summary(),
        }

    @property
    def state(self) -> str:
        """running, finished or unfinished."""
        return "running" if self.running else "finished" if self.finished else "unfinished"


def read_run(run_dir: Path) -> RunData:
    """A run that is under way or has ended; it is not touched. Raises RunError if there is none, JournalError."""
    run = RunDirectory.existing(run_dir)
    with Journal.open(run.journal, read_only=True) as journal:
        candidates = tuple(journal.candidates())
        events = journal.events()
        config, created_at = journal.config, journal.meta("created_at")
    return RunData(
        path=run_dir,
        config=config,
        candidates=candidates,
        notes=tuple(Note(at, kind, data) for at, kind, _, data in events if kind not in _OF_CANDIDATES),
        created_at=None if created_at is None else float(created_at),
        changed_at=events[-1][0] if events else None,
        running=_is_held(run.path / "run.lock"),
    )


def is_done(candidate: Candidate) -> bool:
    """Trained to the end, and within every budget."""
    return candidate.status is Status.DONE and candidate.accuracy is not None


def accuracy_std(candidate: Candidate) -> float | None:
    """Standard deviation of the accuracy over the seeds of the longest training (a fraction); None below two."""
    values = [float(evaluation["accuracy"]) for evaluation in candidate.best_trained]
    return statistics.stdev(values) if len(values) > 1 else None


def seeds_said(candidate: Candidate) -> str:
    """mean of 5 seeds, the search saw 92.40 %; empty where there is one seed"""
    values = [float(evaluation["accuracy"]) for evaluation in candidate.best_trained]
    return f"mean of {len(values)} seeds, the search saw {100 * values[0]:.2f} %" if len(values) > 1 else ""


def rank(candidate: Candidate) -> tuple[float, float, int]:
    """Better candidates have a greater one: accuracy, then speed, then age."""
    return candidate.accuracy or 0.0, -sum(candidate.latency_ms.values()), -candidate.ordinal


def macs_of(candidate: Candidate) -> tuple[int | None, int | None]:
    """(multiply-accumulates before, after pruning), if any measurement or evaluation says."""
    facts = [*candidate.measurements.values(), *candidate.evaluations]
    found = [next((fact[name] for fact in facts if isinstance(fact.get(name), int)), None) for name in _MACS]
    return found[0], found[1]


_MACS = ("macs", "kept_macs")


def as_json(candidate: Candidate) -> dict[str, Any]:
    return {
        "ordinal": candidate.ordinal,
        "key": candidate.key,
        "accuracy": candidate.accuracy,
        "accuracy_std": accuracy_std(candidate),
        "accuracy_in_search": candidate.best_trained[0]["accuracy"] if candidate.best_trained else None,
        "seeds": len(candidate.best_trained),
        "latency_ms": candidate.latency_ms,
        "architecture": candidate.architecture.to_json(),
    }


def _point(candidate: Candidate, model: str) -> tuple[float, float]:
    return candidate.accuracy or 0.0, candidate.latency_ms[model]


def _inner(data: Any, *path: str) -> Any:
    for name in path:
        data = data.get(name) if isinstance(data, Mapping) else None
    return data


def _is_held(lock: Path) -> bool:
    """Whether another process holds the lock. Asks for a shared one and gives it back at once."""
    try:
        with lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
