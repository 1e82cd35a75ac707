"""Trains what the plan says, in the plan's order, on several processes of one torch thread.

    python -m benchmarks.tables.train WORK [--processes 2]

WORK/plan/*.jsonl, taken in the order of their names, hold jobs: {"space", "layers", "epochs", "seed"}. Files can be
added while this runs. WORK/trained.jsonl gets a line for every job that is done, so that it can be killed at any time
and started again. It ends when WORK/stop exists and nothing is left to do, or when it is killed.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from benchmarks.tables.spaces import SPACES
from device_farm.compiler import host_target
from npas_ray.space.choices import Architecture
from npas_ray.training.data import Task, digits_task
from npas_ray.training.fast_evaluation import evaluate
from npas_ray.training.teacher import Teacher, cached_teacher

#: space, layers, epochs, seed
Job = tuple[str, tuple[str, ...], int, int]


@dataclass
class _Worker:
    """What one process keeps between jobs."""

    work: Path = Path()
    task: Task | None = None
    teachers: dict[str, Teacher] = field(default_factory=dict)


_worker = _Worker()


def teacher_of(name: str, work: Path, task: Task) -> Teacher:
    """The pre-trained network of a space, from WORK if it is there."""
    return cached_teacher(work / "teachers" / name, task, SPACES[name].backbone)


def _start(work: Path) -> None:
    torch.set_num_threads(1)
    _worker.work, _worker.task = work, digits_task()


def train(job: Job) -> dict[str, Any]:
    """Accuracy and CPU seconds of one training, as a search's trainer does it (early stopping included)."""
    name, layers, epochs, seed = job
    assert _worker.task is not None
    if name not in _worker.teachers:
        _worker.teachers[name] = teacher_of(name, _worker.work, _worker.task)
    target = host_target()
    started = time.process_time()
    trained = evaluate(
        Architecture.from_json(list(layers)),
        task=_worker.task,
        teacher=_worker.teachers[name],
        block_height=target.block_height,
        tap_unit=target.tap_unit,
        epochs=epochs,
        seed=seed,
    )
    cpu_s = round(time.process_time() - started, 3)
    accuracy = round(trained.evaluation.accuracy, 6)
    return {"space": name, "layers": layers, "epochs": epochs, "seed": seed, "accuracy": accuracy, "cpu_s": cpu_s}


def job_of(line: dict[str, Any]) -> Job:
    return line["space"], tuple(line["layers"]), line["epochs"], line["seed"]


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """What was written completely: a line that a crash cut off is left out."""
    if not path.exists():
        return
    for text in path.read_text().splitlines():
        try:
            yield json.loads(text)
        except ValueError:
            continue


def _todo(work: Path, known: set[Job]) -> list[Job]:
    jobs = (job_of(line) for path in sorted((work / "plan").glob("*.jsonl")) for line in read_lines(path))
    return [job for job in dict.fromkeys(jobs) if job not in known]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    work: Path = arguments.work
    torch.set_num_threads(1)
    task = digits_task()
    for name in SPACES:  # one at a time, so that no two processes train the same one
        teacher = teacher_of(name, work, task)
        print(f"{name}: teacher {teacher.accuracy:.3f}, {teacher.wall_s:.0f} s", flush=True)
    results = work / "trained.jsonl"
    done = {job_of(line) for line in read_lines(results)}
    count = 0
    waiting: dict[Future[dict[str, Any]], Job] = {}
    looked = 0.0
    jobs: list[Job] = []
    with (
        ProcessPoolExecutor(arguments.processes, get_context("spawn"), initializer=_start, initargs=(work,)) as pool,
        results.open("a") as file,
    ):
        file.write("\n")  # ends a line that a crash cut off
        while True:
            if not jobs or time.monotonic() - looked > 20:
                jobs, looked = _todo(work, done | set(waiting.values()))[::-1], time.monotonic()
            while jobs and len(waiting) < 2 * arguments.processes:
                job = jobs.pop()
                waiting[pool.submit(train, job)] = job
            if not waiting:
                if (work / "stop").exists():
                    return
                time.sleep(2)
                continue
            for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                done.add(waiting.pop(future))
                file.write(json.dumps(future.result()) + "\n")
                count += 1
                if count % 100 == 0:
                    print(f"{time.strftime('%H:%M:%S')} {count} trained, {len(jobs)} wait", flush=True)
            file.flush()


if __name__ == "__main__":
    main()
