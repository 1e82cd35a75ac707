"""The best candidate, made ready to leave: confirmed, trained in full, compiled with its weights, measured again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from device_farm.compiler import TARGETS, compile_network
from device_farm.compiler.graph import Graph
from npas_ray.config import SearchConfig
from npas_ray.files import write_atomically
from npas_ray.journal import Candidate
from npas_ray.runs.directory import RunDirectory
from npas_ray.runs.laboratory import Laboratory, cache_dir
from npas_ray.runs.progress import Progress
from npas_ray.search.policy import Status
from npas_ray.search.reward import Objective

# two seeds of one candidate differ by about a point, and the best of many is the luckiest of many
SEEDS_TO_BELIEVE = 3
FINALISTS = 3

SUMMARY, ARCHITECTURE, WEIGHTS = "summary.json", "architecture.json", "weights.safetensors"
ARTIFACT, MEASUREMENT = "network", "measurement.json"


def ship(
    config: SearchConfig, run: RunDirectory, *, lab: Laboratory, conductor: Any, objective: Objective, progress: Progress
) -> None:
    """Leaves the best candidate within the budgets in `run.best`, and a note "final" in the journal.

    Can be interrupted and called again: evaluations are kept, and `best/` is replaced as a whole or not at all.
    """
    import ray

    progress.phase("evaluating the best candidates again")
    winner = confirm(lab, conductor, objective)
    settings = {"key": winner.key, "final_epochs": config.training.final_epochs, "seed": config.seed}
    if _shipped(run) == settings:
        return
    progress.phase(f"training candidate #{winner.ordinal} in full")
    trained = lab.train_in_full(winner.architecture, epochs=config.training.final_epochs)
    progress.phase("compiling and measuring what is shipped")
    new = run.path / "best.new"
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    architecture = {
        "backbone": config.space.backbone,
        "layers": winner.architecture.to_json(),
        "key": winner.key,
        "block_height": lab.block_height,
        "task": config.task.model_dump(mode="json") | {"seed": config.seed},
    }
    _write_json(new / ARCHITECTURE, architecture)
    write_atomically(new / WEIGHTS, trained["weights"])
    graph, weights = Graph.from_json(trained["graph"]), trained["graph_weights"]
    latency_ms = {}
    for model in lab.models:
        measurement = lab.measure_deployed(graph, weights, model)
        artifact = compile_network(
            graph,
            target=TARGETS[measurement["device"]["target"]],
            out_dir=new / model,
            cache_dir=cache_dir(),
            weights=weights,
        )
        artifact.path.with_name(f"{artifact.path.name}.json").rename(new / model / f"{ARTIFACT}.json")
        artifact.path.rename(new / model / ARTIFACT)
        _write_json(new / model / MEASUREMENT, measurement)
        latency_ms[model] = measurement["latency_ms"]
    summary = settings | {
        "ordinal": winner.ordinal,
        "search_accuracy": winner.accuracy,
        "search_latency_ms": winner.latency_ms,
        "validation_accuracy": trained["accuracy"],
        "test_accuracy": trained["test_accuracy"],
        "latency_ms": latency_ms,
        "epochs": config.training.final_epochs,
    }
    _write_json(new / SUMMARY, summary)
    _replace(run.best, new)
    ray.get(conductor.note.remote("final", summary))


def confirm(lab: Laboratory, conductor: Any, objective: Objective) -> Candidate:
    """The best candidate within the budgets whose accuracy several seeds agree on.

    Evaluates the front runners with further seeds until the one in front has `SEEDS_TO_BELIEVE` of them; a candidate
    that was only lucky falls back on the way.
    """
    import ray

    while True:
        known = cast("list[Candidate]", ray.get(conductor.candidates.remote()))
        ranked = ranking(known, objective)
        if len(ranked[0].evaluations) >= SEEDS_TO_BELIEVE:
            return ranked[0]
        short = [candidate for candidate in ranked[:FINALISTS] if len(candidate.evaluations) < SEEDS_TO_BELIEVE]
        pending = {
            candidate.key: lab.train(candidate.architecture, seed=lab.seed + len(candidate.evaluations))
            for candidate in short
        }
        for key, evaluation in pending.items():
            ray.get(conductor.trained.remote(key, dict(evaluation.result())))


def ranking(candidates: list[Candidate], objective: Objective) -> list[Candidate]:
    """Trained candidates within the budgets, best first: by mean accuracy, then speed, then age."""
    feasible = [c for c in candidates if c.status is Status.DONE and objective.feasible(c.latency_ms)]
    return sorted(feasible, key=lambda c: (-(c.accuracy or 0.0), sum(c.latency_ms.values()), c.ordinal))


def _shipped(run: RunDirectory) -> Mapping[str, Any] | None:
    """The settings of what lies in best/, None if nothing whole lies there."""
    try:
        summary = json.loads((run.best / SUMMARY).read_text())
        return {name: summary[name] for name in ("key", "final_epochs", "seed")}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _replace(best: Path, new: Path) -> None:
    """best/ becomes new/. A crash in between leaves new/ or old/, and the next resume makes it again."""
    old = best.with_name("best.old")
    shutil.rmtree(old, ignore_errors=True)
    if best.exists():
        best.rename(old)
    new.rename(best)
    shutil.rmtree(old, ignore_errors=True)


def _write_json(path: Path, data: Any) -> None:
    write_atomically(path, (json.dumps(data, indent=2) + "\n").encode())
