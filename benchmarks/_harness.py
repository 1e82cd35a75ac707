"""What all benchmarks share: the machine's description, interleaved timing, ratios, table and JSON.

Timing on a shared machine: peers take turns of a fraction of a second, many rounds, each round on the core that is
idlest at that moment and all peers of the round on the same one. A round's figure is the 10th percentile of its
samples; a peer's figure is the lowest round; ratios are taken round by round, and their median is reported, so that a
neighbour's noise hits both sides of a ratio.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Session = Callable[[float, int], Sequence[float]]  # (seconds, cpu) -> samples in ms
RESULTS_SCHEMA = 1


@dataclass(frozen=True)
class Timing:
    """One peer's 10th percentiles, round by round, in ms."""

    rounds_ms: tuple[float, ...]

    @property
    def ms(self) -> float:
        """The least disturbed round."""
        return min(self.rounds_ms)

    @property
    def typical_ms(self) -> float:
        return statistics.median(self.rounds_ms)

    def over(self, other: Timing) -> float:
        """How many times longer this one takes: the median over the rounds that both ran side by side."""
        return statistics.median(a / b for a, b in zip(self.rounds_ms, other.rounds_ms, strict=True))

    def to_json(self) -> dict[str, Any]:
        return {"ms": self.ms, "typical_ms": self.typical_ms, "rounds_ms": list(self.rounds_ms)}


def interleave(sessions: Mapping[str, Session], *, rounds: int, seconds: float) -> dict[str, Timing]:
    """Time all sessions in turns of `seconds`; the order rotates: nobody is always behind the same neighbour."""
    names = list(sessions)
    lows: dict[str, list[float]] = {name: [] for name in names}
    allowed = os.sched_getaffinity(0)
    try:
        for turn in range(rounds):
            cpu = idlest_cpu(allowed)
            os.sched_setaffinity(0, {cpu})
            shift = turn % len(names)
            for name in names[shift:] + names[:shift]:
                lows[name].append(float(np.percentile(sessions[name](seconds, cpu), 10)))
            os.sched_setaffinity(0, allowed)
    finally:
        os.sched_setaffinity(0, allowed)
    return {name: Timing(tuple(values)) for name, values in lows.items()}


def idlest_cpu(allowed: set[int], window_s: float = 0.2) -> int:
    """The core that did least during the window."""
    before = _busy_jiffies()
    time.sleep(window_s)
    after = _busy_jiffies()
    return min(sorted(allowed), key=lambda cpu: after.get(cpu, 0) - before.get(cpu, 0))


def _busy_jiffies() -> dict[int, int]:
    busy = {}
    for line in Path("/proc/stat").read_text().splitlines():
        name, *fields = line.split()
        if name.startswith("cpu") and name != "cpu":
            user, nice, system, _, _, irq, softirq, steal = map(int, fields[:8])
            busy[int(name[3:])] = user + nice + system + irq + softirq + steal
    return busy


# --- sessions ---------------------------------------------------------------------------------------------------------


def artifact_session(path: Path, input_seed: int = 0) -> Session:
    """The compiled executable, run as its users run it."""

    def run(seconds: float, cpu: int) -> Sequence[float]:
        report = bench_artifact(path, seconds=seconds, cpu=cpu, input_seed=input_seed)
        return [ns / 1e6 for ns in report["samples_ns"]]

    return run


def bench_artifact(
    path: Path,
    *,
    seconds: float,
    cpu: int = -1,
    input_seed: int = 0,
    profile: bool = False,
    cpus: Sequence[int] = (),
    warmup_s: float = 0.05,
) -> dict[str, Any]:
    """The runner's report (docs/runner.md). Raises RuntimeError with the runner's own words."""
    command = [
        str(path), "bench", "--warmup-s", str(warmup_s), "--min-time-s", str(seconds), "--max-time-s", str(seconds),
        "--min-samples", "5", "--max-samples", "1000000", "--cpu", str(cpu), "--input-seed", str(input_seed),
    ]  # fmt: skip
    command += ["--cpus", ",".join(map(str, cpus))] if cpus else []
    report: dict[str, Any] = json.loads(_run(command + ["--profile"] * profile))
    return report


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise RuntimeError(f"{command[0]} ended with {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def timed(function: Callable[[], object], seconds: float, *, warmup_s: float = 0.05) -> list[float]:
    """Call until both times are up; ms of every call after the warm-up."""
    end = time.perf_counter() + warmup_s
    while time.perf_counter() < end:
        function()
    samples: list[float] = []
    end = time.perf_counter() + seconds
    while not samples or time.perf_counter() < end:
        start = time.perf_counter_ns()
        function()
        samples.append((time.perf_counter_ns() - start) / 1e6)
    return samples


# --- reports ----------------------------------------------------------------------------------------------------------


def relative_error(actual: NDArray[Any], expected: NDArray[Any]) -> float:
    """Largest difference relative to the largest expected magnitude. NaN is infinitely wrong."""
    difference = np.abs(np.ravel(actual).astype(np.float64) - np.ravel(expected)).max()
    return float(difference / np.abs(expected).max()) if np.isfinite(difference) else float("inf")


def machine() -> dict[str, Any]:
    """What a reader must know to compare figures."""
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    fields = {line.partition(":")[0].strip(): line.partition(":")[2].strip() for line in info.splitlines()}
    flags = set(fields.get("flags", fields.get("Features", "")).split())
    return {
        "processor": fields.get("model name", platform.processor()),
        "architecture": platform.machine(),
        "simd": sorted(flags & {"avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "asimd", "asimdhp", "sve"}),
        "cores": os.cpu_count(),
        "load_1min": os.getloadavg()[0],
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in ("numpy", "torch", "apache-tvm", "onnxruntime", "ray")},
        "commit": _commit(),
        "taken_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    try:
        command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Right-aligned columns, the first one left-aligned; floats with three digits behind the point."""
    cells = [list(header), *([f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    formats = [f"{{:<{widths[0]}}}", *(f"{{:>{width}}}" for width in widths[1:])]
    lines = ["  ".join(form.format(cell) for form, cell in zip(formats, row, strict=True)) for row in cells]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def parser(description: str) -> argparse.ArgumentParser:
    """The options that every benchmark has."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--quick", action="store_true", help="fewer rounds: a look, not a result")
    made.add_argument("--json", type=Path, metavar="FILE", help="write the results there")
    return made


def finish(name: str, results: Mapping[str, Any], path: Path | None) -> None:
    """Write the JSON, if asked for."""
    document = {"schema": RESULTS_SCHEMA, "benchmark": name, "arguments": sys.argv[1:], "machine": machine(), **results}
    if path is not None:
        path.write_text(json.dumps(document, indent=1) + "\n")
        print(f"written: {path}")
