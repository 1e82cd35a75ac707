"""Measures the latency of every architecture of the plan on this machine, compiled as a search compiles them.

    python -m benchmarks.tables.measure WORK [--prefix COMMAND]

Architectures are compiled in batches beside the measuring, which runs in a process of its own on one core, under the
prefix (a lock that keeps the core free of others, for instance). WORK/measured.jsonl gets a line for each; it can be
killed at any time and started again. What was measured on a core that something else shared is measured again in a
later batch, and so are some others: what sessions differ by.
It ends when WORK/stop exists and nothing is left to do.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
import zlib
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.tables.spaces import SPACES
from benchmarks.tables.train import read_lines
from device_farm.compiler import compile_network, host_target
from device_farm.compiler.artifact import Artifact
from device_farm.errors import FarmError
from device_farm.measurement.session import Meter, remote_name
from device_farm.measurement.types import Protocol
from device_farm.transport.local import LocalTransport
from npas_ray.networks.lowering import lower
from npas_ray.space.choices import Architecture

#: space, layers, session
Item = tuple[str, tuple[str, ...], int]

#: a search's, but for half of its sampling time: these networks run thousands of times in it
PROTOCOL = Protocol(min_time_s=0.1, attempts=3)
BATCH = 200
#: one of so many is measured in another session, too
AGAIN = 20
#: at an architecture whose core was shared with something each time
SESSIONS = 4


def compiled(work: Path, item: Item) -> Artifact:
    """The artifact of an architecture; what was built already is not built again."""
    name, layers, _ = item
    target = host_target()
    graph = lower(
        SPACES[name].backbone,
        Architecture.from_json(list(layers)),
        block_height=target.block_height,
        tap_unit=target.tap_unit,
    )
    return compile_network(graph, target=target, out_dir=work / "artifacts", cache_dir=work / "cache")


def _compile(work: Path, item: Item) -> str | None:
    try:
        compiled(work, item)
    except FarmError as error:
        return f"{type(error).__name__}: {error}"
    return None


def measure_batch(work: Path, items: list[Item], cpu: int) -> None:
    """Appends a line for each item."""
    results = work / "measured.jsonl"
    ratios = [line["issue_ratio"] for line in read_lines(results) if line.get("quiet")]
    meter = Meter(LocalTransport(work / "device", cpu), min(ratios, default=None))
    with results.open("a") as file:
        file.write("\n")
        for name, layers, session in items:
            line: dict[str, Any] = {"space": name, "layers": layers, "session": session}
            try:
                artifact = compiled(work, (name, layers, session))
                known = meter.measure(artifact, PROTOCOL)
                meter.transport.remove(remote_name(artifact.path))
                line |= {
                    "latency_ms": known.latency_ms,
                    "ci_low_ms": known.ci_low_ms,
                    "ci_high_ms": known.ci_high_ms,
                    "quiet": known.conditions["quiet"],
                    "issue_ratio": known.conditions["issue_ratio"],
                    "cpu": cpu,
                }
            except FarmError as error:
                line["error"] = f"{type(error).__name__}: {error}"
            file.write(json.dumps(line) + "\n")
            file.flush()


def todo(work: Path) -> list[Item]:
    """In the plan's order; behind each file, again what was not quiet, and every AGAIN-th architecture."""
    taken: dict[tuple[str, tuple[str, ...]], list[bool]] = {}
    for line in read_lines(work / "measured.jsonl"):
        taken.setdefault((line["space"], tuple(line["layers"])), []).append(line.get("quiet", True))
    items: dict[Item, None] = {}
    for path in sorted((work / "plan").glob("*.jsonl")):
        listed = list(dict.fromkeys((line["space"], tuple(line["layers"])) for line in read_lines(path)))
        items.update(dict.fromkeys((*key, 0) for key in listed if key not in taken))
        for key in listed:
            quiet = taken.get(key, [True])
            wanted = 2 if zlib.crc32("".join(key[1]).encode()) % AGAIN == 0 else 1
            if key in taken and sum(quiet) < wanted and len(quiet) < SESSIONS:
                items[*key, len(quiet)] = None
    return list(items)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--prefix", default="", help="a command in front of the measuring process")
    parser.add_argument("--workers", type=int, default=1, help="compiling processes")
    parser.add_argument("--batch", type=Path, help="measure what is listed there, and end")
    arguments = parser.parse_args()
    work: Path = arguments.work
    if arguments.batch is not None:
        cpu = max(os.sched_getaffinity(0))
        measure_batch(work, [(n, tuple(layers), s) for n, layers, s in json.loads(arguments.batch.read_text())], cpu)
        return
    command = [*shlex.split(arguments.prefix), sys.executable, "-m", "benchmarks.tables.measure", str(work), "--batch"]
    measuring: subprocess.Popen[bytes] | None = None
    busy: list[Item] = []
    with ProcessPoolExecutor(arguments.workers) as pool:
        while True:
            items = [item for item in todo(work) if item not in set(busy)][:BATCH]
            if not items:
                if measuring is not None:
                    measuring.wait()
                    measuring, busy = None, []
                    continue
                if (work / "stop").exists():
                    return
                time.sleep(5)
                continue
            problems = [p for p in pool.map(_compile, [work] * len(items), items, chunksize=8) if p]
            if problems:
                print(f"{len(problems)} cannot be compiled, such as: {problems[0]}", flush=True)
            if measuring is not None and measuring.wait():
                print(f"the measuring process ended with {measuring.returncode}", flush=True)
            for item in busy:
                artifact = compiled(work, item)
                artifact.path.unlink(missing_ok=True)
            batch = work / "batch.json"
            batch.write_text(json.dumps(items))
            measuring, busy = subprocess.Popen([*command, str(batch)]), items
            free_gb = shutil.disk_usage(work).free / 1e9
            print(f"{time.strftime('%H:%M:%S')} {len(items)} compiled, now measured; {free_gb:.0f} GB free", flush=True)


if __name__ == "__main__":
    main()
