"""What the protocol for phones is worth: the evidence of docs/measurement.md, "Phones".

    python benchmarks/protocol.py [--quick] [--json FILE] [--only phones corrections replicates sentinel]

`phones`: simulated phones that heat up, throttle, drift or are used by somebody, with the protocol and without.
`corrections`: how wrong a latency is at each drift of the sentinel, corrected and not. `replicates`: how often
intervals of several sessions and phones cover the model's mean. These three are seeded and repeat exactly.
`sentinel` is timed: the real one on this machine, how much its readings differ, and what a measurement costs with it
and without.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._harness import finish, parser, table
from device_farm.compiler.artifact import Artifact
from device_farm.compiler.compile import compile_network
from device_farm.compiler.target import host_target
from device_farm.errors import Unfit, Unstable
from device_farm.measurement.admission import AdmissionRules
from device_farm.measurement.drift import DEAD_BAND, SHARED, judge
from device_farm.measurement.replicates import replicate
from device_farm.measurement.sentinel import SENTINEL_PROTOCOL, Sentinel, sentinel_graph
from device_farm.measurement.session import Meter, measure
from device_farm.measurement.types import DeviceFacts, Measurement, Protocol
from device_farm.testing.simulated_phone import SCENARIOS, SimulatedPhone, write_program
from device_farm.testing.tiny import tiny_artifact
from device_farm.transport.local import LocalTransport

SHORT = Protocol(min_time_s=0.1, max_time_s=0.2)
NETWORKS = {"small": (0.9, 0.05), "large": (5.0, 0.3), "narrow": (2.0, 0.2)}  # ms, share that waits for memory
_PAUSE_S = 2.0  # between measurements: others use the phone


def main() -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--only", nargs="*", choices=list(PARTS), default=list(PARTS))
    chosen = arguments.parse_args()
    results: dict[str, Any] = {}
    for name in chosen.only:
        print(f"\n{name}", flush=True)
        results[name] = PARTS[name](chosen.quick)
    finish("protocol", results, chosen.json)


def phones(quick: bool) -> list[dict[str, Any]]:
    """Every scenario: how many measurements were reported, and the largest error among them."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        artifacts = [write_program(Path(folder), k, ms=ms, memory=share) for k, (ms, share) in NETWORKS.items()]
        sentinel = write_program(Path(folder), "sentinel", ms=0.4, memory=0.2)
        for scenario in SCENARIOS:
            row: dict[str, Any] = {"scenario": scenario}
            for guarded in (True, False):
                errors: list[float] = []
                asked = 0
                for seed in range(2 if quick else 10):
                    phone = SCENARIOS[scenario](seed)
                    found, times = _day(phone, artifacts, sentinel if guarded else None, times=60)
                    errors += found
                    asked += times
                word = "protocol" if guarded else "plain"
                row[f"{word}: reported"] = len(errors) / asked
                row[f"{word}: worst"] = max(map(abs, errors), default=0.0)
                row[f"{word}: above 3 %"] = sum(abs(e) > 0.03 for e in errors) / max(len(errors), 1)
            rows.append(row)
    header = list(rows[0])
    print(table(header, [[r["scenario"], *(f"{100 * r[h]:.1f} %" for h in header[1:])] for r in rows]))
    return rows


def _day(
    phone: SimulatedPhone, artifacts: list[Artifact], sentinel: Artifact | None, *, times: int
) -> tuple[list[float], int]:
    if sentinel is None:
        meter = Meter(phone)
    else:
        meter = Meter(phone, sentinel=Sentinel(sentinel), rules=AdmissionRules(), clock=lambda: phone.now_s)
    errors = []
    for i in range(times):
        artifact = artifacts[i % len(artifacts)]
        try:
            errors.append(meter.measure(artifact, SHORT).latency_ms / NETWORKS[artifact.key][0] - 1)
        except Unfit as unfit:
            phone.spend(unfit.retry_after_s, load=0.0)
        except Unstable:
            phone.spend(1.0, load=0.0)
        phone.spend(_PAUSE_S, load=0.5)
    return errors, times


def corrections(quick: bool) -> list[dict[str, Any]]:
    """By drift of the sentinel: how right a latency is as it was measured, always corrected, and by the protocol.

    The clock falls by up to 12 %, or, in 15 % of the draws, the memory alone does; artifacts wait for memory for up to
    half of their time, the sentinel for a fifth. Readings and sessions vary by 0.5 %.
    """
    random = np.random.default_rng(0)
    draws = 4_000 if quick else 100_000
    noise, sentinel_memory = 0.005, 0.2
    rows: list[tuple[float, float, float, float | None]] = []  # drift, errors: measured, corrected always, protocol
    for _ in range(draws):
        fall, memory, of_memory = random.uniform(0, 0.12), random.uniform(0, 0.5), random.random() < 0.15
        slowness = 1 + (sentinel_memory if of_memory else 1 - sentinel_memory) * fall
        readings = list(slowness * (1 + noise * random.standard_normal(2)))
        latency = (1 + (memory if of_memory else 1 - memory) * fall) * (1 + noise * random.standard_normal())
        drift = statistics.fmean(readings) - 1
        judged = judge(
            readings,
            1.0,
            clock=1.0 if of_memory else 1 + fall,
            max_correction=Protocol.max_correction,
            max_unexplained=Protocol.max_unexplained,
            max_drift=Protocol.max_drift,
        )
        always = latency / (1 + statistics.fmean(SHARED) * drift) if abs(drift) > DEAD_BAND else latency
        protocol = abs(judged.correct(latency, latency, latency)[0] - 1) if judged.is_fit else None
        rows.append((drift, abs(latency - 1), abs(always - 1), protocol))
    table_rows = []
    for low, high in [(0.0, 0.01), (0.01, 0.02), (0.02, 0.03), (0.03, 0.04), (0.04, 0.05), (0.05, 0.07), (0.07, 0.1)]:
        chosen = [row for row in rows if low < row[0] <= high]
        row: dict[str, Any] = {"drift": f"{100 * low:g} to {100 * high:g} %"}
        for word, column in (("as measured", 1), ("corrected always", 2), ("protocol", 3)):
            errors = [r[column] for r in chosen if r[column] is not None]
            row[f"{word}: within 3 %"] = float(np.mean(np.array(errors) <= 0.03)) if errors else None
        row["protocol: reported"] = float(np.mean([r[3] is not None for r in chosen]))
        table_rows.append(row)
    header = list(table_rows[0])
    print(table(header, [[r["drift"], *(_percent(r[h]) for h in header[1:])] for r in table_rows]))
    return table_rows


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.2f} %"


def replicates(quick: bool) -> list[dict[str, Any]]:
    """Coverage of 95 % intervals of the model's mean, and their half width, by design and by how much phones differ."""
    random = np.random.default_rng(0)
    draws = 200 if quick else 3000
    rows = []
    for phones_count, sessions in [(1, 1), (1, 3), (2, 1), (2, 3), (3, 2), (5, 2), (6, 4)]:
        row: dict[str, Any] = {"phones x sessions": f"{phones_count} x {sessions}"}
        for between_phones in (0.0, 0.01, 0.02, 0.03, 0.05):
            covered, widths = [], []
            for _ in range(draws):
                between_sessions = random.uniform(0.003, 0.02)
                units = 1 + between_phones * random.standard_normal(phones_count)
                result = replicate(
                    [
                        _measured(f"p{i}", 5.0 * unit * (1 + between_sessions * n))
                        for i, unit in enumerate(units)
                        for n in random.standard_normal(sessions)
                    ]
                )
                covered.append(result.ci_low_ms <= 5.0 <= result.ci_high_ms)
                widths.append(result.half_width)
            row[f"{100 * between_phones:g} %"] = [float(np.mean(covered)), float(np.median(widths))]
        rows.append(row)
    header = list(rows[0])
    cells = [[r[header[0]], *(f"{100 * r[h][0]:.1f} +-{100 * r[h][1]:.1f}" for h in header[1:])] for r in rows]
    print("coverage in %, and the median half width in % of the latency, by the phones' standard deviation")
    print(table(header, cells))
    return rows


def _measured(serial: str, ms: float) -> Measurement:
    facts = DeviceFacts(serial=serial, model="simulated", target="aarch64-neon", emulated=True)
    return Measurement("net", facts, "p", ms, ms, ms, 1, {"p50": ms}, 0.0, (), {})


def sentinel(quick: bool) -> dict[str, Any]:
    """The real one on this machine's last allowed core."""
    cpu = max(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        artifact = compile_network(
            sentinel_graph(), target=host_target(), out_dir=folder / "artifacts", cache_dir=folder / "cache"
        )
        candidate = tiny_artifact(folder, host_target(), defines=("REPEATS=200",))
        device = LocalTransport(folder / "device", cpu)
        meter = Meter(device, sentinel=Sentinel(artifact))
        plain = Meter(device)
        loose = Protocol(max_correction=1.0, max_drift=5.0)
        meter.measure(candidate, loose)
        costs: dict[str, list[float]] = {"with": [], "without": []}
        readings: list[float] = []
        spins: list[float] = []
        for _ in range(5 if quick else 40):
            reading = measure(device, artifact, SENTINEL_PROTOCOL, known_issue_ratio=meter.issue_ratio)
            readings.append(reading.latency_ms)
            spins.append(reading.conditions["before"]["spin_ns"])
            for word, chosen in (("with", meter), ("without", plain)):
                begin = time.perf_counter()
                with contextlib.suppress(Unfit, Unstable):  # a busy machine; it costs what it costs
                    chosen.measure(candidate, loose)
                costs[word].append(time.perf_counter() - begin)
    result = {
        "cpu": cpu,
        "median_ms": statistics.median(readings),
        "between_readings": statistics.stdev(readings) / statistics.fmean(readings),
        "worst_reading": max(readings) / min(readings) - 1,
        "clock_spread": max(spins) / min(spins) - 1,
        "with_sentinel_ms": 1e3 * statistics.median(costs["with"]),
        "without_ms": 1e3 * statistics.median(costs["without"]),
    }
    print(table(list(result), [[f"{value:.4g}" for value in result.values()]]))
    return result


PARTS: dict[str, Callable[[bool], Any]] = {
    "phones": phones,
    "corrections": corrections,
    "replicates": replicates,
    "sentinel": sentinel,
}

if __name__ == "__main__":
    main()
