"""What a suggestion costs: CPU time and memory of every policy, by the number of results that it has learned.

    python -m benchmarks.search_cost [--quick] [--policy NAME ...] [--observations N ...] [--space digits] [--json FILE]

A policy learns N results that look like those of a search: half of the candidates are random, half are variations of
the best so far. Then rounds of asking for a batch and telling its results are timed, until there are 15 % more: on the
way a policy that fits anything anew from time to time has done so, and both asking and telling count. Batches of five,
as policies are asked where that is possible, and of one.

A process of its own for each policy and N; memory is the growth of its resident set's peak. One thread. CPU time, not
wall time: a busy machine makes it longer by a tenth or so, not by a multiple.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from typing import Any

import numpy as np

from benchmarks._harness import finish, parser, table

OBSERVATIONS = (50, 200, 500, 1000, 2000, 5000)
POLICIES = ("npas", "paper", "evolution", "local", "random", "optuna-tpe", "optuna-nsga2", "optuna-gp")
BARS_MS = {("npas", 200): 25.0, ("npas", 2000): 100.0}  # a candidate, in batches of any size
#: CPU seconds for one cell of the table, after which its rounds end
BUDGET_S = 15.0


def results_of_a_search(space: Any, count: int, *, seed: int) -> list[Any]:
    """Candidates and results as a search leaves them: half random, half variations of the best ones so far."""
    from npas_ray.testing.policy_conformance import evaluate

    rng = np.random.default_rng(seed)
    known: dict[Any, Any] = {}
    best: list[tuple[float, Any]] = []
    while len(known) < count:
        parent = best[int(rng.integers(len(best)))][1] if best and rng.random() < 0.5 else None
        candidate = space.sample(rng) if parent is None else space.mutate(parent, rng)
        if candidate in known:
            continue
        known[candidate] = result = evaluate(candidate)
        if result.accuracy is not None:
            best = sorted([*best, (result.accuracy, candidate)], key=lambda pair: -pair[0])[:10]
    return list(known.values())


def cell(policy_name: str, observations: int, batch: int, space_name: str) -> dict[str, Any]:
    """One cell, in this process."""
    from npas_ray.networks.backbone import BACKBONES
    from npas_ray.search.registry import make_policy
    from npas_ray.space.search_space import SearchSpace
    from npas_ray.testing.policy_conformance import FIFTY_LAYERS, OBJECTIVE, evaluate

    space = FIFTY_LAYERS if space_name == "fifty" else SearchSpace(BACKBONES[space_name])
    results = results_of_a_search(space, observations, seed=observations)
    policy = make_policy(policy_name, space, OBJECTIVE, seed=0)
    policy.propose(1)  # imports
    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    policy.observe(results)
    policy.observe([evaluate(a) for a in policy.propose(batch)])  # what is fitted once is fitted
    spent, proposed, rounds = 0.0, 0, []
    # a refit of the kernel comes once on the way to 15 % more results
    wanted = max(20, round(0.15 * observations))
    while proposed < wanted and spent < BUDGET_S:
        started = time.process_time()
        found = policy.propose(batch)
        told = [evaluate(a) for a in found]
        policy.observe(told)
        rounds.append((time.process_time() - started) / max(1, len(found)))
        spent += rounds[-1] * len(found)
        proposed += len(found)
    return {
        "policy": policy_name,
        "observations": observations,
        "batch": batch,
        "ms": 1e3 * spent / proposed,
        "median_ms": 1e3 * float(np.median(rounds)),
        "worst_ms": 1e3 * max(rounds) * batch,
        "candidates": proposed,
        "peak_mb": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb) / 1024,
        "complete": proposed >= wanted,
    }


def in_a_process(*arguments: str) -> dict[str, Any] | None:
    """One cell in a process of its own; None if it failed or took too long."""
    environment = os.environ | dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    command = [sys.executable, "-m", "benchmarks.search_cost", "--cell", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=900, check=True)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        print(f"{' '.join(arguments)}: {str(getattr(error, 'stderr', '') or error)[-500:]}", file=sys.stderr)
        return None
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def report(cells: list[dict[str, Any]], batch: int) -> str:
    """CPU ms a candidate by policy and results; what was cut short for time is marked."""
    sizes = sorted({c["observations"] for c in cells})
    by_place = {(c["policy"], c["observations"]): c for c in cells if c["batch"] == batch}
    rows = []
    for policy in dict.fromkeys(c["policy"] for c in cells):
        found = [by_place.get((policy, size)) for size in sizes]
        rows.append([policy, *("-" if c is None else f"{c['ms']:.1f}{'' if c['complete'] else '+'}" for c in found)])
    return table([f"CPU ms, batch {batch}", *map(str, sizes)], rows)


def main() -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--policy", nargs="+", default=list(POLICIES))
    arguments.add_argument("--observations", nargs="+", type=int, default=list(OBSERVATIONS))
    arguments.add_argument("--space", default="digits", help="a backbone, or fifty: layers of a made-up one")
    arguments.add_argument("--cell", nargs=4, help="policy, observations, batch, space: one cell, JSON on stdout")
    options = arguments.parse_args()
    if options.cell:
        policy, observations, batch, space = options.cell
        print(json.dumps(cell(policy, int(observations), int(batch), space)))
        return
    sizes = [50, 200] if options.quick else options.observations
    cells: list[dict[str, Any]] = []
    for batch in (5, 1):
        for policy in options.policy:
            for size in sizes:
                found = in_a_process(policy, str(size), str(batch), options.space)
                if found is not None:
                    cells.append(found)
                    print(
                        f"{policy:14}{size:6} results, batch {batch}: {found['ms']:8.1f} ms a candidate (median"
                        f" {found['median_ms']:.1f}), {found['peak_mb']:.0f} MB more",
                        flush=True,
                    )
                if found is None or found["ms"] > 1e3 * BUDGET_S / 5:
                    break  # more results cost more
        print(f"\n{report(cells, batch)}\n", flush=True)
    missed = []
    for (policy, size), bar_ms in BARS_MS.items():
        for c in cells:
            if (c["policy"], c["observations"]) == (policy, size):
                print(f"{policy} at {size} results, batches of {c['batch']}: {c['ms']:.1f} ms, bar {bar_ms:g} ms")
                missed += [policy] if c["ms"] > bar_ms else []
    finish("search_cost", {"space": options.space, "cells": cells}, options.json)
    raise SystemExit(1 if missed else 0)


if __name__ == "__main__":
    main()
