"""The best candidate, made ready to leave: confirmed, trained in full, compiled with its weights, measured again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from device_farm.compiler import TARGETS, compile_network
from device_farm.measurement.codec import measurement_to_json, replicated_to_json
from device_farm.measurement.finalists import Believed, Effort
from npas_ray.config import SearchConfig
from npas_ray.errors import RunError
from npas_ray.journal import Candidate
from npas_ray.runs.confirmation import confirm, confirm_front
from npas_ray.runs.directory import RunDirectory
from npas_ray.runs.laboratory import ConductorBook, Laboratory
from npas_ray.runs.progress import Progress
from npas_ray.runs.reach import trained_candidate
from npas_ray.runs.replication import believed_latencies, to_json
from npas_ray.runs.setting import cache_dir, task_of
from npas_ray.runs.shipped import (
    ARCHITECTURE,
    ARTIFACT,
    MEASUREMENT,
    REPLICATES,
    SUMMARY,
    WEIGHTS,
    Shipped,
    replace_directory,
)
from npas_ray.runs.winner import believed_winner
from npas_ray.search.reward import Mode


def ship(
    config: SearchConfig,
    run: RunDirectory,
    *,
    lab: Laboratory,
    conductor: Any,
    progress: Progress,
    chosen: int | None = None,
) -> None:
    """Leaves the best candidate within the budgets in `run.best`, and a note "final" in the journal.

    Of a front that is its compromise, see `ranking`; its other members are evaluated again as well, and `chosen`, the
    ordinal of any candidate, ships that one instead. Raises RunError if there is no such trained candidate.

    Can be interrupted and called again: evaluations are kept, and `best/` is replaced as a whole or not at all.
    """
    import ray

    progress.phase("evaluating the best candidates again")
    if chosen is not None:
        winner = trained_candidate(ray.get(conductor.candidates.remote()), chosen)
    else:
        if lab.objective.mode is Mode.FRONT:
            books = ConductorBook(conductor)
            confirm(lab, books)
            while confirm_front(lab, books):  # the seeds of one can change who is on the front, and the other way round
                confirm(lab, books)
        winner = believed_winner(config, lab=lab, conductor=conductor, progress=progress)
    identity = {"key": winner.key, "epochs": config.training.final_epochs, "seed": config.seed}
    if _identity_of_shipped(run) == identity:
        return
    progress.phase(f"training candidate #{winner.ordinal} in full")
    evaluation, weights = lab.train_in_full(winner.architecture, epochs=config.training.final_epochs)
    progress.phase("compiling and measuring what is shipped")
    new = run.path / "best.new"
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    (new / WEIGHTS).write_bytes(weights)
    architecture = {
        "backbone": config.space.backbone,
        "layers": winner.architecture.to_json(),
        "key": winner.key,
        "block_height": lab.block_height,
        "tap_unit": lab.tap_unit,
        "task": {"name": config.task.name} | task_of(config),
    }
    _write_json(new / ARCHITECTURE, architecture)
    believed = _artifacts(new, winner, weights, lab=lab, effort=config.measurement.finalists.effort())
    summary = identity | {
        "ordinal": winner.ordinal,
        "search_accuracy": winner.accuracy,
        "search_accuracies": [e["accuracy"] for e in winner.best_trained],  # the first is what the search went by
        "search_latency_ms": winner.latency_ms,
        "validation_accuracy": evaluation["accuracy"],
        "test_accuracy": _test_accuracy(Shipped(new)),
        "latency_ms": {model: found.latency.latency_ms for model, found in believed.items()},
        "replicated": {model: replicated_to_json(found.latency) for model, found in believed.items()},
    }
    _write_json(new / SUMMARY, summary)
    replace_directory(run.best, new=new)
    ray.get(conductor.note.remote("final", summary))


def _artifacts(new: Path, winner: Candidate, packed: bytes, *, lab: Laboratory, effort: Effort) -> dict[str, Believed]:
    """Compiles and measures the network for every device model, in several sessions and on several phones."""
    from npas_ray.networks.deploying import deploy
    from npas_ray.training.trainer_actor import unpack

    network, masks = unpack(packed, lab.backbone, winner.architecture)
    graph, weights = deploy(
        network, lab.backbone, winner.architecture, masks, block_height=lab.block_height, tap_unit=lab.tap_unit
    )
    believed = believed_latencies(lab.farm, graph, models=lab.models, effort=effort, weights=weights)
    for model, found in believed.items():
        measurement = measurement_to_json(found.sessions[0])
        target = TARGETS[measurement["device"]["target"]]
        threads = measurement["device"].get("threads", 1)
        artifact = compile_network(
            graph, target=target, out_dir=new / model, cache_dir=cache_dir(), weights=weights, threads=threads
        )  # the kernels are in the cache, and the key is that of the measured one
        artifact.path.with_name(f"{artifact.path.name}.json").rename(new / model / f"{ARTIFACT}.json")
        artifact.path.rename(new / model / ARTIFACT)
        _write_json(new / model / MEASUREMENT, measurement)
        _write_json(new / model / REPLICATES, to_json(found))
    return believed


def _test_accuracy(shipped: Shipped) -> float:
    from npas_ray.training.optimise import accuracy

    return accuracy(shipped.network(), shipped.task().test)


def _identity_of_shipped(run: RunDirectory) -> Mapping[str, Any] | None:
    """What decides whether best/ is up to date; None if nothing whole lies there."""
    try:
        summary = Shipped(run.best).summary
        return {name: summary[name] for name in ("key", "epochs", "seed")}
    except (RunError, KeyError):
        return None


def _write_json(path: Path, data: Any) -> None:
    path.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
