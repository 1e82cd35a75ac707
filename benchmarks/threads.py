"""Whole networks on 1, 2 and 4 threads: speed-up over one thread, its ideal, and ONNX Runtime on as many.

The ideal is what the plan allows: the work of the whole over the work of the longest part of every phase (parting.py),
barriers free. What is missing to it is barriers, data that other cores wrote, memory that all share, and noise.

Every round takes all peers in turns on the same cores. A figure is the lowest 10th percentile of the rounds; ratios are
paired, round by round, and their median stands beside the best. `disturbed` is the share of the time that something
else ran on the cores.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

from benchmarks._harness import bench_artifact, finish, parser, table, timed
from benchmarks._onnx import to_onnx
from benchmarks.models import MODELS, calibrate, initialised
from device_farm.compiler import Graph, Target, compile_network
from device_farm.compiler.frontend import import_module
from device_farm.compiler.fusing import fused_blocks
from device_farm.compiler.graph import Shape
from device_farm.compiler.layout import plan_memory
from device_farm.compiler.living import living_blocks
from device_farm.compiler.lowering import lower
from device_farm.compiler.packing import pack
from device_farm.compiler.parting import phases, work
from device_farm.compiler.passes import sparsify
from device_farm.compiler.target import host_target

BARS = {2: 1.7, 4: 2.8}  # speed-up of the dense networks on a quiet machine


class ThreadedRuntime:
    """ONNX Runtime on several threads. They inherit the cores on which the session is made."""

    def __init__(self, model: bytes, cores: Sequence[int]) -> None:
        self._cores, allowed = set(cores), os.sched_getaffinity(0)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = len(cores), 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.add_session_config_entry("session.set_denormal_as_zero", "1")
        os.sched_setaffinity(0, self._cores)
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        os.sched_setaffinity(0, allowed)

    def __call__(self, seconds: float) -> list[float]:
        (given,), (got,) = self._session.get_inputs(), self._session.get_outputs()
        binding = self._session.io_binding()
        binding.bind_cpu_input(given.name, np.zeros(given.shape, np.float32))
        binding.bind_output(got.name)
        allowed = os.sched_getaffinity(0)
        os.sched_setaffinity(0, self._cores)
        try:
            return timed(lambda: self._session.run_with_iobinding(binding), seconds)
        finally:
            os.sched_setaffinity(0, allowed)


def ideal(graph: Graph, threads: int, target: Target) -> float:
    """Speed-up of the plan by its own estimate of work."""
    living = living_blocks(graph, target, weights=None, seed=0)
    memory = plan_memory(graph, target, fused_blocks(graph, threads=threads), living, threads=threads)
    packed, _ = pack(graph, memory, target=target, weights=None, seed=0)
    steps = lower(graph, memory, packed, target)
    longest = 0.0
    for step in steps:
        cut = phases(step, threads, memory=memory, target=target) if threads > 1 else ()
        longest += sum(phase.cost for phase in cut) or work(step, memory=memory, target=target)
    return sum(work(step, memory=memory, target=target) for step in steps) / longest


def busy_elsewhere(before: dict[int, float], after: dict[int, float], own_s: float, wall_s: float, count: int) -> float:
    """Share of the cores' time that was neither idle nor ours."""
    busy_s = sum(after[core] - before[core] for core in before)
    return max(0.0, busy_s - own_s) / (wall_s * count)


def busy_s(cores: Sequence[int]) -> dict[int, float]:
    """Seconds that every core was not idle."""
    ticks, found = os.sysconf("SC_CLK_TCK"), {}
    for line in Path("/proc/stat").read_text().splitlines():
        name, *fields = line.split()
        if name.startswith("cpu") and name[3:].isdigit() and int(name[3:]) in cores:
            user, nice, system, _, _, irq, softirq, steal = map(int, fields[:8])
            found[int(name[3:])] = (user + nice + system + irq + softirq + steal) / ticks
    return found


def own_s() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def measure(
    name: str, rate: float, counts: Sequence[int], *, cores: Sequence[int], rounds: int, seconds: float, cache: Path
) -> dict[str, Any]:
    target = host_target()
    dense = import_module(calibrate(initialised(name), pixels=224), Shape(224, 224, 3))
    graph = sparsify(dense.graph, rate, target.block_height)
    model = to_onnx(dense.graph, dense.weights).SerializeToString()
    with tempfile.TemporaryDirectory(prefix="threads-") as scratch:
        built = {
            count: compile_network(graph, target=target, out_dir=Path(scratch), cache_dir=cache, threads=count)
            for count in counts
        }
        runtimes = {count: ThreadedRuntime(model, cores[:count]) for count in counts}
        lows: dict[tuple[str, int], list[float]] = {}
        steps: dict[int, dict[str, float]] = {count: {} for count in counts}
        outputs: dict[int, list[float]] = {}
        before, start, own = busy_s(cores), time.monotonic(), own_s()
        for turn in range(rounds):
            for count in [*counts[turn % len(counts) :], *counts[: turn % len(counts)]]:
                report = bench_artifact(
                    built[count].path, seconds=seconds, cpus=cores[:count], profile=True
                )  # fmt: skip
                outputs[count] = report["output"]
                samples = [ns / 1e6 for ns in report["samples_ns"]]
                lows.setdefault(("ours", count), []).append(float(np.percentile(samples, 10)))
                for step in report["profile"]["steps"]:
                    ms = step["median_ns"] / 1e6
                    steps[count][step["name"]] = min(steps[count].get(step["name"], ms), ms)
                theirs = runtimes[count](seconds)
                lows.setdefault(("onnxruntime", count), []).append(float(np.percentile(theirs, 10)))
        disturbed = busy_elsewhere(before, busy_s(cores), own_s() - own, time.monotonic() - start, len(cores))
    one = counts[0]
    return {
        "network": name, "rate": rate, "counts": list(counts), "cores": list(cores), "disturbed": disturbed,
        "same_bits": all(output == outputs[one] for output in outputs.values()),
        "ideal": {count: ideal(graph, count, target) for count in counts},
        "rounds_ms": {peer: {count: lows[peer, count] for count in counts} for peer in ("ours", "onnxruntime")},
        "best": {p: {c: min(lows[p, one]) / min(lows[p, c]) for c in counts} for p in ("ours", "onnxruntime")},
        "paired": {
            p: {c: statistics.median(a / b for a, b in zip(lows[p, one], lows[p, c], strict=True)) for c in counts}
            for p in ("ours", "onnxruntime")
        },
        "steps_ms": steps,
    }  # fmt: skip


def rows(result: dict[str, Any]) -> list[Sequence[object]]:
    label = result["network"] + (" dense" if result["rate"] == 1 else f" {result['rate']:g}x")
    made: list[Sequence[object]] = []
    for count in result["counts"]:
        ours, theirs = (min(result["rounds_ms"][peer][count]) for peer in ("ours", "onnxruntime"))
        made.append((
            label, count, ours, f"{result['best']['ours'][count]:.2f}", f"{result['paired']['ours'][count]:.2f}",
            f"{result['ideal'][count]:.2f}", theirs, f"{result['best']['onnxruntime'][count]:.2f}",
            f"{theirs / ours:.2f}", f"{result['disturbed']:.0%}",
        ))  # fmt: skip
    return made


def slower(result: dict[str, Any], tolerance: float = 1.1) -> list[str]:
    """Steps that take longer with threads than without: best medians of the profiles."""
    one, *more = result["counts"]
    alone = result["steps_ms"][one]
    return [
        f"{result['network']} {result['rate']:g}x: {step} takes {1e3 * ms:.1f} us on {count} threads, "
        f"{1e3 * alone[step]:.1f} on one"
        for count in more
        for step, ms in result["steps_ms"][count].items()
        if ms > tolerance * alone[step]
    ]


def main() -> int:
    options = parser(__doc__.partition("\n")[0])
    options.add_argument("--networks", nargs="+", choices=sorted(MODELS), default=["mobilenet_v2", "resnet18"])
    options.add_argument("--rates", type=lambda text: [float(rate) for rate in text.split(",")], default=[1.0, 5.0])
    options.add_argument("--threads", type=lambda text: [int(count) for count in text.split(",")], default=[1, 2, 4])
    options.add_argument("--cores", type=lambda text: [int(core) for core in text.split(",")], help="e.g. 3,2,1,0")
    options.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "npas", help="compiled kernels")
    options.add_argument("--steps", action="store_true", help="print every step's time on every number of threads")
    arguments = options.parse_args()
    cores = arguments.cores or sorted(os.sched_getaffinity(0), reverse=True)
    counts = [count for count in arguments.threads if count <= len(cores)]
    if not counts or counts[0] != 1:
        options.error(f"--threads must begin with 1, got {arguments.threads}")
    torch.set_num_threads(1)
    rounds, seconds = (4, 0.1) if arguments.quick else (12, 0.25)
    results = [
        measure(name, rate, counts, cores=cores, rounds=rounds, seconds=seconds, cache=arguments.cache)
        for name in arguments.networks
        for rate in arguments.rates
    ]
    header = (
        "", "threads", "ours ms", "x best", "x paired", "x ideal", "ORT dense ms", "ORT x", "ORT / ours", "disturbed"
    )  # fmt: skip
    print(table(header, [row for result in results for row in rows(result)]))
    failed = False
    for result in results:
        failed |= not result["same_bits"]
        print(f"{'held  ' if result['same_bits'] else 'MISSED'} {result['network']} {result['rate']:g}x: same bits")
        for line in slower(result):
            print(f"slower {line}")
        if result["rate"] == 1:
            for count, bar in BARS.items():
                if count in counts:
                    reached = result["best"]["ours"][count]
                    failed |= reached < bar and not arguments.quick
                    print(f"{'held  ' if reached >= bar else 'MISSED'} {result['network']}: x{reached:.2f} on {count}")
        if arguments.steps:
            one = result["steps_ms"][counts[0]]
            times = [[name[-60:], *(result["steps_ms"][count][name] for count in counts)] for name in one]
            print("\n" + table((result["network"], *map(str, counts)), times))
    finish("threads", {"results": results}, arguments.json)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
