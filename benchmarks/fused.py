"""Where the time of fused blocks goes: expansion, depthwise and projection beside the multiply-adds that bound them.

    python benchmarks/fused.py [--quick] [--json FILE] [--rate 5]

MobileNetV2 at 224x224, stem and depthwise dense. The time of a part is what a block takes less without it: artifacts
whose blocks leave out one of the three (their answers are wrong) run in turns with the whole one and the unfused one.
`rest` is what the block takes beyond the three:
calls, and what they hide of one another if it is negative. Bounds are multiply-adds over the peak
that a loop reaches in the same run; the direct nine of a depthwise window count, of which Winograd's F(2, 3) needs six.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # run as a script: the packages lie beside this folder
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from benchmarks._harness import bench_artifact, finish, idlest_cpu, parser, table
from benchmarks._nodes import build_peak, peak_gflops
from benchmarks.models import initialised
from device_farm.compiler import banding, compile_network, host_target, lowering
from device_farm.compiler.frontend import import_module
from device_farm.compiler.graph import Shape, TapUnit
from device_farm.compiler.passes import sparsify
from device_farm.compiler.steps import Bands, Call

PARTS = ("expand", "depthwise", "project")
NOTHING = {"expand": {"blocks": 0}, "depthwise": {"vectors": 0}, "project": {"blocks": 0}}


@contextlib.contextmanager
def without(part: str) -> Iterator[None]:
    """All blocks that are lowered meanwhile leave out that part: its calls have no blocks or vectors."""
    lower_block = banding.lower_block

    def idle(calls: tuple[Call, ...], name: str) -> tuple[Call, ...]:
        return tuple(call.replaced(**NOTHING[name]) for call in calls) if name == part else calls

    def lower(*arguments: Any) -> Bands:
        bands = lower_block(*arguments)
        chunks = tuple(
            dataclasses.replace(
                chunk, expand=idle(chunk.expand, "expand"), depthwise=idle((chunk.depthwise,), "depthwise")[0]
            )
            for chunk in bands.chunks
        )
        return dataclasses.replace(bands, chunks=chunks, project=idle(bands.project, "project"))

    lowering.lower_block = lower  # type: ignore[assignment, attr-defined]
    try:
        yield
    finally:
        lowering.lower_block = lower_block  # type: ignore[attr-defined]


def build(rate: float, scratch: Path, cache: Path) -> dict[str, Path]:
    """Artifacts by what they leave out, "whole" and "unfused"."""
    graph = import_module(initialised("mobilenet_v2").eval(), Shape(224, 224, 3)).graph
    target = host_target()
    shape = sparsify(graph, rate, target.block_height, unit=TapUnit.TAP) if rate > 1 else graph
    made = {}
    for label in ("whole", *PARTS, "unfused"):
        folder = scratch / label
        folder.mkdir()
        with without(label):
            made[label] = compile_network(
                shape, target=target, out_dir=folder, cache_dir=cache, fuse=label != "unfused"
            ).path
    return made


def main() -> None:
    options = parser(str(__doc__).partition("\n")[0])
    options.add_argument("--rate", type=float, default=5.0)
    options.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "npas", help="compiled kernels")
    arguments = options.parse_args()
    allowed, rounds = os.sched_getaffinity(0), 4 if arguments.quick else 16
    times: dict[str, dict[str, list[float]]] = {}  # us of every round by artifact and step
    totals: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="fused-") as folder:
        scratch = Path(folder)
        artifacts = build(arguments.rate, scratch, arguments.cache)
        peak_program, peak, kept = build_peak(scratch, host_target().simd_lanes), 0.0, {}
        for turn in range(rounds):
            cpu = idlest_cpu(allowed)
            os.sched_setaffinity(0, {cpu})
            peak = max(peak, peak_gflops(peak_program))
            os.sched_setaffinity(0, allowed)
            for label in [*artifacts][turn % 5 :] + [*artifacts][: turn % 5]:
                report = bench_artifact(artifacts[label], seconds=0.1, cpu=cpu, profile=True)
                totals.setdefault(label, []).append(float(np.percentile(report["samples_ns"], 10)) / 1e3)
                for step in report["profile"]["steps"]:
                    times.setdefault(label, {}).setdefault(step["name"], []).append(step["median_ns"] / 1e3)
                    if label in ("whole", "unfused"):
                        kept[step["name"]] = step["kept_macs"]
    best = {label: {name: min(rounds_us) for name, rounds_us in steps.items()} for label, steps in times.items()}
    bound = {name: macs * 2e-3 / peak for name, macs in kept.items()}
    print_table(best, bound, peak)
    ratio = float(np.median(np.divide(totals["whole"], totals["unfused"])))
    whole, unfused = min(totals["whole"]), min(totals["unfused"])
    print(f"network: {whole:.0f} us fused, {unfused:.0f} unfused: {whole / unfused:.3f} (paired {ratio:.3f})")
    results = {"rate": arguments.rate, "peak_gflops": peak, "steps_us": best, "bounds_us": bound, "totals_us": totals}
    finish("fused", results, arguments.json)


def print_table(best: Mapping[str, Mapping[str, float]], bound: Mapping[str, float], peak: float) -> None:
    """Every step of the fused network, and their sum."""
    rows, sums = [], [0.0] * 10
    for name, time in best["whole"].items():
        inner = name.split(" + ")
        unfused = sum(best["unfused"][one] for one in inner)
        parts = [0.0] * 7
        if len(inner) == len(PARTS):
            for i, (part, one) in enumerate(zip(PARTS, inner, strict=True)):
                parts[2 * i : 2 * i + 2] = time - best[part][name], bound[one]
            parts[-1] = time - sum(parts[:-1:2])
        row = [*parts, time, bound[name], unfused]
        sums = [total + value for total, value in zip(sums, row, strict=True)]
        rows.append([inner[-1], *(f"{value:.1f}" if value else "" for value in row), f"{time / unfused:.2f}"])
    rows.append(["sum", *(f"{value:.0f}" for value in sums), f"{sums[-3] / sums[-1]:.2f}"])
    header = [
        "us",
        "expand",
        "bound",
        "depthwise",
        "bound",
        "project",
        "bound",
        "rest",
        "fused",
        "bound",
        "unfused",
        "",
    ]
    print(table(header, rows))
    print(f"bounds by {peak:.0f} GFLOP/s")


if __name__ == "__main__":
    main()
