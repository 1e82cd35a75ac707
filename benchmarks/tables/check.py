"""Is the surrogate's optimum one? What it promised of architectures, against what training and measuring gave.

    python -m benchmarks.tables.check WORK FILE [--json FILE]

FILE is a file of the plan. The surrogate is the one that did not know them: fitted to everything but that file.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from benchmarks.tables.pack import pack, read_plan
from benchmarks.tables.surrogate import logit
from benchmarks.tables.table import EPOCHS, Table


def report(before: Table, after: Table, keys: list[tuple[str, ...]]) -> dict[str, float]:
    """Of architectures that `before` does not know and `after` does; accuracies in points."""
    encoding = after.features.encoding
    wanted = set(keys)
    places = np.array([i for i, row in enumerate(after.rows) if tuple(encoding.decode(row).to_json()) in wanted])
    columns = [epochs == EPOCHS for epochs, _ in after.columns]
    places = places[np.isfinite(after.evaluations[places][:, columns]).any(axis=1)]
    rows, ours = after.rows[places], after.evaluations[places][:, columns]
    mean = np.nanmean(ours, axis=1)
    promised, promised_ms, measured_ms = before.accuracy(rows), before.latency(rows), after.latency_ms[places]
    quick = np.isfinite(measured_ms)
    return {
        "architectures": len(rows),
        "seeds": float(np.isfinite(ours).sum(axis=1).mean()),
        "promised": 100 * float(promised.mean()),
        "trained": 100 * float(mean.mean()),
        "gap_points": 100 * float((promised - mean).mean()),
        "gap_points_std": 100 * float((promised - mean).std()),
        "best_promised": 100 * float(promised.max()),
        "best_trained": 100 * float(mean.max()),
        "luck_logit_std": float(np.nanmean(np.nanstd(logit(ours), axis=1))),
        "latency_median_error": float(np.median(np.abs(promised_ms[quick] / measured_ms[quick] - 1))),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("file")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    path = arguments.work / "plan" / f"{arguments.file}.jsonl"
    name, keys = read_plan(path)
    before, _ = pack(arguments.work, name, without=set(keys))
    after, _ = pack(arguments.work, name)
    found = report(before, after, keys)
    print(f"{name}: " + ", ".join(f"{key} {value:.4g}" for key, value in found.items()))
    if arguments.json:
        arguments.json.write_text(json.dumps({name: found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
