"""Does fast evaluation rank candidates as full training does, what does it cost, and is a ladder worth it?

    python benchmarks/fast_evaluation.py [--quick] [--rows FILE] [--json FILE]

Random legal candidates of the embedded task are evaluated at rungs of 0, 1 and 2 epochs and trained in full (as what
ships: with distillation), all from the same inherited weights. Every network is judged on the 1,000 validation images
that a search sees and on 2,000 test images. Two ceilings are measured with it: how well the validation images rank the
fully trained networks as the test images do (luck of the images), and how well one seed ranks as another one does (luck
of the training, the first 24 candidates). No rung can be expected to do better than a full training does by itself.

Then the ladder is replayed over these candidates in random orders, as a random search would meet them: the full
accuracy (validation and test images) of the candidate that is best after a given CPU time of training.

One torch thread in each of two processes. Times are CPU seconds of a candidate's process, which a busy machine disturbs
least. What is trained is kept in the file of rows, so that a run that was cut goes on there.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks._ladder_replay import Rungs, best_after
from npas_ray.networks.backbone import DIGITS
from npas_ray.networks.operators import dense_architecture
from npas_ray.search.ladder import Ladder
from npas_ray.space.choices import Architecture
from npas_ray.space.search_space import SearchSpace
from npas_ray.training.data import Task, digits_task
from npas_ray.training.fast_evaluation import evaluate, full_train
from npas_ray.training.optimise import accuracy
from npas_ray.training.teacher import Teacher, cached_teacher

BLOCK_HEIGHT = 32
FULL_EPOCHS = 8
AGAIN = 24  # candidates that are trained with a second seed

Method = tuple[str, int, int]  # name, epochs, seed
Row = dict[str, Any]


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
    _train(dense_architecture(DIGITS).to_json(), ("rung", 0, 0))  # torch's first calls are slow


def _train(texts: list[str], method: Method) -> Row:
    """One training: accuracy on the validation and on the test images; CPU seconds."""
    assert _worker.task is not None and _worker.teacher is not None
    architecture, (name, epochs, seed) = Architecture.from_json(texts), method
    common: dict[str, Any] = {"task": _worker.task, "teacher": _worker.teacher, "block_height": BLOCK_HEIGHT}
    started = time.process_time()
    if name == "full":
        trained = full_train(architecture, epochs=epochs, seed=seed, **common)
    else:
        trained = evaluate(architecture, epochs=epochs, seed=seed, early_stop=None, **common)
    cpu_s = time.process_time() - started
    return {
        "key": architecture.key,
        "method": [name, epochs, seed],
        "validation": trained.evaluation.accuracy,
        "test": accuracy(trained.network, _worker.task.test),
        "cpu_s": cpu_s,
    }


def spearman(a: Sequence[float], b: Sequence[float]) -> float:
    """Rank correlation; equal values share their mean rank."""

    def ranks(values: Sequence[float]) -> np.ndarray[Any, Any]:
        array = np.asarray(values)
        return np.array([(array < v).sum() + ((array == v).sum() - 1) / 2 for v in array])

    return float(np.corrcoef(ranks(a), ranks(b))[0, 1])


def interval(a: Sequence[float], b: Sequence[float], *, draws: int = 1000) -> tuple[float, float]:
    """95 % interval of `spearman` over redrawn candidates."""
    rng, x, y = np.random.default_rng(0), np.asarray(a), np.asarray(b)
    values = [spearman(x[i].tolist(), y[i].tolist()) for i in (rng.integers(0, len(x), len(x)) for _ in range(draws))]
    low, high = np.nanquantile(values, [0.025, 0.975])
    return float(low), float(high)


def collected(
    wanted: Sequence[tuple[Method, Sequence[Architecture]]], *, rows: Path, teacher: Path, processes: int
) -> dict[Method, dict[str, Row]]:
    """Every method's row of each of its candidates, by key; what is in the file of rows is not trained again."""
    found: dict[Method, dict[str, Row]] = {method: {} for method, _ in wanted}

    def take(row: Row) -> None:
        name, epochs, seed = row["method"]
        found.setdefault((name, epochs, seed), {})[row["key"]] = row

    if rows.exists():
        for line in filter(None, rows.read_text().splitlines()):
            take(json.loads(line))
    jobs = [(c.to_json(), method) for method, candidates in wanted for c in candidates if c.key not in found[method]]
    if jobs and processes:
        pool = ProcessPoolExecutor(processes, get_context("spawn"), initializer=_start, initargs=(str(teacher),))
        with rows.open("a") as file, pool:
            for done, row in enumerate(pool.map(_train, *zip(*jobs, strict=True)), start=1):
                file.write(json.dumps(row) + "\n")
                file.flush()
                take(row)
                print(f"\r  {done} of {len(jobs)} trainings", end="", file=sys.stderr)
        print(file=sys.stderr)
    taken = {
        method: {c.key: found[method][c.key] for c in candidates if c.key in found[method]}
        for method, candidates in wanted
    }
    return {method: kept for method, kept in taken.items() if kept}


def everywhere(row: Row) -> float:
    """Accuracy on the 1,000 validation and the 2,000 test images together."""
    return float(row["validation"] + 2 * row["test"]) / 3


def rank_table(results: dict[Method, dict[str, Row]], full: Method, again: Method) -> list[dict[str, Any]]:
    """A line for each method: how its validation accuracy ranks as the test accuracy of the full training does.

    Of the full training itself that is the ceiling which the images set. `same_images`: as the full training's own
    validation accuracy, which shares its luck with the method's.
    """
    table = []
    for method, found in results.items():
        target = results.get(again, {}) if method == full else results[full]
        found = {key: row for key, row in found.items() if key in results[full]}
        keys = [key for key in found if key in target]
        validation = [row["validation"] for row in found.values()]
        true = [results[full][key]["test"] for key in found]
        good = [index for index, value in enumerate(true) if value >= statistics.median(true)]
        table.append(
            {
                "evaluation": f"{method[0]}, {method[1]} epochs, seed {method[2]}",
                "candidates": len(found),
                "spearman": spearman(validation, true),
                "interval": interval(validation, true),
                "spearman_of_better_half": spearman([validation[i] for i in good], [true[i] for i in good]),
                "spearman_same_images": None
                if len(keys) < 3
                else spearman([found[key]["validation"] for key in keys], [target[key]["validation"] for key in keys]),
                "mean_accuracy": statistics.mean(validation),
                "std_accuracy": statistics.stdev(validation),
                "min_accuracy": min(validation),
                "max_accuracy": max(validation),
                "mean_cpu_s": statistics.mean(row["cpu_s"] for row in found.values()),
            }
        )
    return table


def ladder_table(
    rungs: Rungs, truth: dict[str, float], *, ladders: Sequence[Ladder], budgets_s: Sequence[float], orders: int = 400
) -> list[dict[str, Any]]:
    """Mean full accuracy of what is found within each CPU budget, for each ladder, and how many candidates it met."""
    table = []
    for ladder in ladders:
        line: dict[str, Any] = {"rungs": ladder.rungs, "keep": ladder.keep}
        for budget_s in budgets_s:
            ended = [best_after(rungs, ladder, budget_s=budget_s, seed=seed) for seed in range(orders)]
            values = [truth[key] for key, _ in ended if key is not None]
            line[f"{budget_s:g} s"] = {
                "accuracy": statistics.mean(values),
                "standard_error": statistics.stdev(values) / len(values) ** 0.5,
                "met": statistics.mean(met for _, met in ended),
            }
        table.append(line)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="24 candidates")
    parser.add_argument("--rows", type=Path, help="file of the trainings, kept and taken up again")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--candidates", type=int)
    parser.add_argument("--processes", type=int, default=2, help="0: train nothing, report what the file of rows has")
    parser.add_argument("--teacher", type=Path, help="directory of a cached teacher (default: a temporary one)")
    options = parser.parse_args()
    count = options.candidates or (24 if options.quick else 60)

    torch.set_num_threads(1)
    space = SearchSpace(DIGITS)
    rng = np.random.default_rng(0)
    candidates = list({space.sample(rng): None for _ in range(count)})
    full: Method = ("full", FULL_EPOCHS, 0)
    again: Method = ("full", FULL_EPOCHS, 1)
    repeated: tuple[Method, ...] = (("rung", 2, 1), again)
    methods: list[Method] = [("rung", 0, 0), ("rung", 1, 0), ("rung", 2, 0), full, *repeated]
    with tempfile.TemporaryDirectory() as temporary:
        directory = options.teacher or Path(temporary)
        teacher = cached_teacher(directory, digits_task(), DIGITS)
        print(f"teacher: accuracy {teacher.accuracy:.3f}, {teacher.wall_s:.1f} s with all operators (one thread)")
        results = collected(
            [(method, candidates[:AGAIN] if method in repeated else candidates) for method in methods],
            rows=options.rows or Path(temporary) / "rows.jsonl",
            teacher=directory,
            processes=options.processes,
        )

    table = rank_table(results, full, again)
    print(f"\n{len(candidates)} random legal candidates; Spearman with the test accuracy after {FULL_EPOCHS} epochs\n")
    columns: dict[str, Callable[[dict[str, Any]], str]] = {
        "evaluation": lambda r: f"{r['evaluation']:24}",
        "n": lambda r: f"{r['candidates']:3}",
        "Spearman": lambda r: f"{r['spearman']:8.3f}",
        "95 %": lambda r: f"{r['interval'][0]:.2f}..{r['interval'][1]:.2f}",
        "better half": lambda r: f"{r['spearman_of_better_half']:11.3f}",
        "same images": lambda r: "-" if r["spearman_same_images"] is None else f"{r['spearman_same_images']:11.3f}",
        "mean": lambda r: f"{r['mean_accuracy']:.3f}",
        "std": lambda r: f"{r['std_accuracy']:.3f}",
        "CPU s": lambda r: f"{r['mean_cpu_s']:5.2f}",
    }
    widths = [max(len(name), len(said(table[0]))) for name, said in columns.items()]
    print("  ".join(name.ljust(width) for name, width in zip(columns, widths, strict=True)))
    for row in table:
        print("  ".join(said(row).ljust(width) for said, width in zip(columns.values(), widths, strict=True)))
    between = {
        str(epochs): statistics.mean(
            abs(results[name, epochs, 0][key]["validation"] - row["validation"])
            for key, row in results[name, epochs, 1].items()
        )
        for name, epochs in (("rung", 2), ("full", FULL_EPOCHS))
        if (name, epochs, 1) in results
    }
    print(f"\ntwo seeds differ on average by {', '.join(f'{v:.4f} at {k} epochs' for k, v in between.items())}")

    truth = {key: everywhere(row) for key, row in results[full].items()}
    rungs = {
        key: {e: (results["rung", e, 0][key]["validation"], results["rung", e, 0][key]["cpu_s"]) for e in (0, 1, 2)}
        for key in truth
    }
    ladders = [Ladder((2,)), Ladder((1,)), Ladder((0,))]
    ladders += [Ladder(r, k) for r in ((0, 2), (1, 2), (0, 1, 2), (0, 1)) for k in (0.25, 0.5)]
    budgets_s = [10.0, 20.0, 40.0]
    replayed = ladder_table(rungs, truth, ladders=ladders, budgets_s=budgets_s)
    print("\nrandom search: full accuracy of the best after so much training (candidates met), 400 orders\n")
    for line in replayed:
        name = " -> ".join(map(str, line["rungs"])) + (f", keep {line['keep']:g}" if len(line["rungs"]) > 1 else "")
        said = [f"{line[f'{b:g} s']['accuracy']:.4f} ({line[f'{b:g} s']['met']:.0f})" for b in budgets_s]
        print(f"{name:24}" + "".join(f"{text:>16}" for text in said))
    if options.json:
        report = {
            "candidates": len(candidates),
            "full_epochs": FULL_EPOCHS,
            "teacher": {"accuracy": teacher.accuracy, "wall_s": teacher.wall_s},
            "rows": table,
            "between_seeds": between,
            "ladders": replayed,
        }
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
