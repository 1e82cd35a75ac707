"""Does fast evaluation rank candidates as full training does, and what does it cost?

    python benchmarks/fast_evaluation.py [--quick] [--json FILE]

Random legal candidates of the embedded task are evaluated at rungs of 0, 1 and 2 epochs and trained in full from the
same inherited weights; from scratch is the peer. One torch thread in each of two processes. Times are CPU seconds of
a candidate's process, which a busy machine disturbs least.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from npas_ray.networks.backbone import DIGITS
from npas_ray.networks.masking import network_masks
from npas_ray.networks.module import build_module
from npas_ray.networks.operators import dense_architecture
from npas_ray.pruning.one_shot import MaskedParameters
from npas_ray.space.choices import Architecture
from npas_ray.space.search_space import SearchSpace
from npas_ray.training.data import Task, digits_task
from npas_ray.training.fast_evaluation import evaluate
from npas_ray.training.optimise import Schedule, accuracy, fit
from npas_ray.training.teacher import Teacher, cached_teacher

BLOCK_HEIGHT = 32
RUNGS = (0, 1, 2)


@dataclass
class _Worker:
    """What one process keeps between candidates."""

    task: Task | None = None
    teacher: Teacher | None = None


_worker = _Worker()


def _start(directory: str) -> None:
    torch.set_num_threads(1)
    _worker.task = digits_task()
    _worker.teacher = cached_teacher(Path(directory), _worker.task, DIGITS)
    _run(dense_architecture(DIGITS).to_json(), "inherited", 0, 0)  # torch's first calls are slow


def _run(texts: list[str], method: str, epochs: int, seed: int) -> tuple[float, float]:
    """Accuracy and CPU seconds of one training."""
    assert _worker.task is not None and _worker.teacher is not None
    architecture = Architecture.from_json(texts)
    started = time.process_time()
    if method == "inherited":
        value = evaluate(
            architecture,
            task=_worker.task,
            teacher=_worker.teacher,
            block_height=BLOCK_HEIGHT,
            epochs=epochs,
            seed=seed,
            early_stop=None,
        ).evaluation.accuracy
    else:
        torch.manual_seed(seed)
        network = build_module(DIGITS, architecture)
        masks = network_masks(network, DIGITS, architecture, block_height=BLOCK_HEIGHT)
        masked = MaskedParameters(network.named_parameters(), masks)
        fit(network, _worker.task.train, Schedule(epochs), seed=seed, after_step=masked.enforce)
        value = accuracy(network, _worker.task.validation)
    return value, time.process_time() - started


def spearman(a: Sequence[float], b: Sequence[float]) -> float:
    """Rank correlation; equal values share their mean rank."""

    def ranks(values: Sequence[float]) -> np.ndarray[Any, Any]:
        array = np.asarray(values)
        return np.array([(array < v).sum() + ((array == v).sum() - 1) / 2 for v in array])

    return float(np.corrcoef(ranks(a), ranks(b))[0, 1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="24 candidates, 10 epochs of full training, no peer")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--candidates", type=int)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--teacher", type=Path, help="directory of a cached teacher (default: a temporary one)")
    options = parser.parse_args()
    count = options.candidates or (24 if options.quick else 60)
    full_epochs = 10 if options.quick else 25

    torch.set_num_threads(1)
    space = SearchSpace(DIGITS)
    rng = np.random.default_rng(0)
    candidates = list({space.sample(rng): None for _ in range(count)})
    with tempfile.TemporaryDirectory() as temporary:
        directory = options.teacher or Path(temporary)
        teacher = cached_teacher(directory, digits_task(), DIGITS)
        print(f"teacher: accuracy {teacher.accuracy:.3f}, {teacher.wall_s:.1f} s with all operators (one thread)")
        methods = [("inherited", epochs, 0) for epochs in RUNGS]
        methods += [("inherited", 2, 1), ("scratch", 2, 0), ("inherited", full_epochs, 7)]
        if options.quick:
            methods.remove(("scratch", 2, 0))
        with ProcessPoolExecutor(
            options.processes, get_context("spawn"), initializer=_start, initargs=(str(directory),)
        ) as pool:
            futures = {
                method: [pool.submit(_run, candidate.to_json(), *method) for candidate in candidates]
                for method in methods
            }
            results = {}
            for method, waiting in futures.items():
                results[method] = [future.result() for future in waiting]
                print(f"  done: {method}", file=sys.stderr)

    full = [value for value, _ in results[methods[-1]]]
    rows = []
    print(f"{len(candidates)} random legal candidates against {full_epochs} epochs\n")
    print(f"{'evaluation':28} {'Spearman':>8} {'mean':>6} {'min':>6} {'max':>6} {'CPU s':>6} {'p90 s':>6}")
    for method, listed in results.items():
        values, seconds = [v for v, _ in listed], [s for _, s in listed]
        name = f"{method[0]}, {method[1]} epochs, seed {method[2]}"
        row = {
            "evaluation": name,
            "spearman": spearman(values, full),
            "mean_accuracy": statistics.mean(values),
            "min_accuracy": min(values),
            "max_accuracy": max(values),
            "median_cpu_s": statistics.median(seconds),
            "p90_cpu_s": float(np.quantile(seconds, 0.9)),
        }
        rows.append(row)
        print(
            f"{name:28} {row['spearman']:8.3f} {row['mean_accuracy']:6.3f} {row['min_accuracy']:6.3f} "
            f"{row['max_accuracy']:6.3f} {row['median_cpu_s']:6.2f} {row['p90_cpu_s']:6.2f}"
        )
    two = [results["inherited", 2, seed] for seed in (0, 1)]
    between = statistics.mean(abs(a - b) for (a, _), (b, _) in zip(*two, strict=True))
    print(f"\ntwo seeds of 2 epochs differ by {between:.4f} on average")
    if options.json:
        report = {
            "candidates": len(candidates),
            "full_epochs": full_epochs,
            "teacher": {"accuracy": teacher.accuracy, "wall_s": teacher.wall_s},
            "rows": rows,
            "between_seeds": between,
        }
        options.json.write_text(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
