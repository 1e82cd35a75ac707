"""Says what is to be trained and measured next: appends a file to the plan.

    python -m benchmarks.tables.choose WORK FILE --space digits --kind evolved --count 500

- uniform: any architecture with equal probability;
- near: random ones a little below latencies from the fastest to the middle of the space;
- evolved: what searches would find: evolution under surrogates fitted to what is known so far, for many budgets and
  many lengths, some of it optimistic about what the surrogates' members disagree on;
- again: other seeds of the best known at any latency, and of as many random ones;
- known: the best of those that were trained already (for other epochs), and as many random ones of them;
- checked: the surrogates' own optima at the benchmark's budgets, with three seeds.

WORK/plan/FILE.jsonl is written; the order of names is the order of work.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from benchmarks._landscapes import Floats
from benchmarks.tables.landscape import SHARES, Tabular
from benchmarks.tables.pack import pack
from benchmarks.tables.spaces import SPACES
from benchmarks.tables.table import EPOCHS, Table
from npas_ray.search.encoding import Encoding, IntArray
from npas_ray.search.moves import Moves

SEEDS_TO_CHECK = (0, 1, 2)


def uniform(table: Table, count: int, rng: np.random.Generator) -> IntArray:
    return _random(table.features.encoding, count, rng)


def _random(encoding: Encoding, count: int, rng: np.random.Generator) -> IntArray:
    return rng.integers(encoding.sizes, size=(count, encoding.layers))


def near(table: Table, count: int, rng: np.random.Generator) -> IntArray:
    """Below targets that are uniform in log latency."""
    rows = uniform(table, 40_000, rng)
    latency_ms = table.latency(rows)
    low, high = np.log(np.quantile(latency_ms, [0.0005, 0.6]))
    chosen: dict[int, None] = {}
    while len(chosen) < count:
        target = float(np.exp(rng.uniform(low, high)))
        below = np.flatnonzero((latency_ms <= target) & (latency_ms > 0.9 * target))
        if len(below):
            chosen[int(rng.choice(below))] = None
    return rows[list(chosen)]


def evolved(table: Table, count: int, rng: np.random.Generator, *, a_search: int = 6) -> IntArray:
    """From many searches of 2 to 40 generations, `a_search` of each: half of the best, half of the better ones."""
    moves = Moves(table.features.encoding)
    reach = table.latency(uniform(table, 4000, rng))
    chosen: dict[bytes, IntArray] = {}
    while len(chosen) < count:
        budget_ms = float(np.quantile(reach, rng.uniform(0.003, 0.75)))
        hope = float(rng.choice([0.0, 0.02, 0.05]))  # accuracy drawn for each search and each class of architectures
        luck = rng.normal(0, hope, 1024)
        rows = uniform(table, 120, rng)
        for _ in range(int(rng.integers(2, 40))):
            order = np.argsort(-_score(table, rows, budget_ms, luck), kind="stable")
            parents = rows[order[:40]]
            picks = parents[rng.integers(len(parents), size=(2, 80))]
            children = moves.mutate(picks[0], rng)
            crossed = rng.random(len(children)) < 0.3
            children[crossed] = moves.cross(picks[0], picks[1], rng)[crossed]
            rows = np.unique(np.concatenate([parents, children]), axis=0)
        order = np.argsort(-_score(table, rows, budget_ms, luck), kind="stable")
        best, others = order[: 3 * a_search], order[3 * a_search : len(order) // 2]
        picked = [*rng.choice(best, a_search // 2, replace=False)]
        picked += [*rng.choice(others, min(len(others), a_search - a_search // 2), replace=False)]
        for place in picked:
            if rows[place] not in table:
                chosen[rows[place].tobytes()] = rows[place]
    return np.stack(list(chosen.values())[:count])


def _score(table: Table, rows: IntArray, budget_ms: float, luck: Floats) -> Floats:
    latency_ms = table.latency(rows)
    kinds = rows @ np.arange(1, 2 * rows.shape[1], 2) % len(luck)
    return np.where(latency_ms <= budget_ms, table.accuracy(rows) + luck[kinds], -latency_ms)


def again(table: Table, count: int, rng: np.random.Generator) -> IntArray:
    """Half of them the best at their latency or a little more, half of them any."""
    accuracy, known = table.accuracy(table.rows), _trained(table)
    latency_ms = table.latency(table.rows)
    order = known[np.argsort(latency_ms[known], kind="stable")]
    short = np.maximum.accumulate(accuracy[order]) - accuracy[order]  # of the best that is as fast
    best = order[np.argsort(short, kind="stable")[: count // 2]]
    return table.rows[_and_others(best, known, count, rng)]


def known(table: Table, count: int, rng: np.random.Generator) -> IntArray:
    """Half of them the most accurate, half of them any."""
    trained = _trained(table)
    best = trained[np.argsort(-table.accuracy(table.rows[trained]), kind="stable")[: count // 2]]
    return table.rows[_and_others(best, trained, count, rng)]


def _trained(table: Table) -> IntArray:
    """Their places in the table."""
    ours = table.evaluations[:, [epochs == EPOCHS for epochs, _ in table.columns]]
    return np.flatnonzero(np.isfinite(ours).any(axis=1))


def _and_others(best: IntArray, places: IntArray, count: int, rng: np.random.Generator) -> IntArray:
    others = np.setdiff1d(places, best)
    return np.concatenate([best, rng.choice(others, min(len(others), count - len(best)), replace=False)])


def checked(table: Table, count: int, rng: np.random.Generator) -> IntArray:
    """`count` for all budgets together."""
    each = [Tabular(table, feasible_share=share).best_rows(count // len(SHARES)) for share in SHARES]
    return np.unique(np.concatenate(each), axis=0)


KINDS = {"uniform": uniform, "near": near, "evolved": evolved, "again": again, "known": known, "checked": checked}


def write_plan(
    path: Path, name: str, encoding: Encoding, rows: IntArray, *, epochs: Iterable[int], seeds: Iterable[int]
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [
        {"space": name, "layers": encoding.decode(row).to_json(), "epochs": e, "seed": s}
        for row in rows
        for e in epochs
        for s in seeds
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("file")
    parser.add_argument("--space", choices=SPACES, required=True)
    parser.add_argument("--kind", choices=KINDS, required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--epochs", type=int, nargs="+", default=[1])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--draw", type=int, default=0, help="seed of the choice")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rng = np.random.default_rng([arguments.draw, *arguments.kind.encode()])
    encoding = Encoding(SPACES[arguments.space].space)
    if arguments.kind == "uniform":  # that needs no table
        rows = _random(encoding, arguments.count, rng)
    else:
        rows = KINDS[arguments.kind](pack(arguments.work, arguments.space)[0], arguments.count, rng)
    path = arguments.work / "plan" / f"{arguments.file}.jsonl"
    write_plan(path, arguments.space, encoding, rows, epochs=arguments.epochs, seeds=arguments.seeds)
    print(f"{path}: {len(rows)} architectures")


if __name__ == "__main__":
    main()
