"""Which statistic of the samples repeats itself between sessions? The evidence of docs/measurement.md.

    python benchmarks/repeatability.py [--quick] [--json FILE] [--sessions N]

Each session is one start of the runner with the default protocol. All statistics are computed from the same sessions,
so the comparison is fair whatever the machine does. Networks are interleaved. Conditions: `ambient` (the machine as it
is), `neighbours` (every other core streams memory or computes), `shared` (the measured core computes, too).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from device_farm.compiler.target import host_target
from device_farm.measurement.report import BenchReport, parse_report
from device_farm.measurement.statistics import Session, issue_ratio, summarise
from device_farm.measurement.types import Protocol
from device_farm.runner.sources import RUNNER_SOURCE
from device_farm.testing.build import build
from device_farm.transport.base import Completed

PLANS = Path(__file__).parent / "plans"
NETWORKS = {  # name: layers, pixels, channels; weights of 64 KB, 192 KB and 1.5 MB
    "small": (4, 196, 64),
    "medium": (3, 196, 128),
    "large": (6, 49, 256),
}
CONDITIONS = ("ambient", "neighbours", "shared")
PROTOCOL = Protocol()

Statistic = Callable[[NDArray[np.float64]], float]
PLAIN: dict[str, Statistic] = {
    "minimum": lambda x: float(x.min()),
    "p1": lambda x: float(np.quantile(x, 0.01)),
    "p10": lambda x: float(np.quantile(x, 0.10)),
    "median": lambda x: float(np.median(x)),
    "mean": lambda x: float(x.mean()),
    "median of minima of 10": lambda x: float(np.median([b.min() for b in np.array_split(x, max(1, len(x) // 10))])),
    "half-sample mode": lambda x: _half_sample_mode(x),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="3 sessions of each kind")
    parser.add_argument("--sessions", type=int, default=25, help="of each network under each condition")
    parser.add_argument("--json", type=Path, help="write the table there")
    arguments = parser.parse_args()
    sessions = 3 if arguments.quick else arguments.sessions
    cpu = max(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as directory:
        programs = {name: _build(Path(directory), name) for name in NETWORKS}
        load = build(["-static", PLANS / "load.c"], triple=host_target().triple, output=Path(directory) / "load")
        taken = {condition: _collect(programs, load, condition, sessions, cpu) for condition in CONDITIONS}
    rows = _table(taken)
    _print(rows)
    if arguments.json:
        arguments.json.write_text(json.dumps({"sessions": sessions, "cpu": cpu, "rows": rows}, indent=1))


def _build(directory: Path, name: str) -> Path:
    triple, plan = host_target().triple, directory / f"{name}.o"
    layers, pixels, channels = NETWORKS[name]
    shape = [f"-DLAYERS={layers}", f"-DPIXELS={pixels}", f"-DC={channels}"]
    mcpu = "-mcpu=" + host_target().mcpu.replace("x86-64-", "x86_64_").replace("cortex-", "cortex_")
    fast = [mcpu, "-ffast-math", "-Wno-psabi"]
    build(["-c", *fast, *shape, PLANS / "pointwise.c"], triple=triple, output=plan)
    return build(["-static", "-s", RUNNER_SOURCE, plan], triple=triple, output=directory / name)


def _collect(
    programs: dict[str, Path], load: Path, condition: str, sessions: int, cpu: int
) -> dict[str, list[tuple[Session, float]]]:
    """Sessions and the seconds that each took, by network."""
    taken: dict[str, list[tuple[Session, float]]] = {name: [] for name in programs}
    with _busy(load, condition, cpu):
        for _ in range(sessions):
            for name, program in programs.items():
                begin = time.monotonic()
                done = subprocess.run([program, "bench", "--cpu", str(cpu)], capture_output=True, check=True)
                seconds = time.monotonic() - begin
                report = parse_report(BenchReport, Completed(0, done.stdout, b""), key="pointwise")
                taken[name].append((report.session(), seconds))
            time.sleep(0.2)
    return taken


@contextlib.contextmanager
def _busy(load: Path, condition: str, cpu: int) -> Iterator[None]:
    cores = sorted(os.sched_getaffinity(0) - {cpu}) if condition != "ambient" else []
    kinds = [(core, "memory" if i % 2 == 0 else "compute") for i, core in enumerate(cores)]
    if condition == "shared":
        kinds.append((cpu, "compute"))
    with contextlib.ExitStack() as stack:
        for core, kind in kinds:
            process = stack.enter_context(subprocess.Popen([load, kind], stdin=subprocess.PIPE))
            os.sched_setaffinity(process.pid, {core})
            assert process.stdin is not None
            stack.callback(process.stdin.close)  # before waiting for it: it ends with its stdin
        yield


def _table(taken: dict[str, dict[str, list[tuple[Session, float]]]]) -> list[dict[str, object]]:
    everything = [session for networks in taken.values() for pairs in networks.values() for session, _ in pairs]
    known = min(issue_ratio([session]) for session in everything)
    rows: list[dict[str, object]] = []
    for condition, networks in taken.items():
        for name, pairs in networks.items():
            sessions = [session for session, _ in pairs]
            values = {label: [f(s.samples_ns) for s in sessions] for label, f in PLAIN.items()}
            single = [summarise([s], min_samples=PROTOCOL.min_samples) for s in sessions]
            informed = [summarise([s], min_samples=PROTOCOL.min_samples, known_ratio=known) for s in sessions]
            believed = [s for s in informed if s.quiet and s.own_half_width <= PROTOCOL.max_relative_ci]
            values["quiet p10, ratio unknown"] = [s.latency_ns for s in single]
            values["quiet p10, ratio known"] = [s.latency_ns for s in believed]
            truth = float(np.median([s.latency_ns for s in believed])) if believed else float("nan")
            covered = [s.ci_low_ns <= truth <= s.ci_high_ns for s in believed]
            for label, latencies in values.items():
                rows.append(
                    {"condition": condition, "network": name, "statistic": label, "sessions": len(latencies)}
                    | _spread(np.array(latencies))
                    | {
                        "believed": len(believed) / len(sessions),
                        "covered": float(np.mean(covered)) if covered else None,
                        "half_width_percent": 100 * float(np.median([s.own_half_width for s in informed])),
                        "session_s": float(np.median([seconds for _, seconds in pairs])),
                    }
                )
    return rows


def _spread(latencies_ns: NDArray[np.float64]) -> dict[str, object]:
    if len(latencies_ns) == 0:
        return {"median_us": None, "sd_percent": None, "range90_percent": None, "worst_percent": None}
    relative = 100 * (latencies_ns / np.median(latencies_ns) - 1)
    return {
        "median_us": float(np.median(latencies_ns)) / 1e3,
        "sd_percent": float(relative.std()),
        "range90_percent": float(np.quantile(relative, 0.95) - np.quantile(relative, 0.05)),
        "worst_percent": float(np.abs(relative).max()),
    }


def _print(rows: list[dict[str, object]]) -> None:
    group = None
    for row in rows:
        if group != (row["condition"], row["network"]):
            group = (row["condition"], row["network"])
            covered = "-" if row["covered"] is None else f"{100 * float(str(row['covered'])):.0f} %"
            print(
                f"\n{row['condition']}, {row['network']}: one session {row['session_s']:.2f} s,"
                f" believed {100 * float(str(row['believed'])):.0f} %, half width of the interval"
                f" {row['half_width_percent']:.2f} %, covers the median of sessions {covered}"
            )
            print(f"  {'statistic':26}{'sessions':>9}{'median us':>11}{'sd %':>8}{'90 % range':>12}{'worst %':>9}")
        if row["median_us"] is None:
            print(f"  {row['statistic']:26}{row['sessions']:>9}")
            continue
        print(
            f"  {row['statistic']:26}{row['sessions']:>9}{row['median_us']:>11.2f}{row['sd_percent']:>8.2f}"
            f"{row['range90_percent']:>12.2f}{row['worst_percent']:>9.2f}"
        )


def _half_sample_mode(samples: NDArray[np.float64]) -> float:
    x = np.sort(samples)
    while len(x) > 3:
        half = (len(x) + 1) // 2
        narrowest = int(np.argmin(x[half - 1 :] - x[: len(x) - half + 1]))
        x = x[narrowest : narrowest + half]
    return float(x.mean())


if __name__ == "__main__":
    main()
