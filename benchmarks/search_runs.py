"""Real searches: policies against each other on the embedded task, each run as a user runs it.

    python -m benchmarks.search_runs [--seeds 5] [--candidates 60] [--policy NAME ...] [--share 0.3] [--work DIR]
                                     [--json FILE] [--report]

First `npas calibrate`, once for all. A run is then `npas search` with Ray Tune, trainers and this machine as the
device: every candidate is compiled, measured on the reserved core and, if it keeps the budget, trained. Every policy
has the same calibration: what is surely over the budget by it is not proposed (and `npas` is told the prediction, too).
What the run chooses (it has evaluated its front runners with more seeds by then) is trained three times more with seeds
that no run has seen, as long as candidates are trained, and judged on validation and test images. All policies of a
seed have the same task, teacher and budget, so differences are paired.

The budget is what --share of random architectures keep by the calibration, the same for all runs. The teacher of a seed
is trained by its first run and handed to the others: nothing that is searched depends on who trained it.

The JSON is written after every run. A run that is in it is not repeated, one that was interrupted goes on where it was:
start the same command again. `--report` prints what there is.
"""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from benchmarks._harness import finish, parser, table
from npas_ray.journal import Journal
from npas_ray.runs.directory import RunDirectory
from npas_ray.runs.setting import dense_latencies
from npas_ray.search.policy import Status

POLICIES = ("npas", "paper", "evolution", "optuna-tpe")
#: no run trains with these
JUDGES = (1001, 1002, 1003)
#: random architectures of which a share keeps the budget
SAMPLED = 4000
#: exit code of a search whose infrastructure failed, such as a Ray that did not start in time on a busy machine
BROKE_DOWN, TRIES = 4, 4
CONFIG: dict[str, Any] = {
    "task": {"name": "digits", "train_images": 2000},
    "training": {"epochs": 2, "final_epochs": 1},  # what is shipped is not judged, so it is trained for a moment
}
Run = dict[str, Any]


def config_of(policy: str, seed: int, *, candidates: int, budget_ms: float, calibration: Path) -> dict[str, Any]:
    """The configuration of a run."""
    settings = {"policy": policy, "candidates": candidates, "predictor": str(calibration), "skip_over_budget": True}
    objective = {"budgets_ms": {"local": budget_ms}}
    return {"name": f"{policy}-{seed}", "seed": seed, **CONFIG, "search": settings, "objective": objective}


def calibrated(work: Path) -> Path:
    """The calibration of all runs, made once: a file in `work`. Raises CalledProcessError."""
    path = work / "calibration.json"
    if not path.exists():
        config = work / "calibrate.yaml"
        config.write_text(json.dumps(CONFIG, indent=1))  # JSON is YAML
        command = [sys.executable, "-m", "npas_ray", "calibrate", str(config), "--out", str(path.resolve())]
        subprocess.run(command, check=True)
    return path.resolve()


def budget_of(calibration: Path, *, share: float) -> float:
    """The latency in ms that `share` of random architectures keep, by their predictions."""
    from npas_ray.calibration.store import calibrations_of, predictors
    from npas_ray.config import SearchConfig
    from npas_ray.runs.setting import make_space

    config = SearchConfig.from_json({"name": "budget", **CONFIG})
    rng, space = np.random.default_rng(1), make_space(config)
    sample = [space.sample(rng) for _ in range(SAMPLED)]
    predict = predictors(config, calibrations_of(config, str(calibration), folder=calibration.parent))
    return float(np.quantile(predict(sample)["local"], share))


def search(config: Mapping[str, Any], folder: Path, *, teacher: Path) -> float:
    """The whole run, continued if there is one; seconds of this call. Raises CalledProcessError with npas's words."""
    from npas_ray.config import SearchConfig

    run = RunDirectory.prepare(folder, config=SearchConfig.from_json(dict(config)).to_json(), resume=True)
    if teacher.is_dir() and not run.teacher.is_dir():
        shutil.copytree(teacher, run.teacher)
    path = folder.with_suffix(".yaml")
    path.write_text(json.dumps(config, indent=1))  # JSON is YAML
    started = time.monotonic()
    command = [sys.executable, "-m", "npas_ray", "search", str(path), "--run-dir", str(folder), "--resume"]
    for left in reversed(range(TRIES)):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != BROKE_DOWN or not left:
            break
    if done.returncode:
        raise subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr)
    wall_s = time.monotonic() - started
    if not teacher.is_dir():
        shutil.copytree(run.teacher, teacher)
    return wall_s


def judged(folder: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """The run's choice: what the run believed of it, and what new seeds say."""
    import torch

    from device_farm.compiler.sparsity import TapUnit
    from npas_ray.runs.shipped import ARCHITECTURE, Shipped
    from npas_ray.training.data import Dataset
    from npas_ray.training.fast_evaluation import evaluate
    from npas_ray.training.optimise import accuracy
    from npas_ray.training.teacher import cached_teacher

    torch.set_num_threads(1)
    run = RunDirectory.existing(folder)
    shipped = Shipped(run.best)
    backbone, architecture = shipped.architecture()
    masks = json.loads((run.best / ARCHITECTURE).read_text())
    task = shipped.task()
    teacher = cached_teacher(run.teacher, task, backbone)
    images = Dataset(
        torch.cat([task.validation.images, task.test.images]), torch.cat([task.validation.labels, task.test.labels])
    )
    accuracies = [
        accuracy(
            evaluate(
                architecture,
                task=task,
                teacher=teacher,
                epochs=config["training"]["epochs"],
                seed=seed,
                block_height=masks["block_height"],
                tap_unit=TapUnit(masks.get("tap_unit", TapUnit.TAP)),
                early_stop=None,
            ).network,
            images,
        )
        for seed in JUDGES
    ]
    summary = shipped.summary
    return {
        "key": summary["key"],
        "layers": architecture.to_json(),
        "believed": summary["search_accuracy"],
        "latency_ms": summary["search_latency_ms"]["local"],
        "accuracies": accuracies,
        "accuracy": float(np.mean(accuracies)),
    }


def told(folder: Path) -> dict[str, Any]:
    """What the journal says of a run: how candidates ended, the best measured accuracy after each of them."""
    with Journal.open(RunDirectory(folder).journal, read_only=True) as journal:
        candidates, dense_ms = journal.candidates(), dense_latencies(journal)["local"]
    concluded = sorted((c for c in candidates if c.conclusion is not None), key=lambda c: c.conclusion or 0)
    curve, best = [], 0.0
    for candidate in concluded:
        if candidate.status is Status.DONE and candidate.evaluations:
            best = max(best, candidate.evaluations[0]["accuracy"])
        curve.append(best)
    endings = {str(status): sum(c.status is status for c in concluded) for status in Status}
    return {"dense_ms": dense_ms, "endings": endings, "curve": curve}


def margins(runs: Sequence[Run], *, of: str = POLICIES[0]) -> list[dict[str, Any]]:
    """How far `of` is ahead of each other policy: mean over the seeds that both have, in points, and its 95 % interval.

    The interval is Student's, of the paired differences; one seed has none.
    """
    by_policy: dict[str, dict[int, float]] = {}
    for run in runs:
        by_policy.setdefault(run["policy"], {})[run["seed"]] = 100 * run["choice"]["accuracy"]
    found = []
    for policy, accuracies in by_policy.items():
        both = sorted(accuracies.keys() & by_policy.get(of, {}).keys())
        if policy == of or not both:
            continue
        ahead = np.array([by_policy[of][seed] - accuracies[seed] for seed in both])
        half = math.inf
        if len(ahead) > 1:
            half = float(stats.t.ppf(0.975, len(ahead) - 1) * ahead.std(ddof=1) / math.sqrt(len(ahead)))
        found.append(
            {
                "policy": policy,
                "seeds": both,
                "ahead_points": ahead.tolist(),
                "mean_points": float(ahead.mean()),
                "half_interval_points": half if math.isfinite(half) else None,
            }
        )
    return found


def report(runs: Sequence[Run]) -> str:
    """Tables of all runs, by policy, and of the margins."""
    rows: list[list[object]] = []
    for policy in dict.fromkeys(run["policy"] for run in runs):
        own = [run for run in runs if run["policy"] == policy]
        values = [100 * run["choice"]["accuracy"] for run in own]
        over = np.mean([run["endings"]["over-budget"] for run in own])
        each = " ".join(f"{value:.1f}" for value in values)
        rows.append(
            [policy, len(own), float(np.mean(values)), each, float(over), float(np.mean([r["wall_s"] for r in own]))]
        )
    lines = [table(["policy", "seeds", "accuracy, %", "each", "over budget", "wall, s"], rows)]
    ahead = [
        [
            m["policy"],
            len(m["seeds"]),
            m["mean_points"],
            "-" if m["half_interval_points"] is None else m["half_interval_points"],
        ]
        for m in margins(runs)
    ]
    if ahead:
        lines += ["", table([f"{POLICIES[0]} ahead of", "seeds", "points", "+- (95 %)"], ahead)]
    return "\n".join(lines)


def main() -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--seeds", type=int, default=5)
    arguments.add_argument("--candidates", type=int, default=60)
    arguments.add_argument("--policy", nargs="+", default=list(POLICIES))
    arguments.add_argument("--share", type=float, default=0.3, help="of random architectures, which keep the budget")
    arguments.add_argument("--work", type=Path, default=Path("runs/search_runs"), help="where the runs live")
    arguments.add_argument("--report", action="store_true", help="print what there is, run nothing")
    options = arguments.parse_args()
    path: Path = options.json or Path(__file__).parent / "results" / "search_runs.json"
    seeds, candidates = (1, 8) if options.quick else (options.seeds, options.candidates)
    runs: list[Run] = json.loads(path.read_text())["runs"] if path.exists() else []
    if not options.report:
        options.work.mkdir(parents=True, exist_ok=True)
        calibration = calibrated(options.work)
        budget_ms = runs[0]["budget_ms"] if runs else budget_of(calibration, share=options.share)
    for seed in range(0 if options.report else seeds):
        for policy in options.policy:
            if any((run["policy"], run["seed"], run["candidates"]) == (policy, seed, candidates) for run in runs):
                continue
            config = config_of(policy, seed, candidates=candidates, budget_ms=budget_ms, calibration=calibration)
            folder: Path = options.work / config["name"]
            print(f"{policy}, seed {seed} ...", flush=True)
            try:
                wall_s = search(config, folder, teacher=options.work / f"teacher-{seed}")
            except subprocess.CalledProcessError as error:
                print(f"{policy}, seed {seed}: exit {error.returncode}\n{error.stderr[-2000:]}", file=sys.stderr)
                continue
            facts = told(folder)
            choice = judged(folder, config)
            run = {"policy": policy, "seed": seed, "candidates": candidates, "budget_ms": budget_ms, "wall_s": wall_s}
            runs.append({**run, **facts, "choice": choice})
            print(
                f"    {choice['accuracy']:.1%} ({choice['believed']:.1%} believed), {choice['latency_ms']:.4g} ms of"
                f" {budget_ms:.4g} ms, {wall_s:.0f} s",
                flush=True,
            )
            results = {"config": CONFIG, "share": options.share, "runs": runs, "margins": margins(runs)}
            finish("search_runs", results, path)
    print(report(runs))


if __name__ == "__main__":
    main()
