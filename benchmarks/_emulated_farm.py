"""Emulated phones on this host through the real adb, broker and actors: what a measurement costs beside its run.

Every job is a small network with weights of its own, compiled while the phones measure others, so every executable is
pushed. All jobs are submitted at once: there is work in the queue until the end. The emulated phones run at the pace of
the model (a modelled second takes a second), so a phone's own time is the sum of the times that its programs ran:
candidates and sentinels.
"""

from __future__ import annotations

import contextlib
import os
import re
import statistics
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks._cpu_books import open_books, spent_s
from device_farm.compiler.graph import Activation, Conv2d, Graph, Input, Padding, Pool2d, Shape

ROOT = Path(__file__).resolve().parents[1]
MODEL = "emu-x86-fast"
HOSTS = 4  # processes that emulate phones


def network() -> Graph:
    """Small, but not so small that the runner has enough samples before the time is up."""
    return Graph(
        (
            Input("image", (), Shape(28, 28, 32)),
            Conv2d("conv", ("image",), 64, (3, 3), padding=Padding.same(3), activation=Activation.RELU),
            Conv2d("conv2", ("conv",), 64, (3, 3), padding=Padding.same(3), activation=Activation.RELU),
            Pool2d("pool", ("conv2",), kernel=(28, 28), stride=(28, 28)),
            Conv2d("head", ("pool",), 10),
        )
    )


def measure_overhead(*, phones: int, each: int, min_time_s: float = 2.0) -> dict[str, Any]:
    """`each` jobs for every phone. Starts a Ray of its own and stops it."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    import ray

    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, namespace="npas-benchmark")
    try:
        return _measure(phones, each, min_time_s)
    finally:
        ray.shutdown()


def _measure(count: int, each: int, min_time_s: float) -> dict[str, Any]:
    from device_farm.fleet.config import SENTINEL
    from device_farm.fleet.devices import AdbDevice
    from device_farm.fleet.farm import Farm, FarmConfig
    from device_farm.fleet.words import Policy
    from device_farm.measurement.admission import AdmissionRules
    from device_farm.measurement.types import Protocol
    from device_farm.testing.phones import EmulatedPhones
    from device_farm.transport.adb.server import AdbServer

    with (
        tempfile.TemporaryDirectory() as folder,
        AdbServer.start_private(home=Path(folder)) as server,
        contextlib.ExitStack() as stack,
    ):
        # Phones do not share a processor: those of one process would wait for each other.
        hosts = [[MODEL] * len(range(n, count, HOSTS)) for n in range(min(HOSTS, count))]
        emulated = [stack.enter_context(EmulatedPhones(models, seed=n)) for n, models in enumerate(hosts)]
        phones = [phone for host in emulated for phone in host]
        for phone in phones:
            server.connect(phone.address)
        devices = tuple(AdbDevice(phone.address, server=str(server), home=folder, pinned=False) for phone in phones)
        config = FarmConfig(
            devices=devices,
            cache_dir=Path(folder) / "cache",
            protocol=Protocol(min_time_s=min_time_s, max_time_s=2 * min_time_s, deadline_s=60.0),
            policy=Policy(absent_s=300.0, unfit_wait_s=300.0),
            sentinel=SENTINEL,
            rules=AdmissionRules(),
            start_timeout_s=400.0,
            connect_timeout_s=300.0,
            name="benchmark",
            namespace="npas-benchmark",
        )
        farm = Farm.start(config)
        try:
            # Every phone takes its baseline and pays for whatever is first once.
            for job in [farm.submit(network(), model=MODEL, seed=1_000_000 + n) for n in range(2 * count)]:
                job.result(300)
            before = [len(phone.runs) for phone in phones]
            load = os.getloadavg()[0]  # others at work: then wall times say little
            roots = (os.getpid(), server.pid)
            books = open_books(roots, _role)
            begun = time.monotonic()
            pending = [farm.submit(network(), model=MODEL, seed=n) for n in range(count * each)]
            results = [job.result(600) for job in pending]
            seconds = time.monotonic() - begun
            cpu_s = spent_s(books, open_books(roots, _role))
            runs = [phone.runs[first:] for phone, first in zip(phones, before, strict=True)]
        finally:
            farm.stop()
    cpu_ms = {role: 1e3 * spent / len(results) for role, spent in sorted(cpu_s.items(), key=lambda item: -item[1])}
    found = _overhead(runs, jobs=len(results), seconds=seconds)
    return found | {"load_before": load, "cpu_ms": sum(cpu_ms.values()), "cpu_ms_per_measurement": cpu_ms}


def _role(pid: int, command: str) -> str:
    """Who a process is, by how it calls itself."""
    if pid == os.getpid():
        return "driver"
    if (actor := re.match(r"ray::(\w+)", command)) is not None:
        return actor[1]
    known = ("device_farm.fleet.offspring", "device_farm.emulator", "raylet", "gcs_server", "adb")
    return next((name for name in known if name in command), "other")


def _overhead(runs: list[Any], *, jobs: int, seconds: float) -> dict[str, Any]:
    """From each phone's first program to its last one of the batch: what was not its own time."""
    device_s = [sum(run.ended_s - run.started_s for run in phone) for phone in runs if phone]
    span_s = [phone[-1].ended_s - phone[0].started_s for phone in runs if phone]
    between_s = [span - own for span, own in zip(span_s, device_s, strict=True)]
    return {
        "phones": len(runs),
        "measurements": jobs,
        "seconds": seconds,
        "programs": sum(len(phone) for phone in runs),
        "device_s_per_measurement": sum(device_s) / jobs,
        "overhead_ms_per_measurement": 1e3 * sum(between_s) / jobs,
        "median_gap_ms": 1e3 * statistics.median(_gaps(runs)),
        "not_running": sum(between_s) / sum(span_s),
        "measurements_per_s": jobs / seconds,
    }


def _gaps(runs: list[Any]) -> list[float]:
    return [later.started_s - run.ended_s for phone in runs for run, later in pairwise(phone)]
