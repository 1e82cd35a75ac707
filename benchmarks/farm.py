"""What the device farm costs: its state machine, a thousand simulated phones, and 32 emulated ones on this host.

    python benchmarks/farm.py [--quick] [--json FILE] [--part fleet|simulator|broker|phones ...]

A part that is not run stays in FILE as it is.

fleet: the state machine alone, driven by a plain loop: the cost of a lease by the number of phones and leases.
simulator: the same machine and the real pool over simulated phones on a virtual clock (docs/fleet.md): the real time of
a lease, of which the broker's own part is what the real farm pays too, the peak memory, and how busy the phones were.
Both in processor time: there is but one thread, and it never waits.
broker: how busy a thousand phones are when the broker needs so long for one lease.
phones: emulated phones through the real adb, compiler and broker (needs Ray): what a measurement costs beside the
device's own time, and whose processor time that is. Every cell is a process of its own. The bars are those of issue 4.
"""

from __future__ import annotations

import heapq
import json
import random
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

if __package__ is None or __package__ == "":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks._harness import finish, parser, table
from device_farm.fleet.state import Fleet
from device_farm.fleet.words import Action, Job, Lease, Policy, Run
from device_farm.simulator.faults import FaultRates
from device_farm.simulator.scenario import ADB_AS_IT_IS, lab
from device_farm.simulator.simulate import simulate

PARTS = ("fleet", "simulator", "broker", "phones")
SIZES = ((10, 1_000), (100, 10_000), (1_000, 10_000), (1_000, 30_000), (1_000, 100_000))
PHONES = ((8, 8), (16, 8), (32, 8))  # phones, measurements of each
QUICK = ((10, 1_000), (100, 10_000))
STORM = FaultRates.all_at(0.3, spell_s=90.0)
BROKER_MS = (0.1, 1.0, 2.0, 5.0, 8.0, 10.0)
BARS = {"lease_ms": 1.0, "utilisation": 0.95, "overhead_ms": 100.0, "idle": 0.05}


def main() -> None:
    options = parser(__doc__ or "")
    options.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS), help="all, if not said")
    options.add_argument("--cell", nargs="+", help="one cell of a part, as JSON; for the benchmark itself")
    arguments = options.parse_args()
    if arguments.cell:
        print(json.dumps(CELLS[arguments.cell[0]](*map(float, arguments.cell[1:]))))
        return
    results: dict[str, Any] = {"bars": BARS}
    if arguments.json is not None and arguments.json.exists():  # parts that are not run again stay as they are
        before = json.loads(arguments.json.read_text())
        results |= {part: before[part] for part in PARTS if part in before}
    for part in arguments.part:
        results[part] = SHOWS[part](arguments.quick)
    finish("farm", results, arguments.json)


def _cell(part: str, *numbers: float) -> dict[str, Any]:
    command = [sys.executable, str(Path(__file__).resolve()), "--cell", part, *map(str, numbers)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr[-2000:]}")
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return measured


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


# --- the state machine alone ------------------------------------------------------------------------------------------


def fleet_cell(phones: float, jobs: float) -> dict[str, Any]:
    """All jobs are queued at once, of three models and three clients; every lease ends well after 5 to 12 s."""
    fleet: Fleet[int] = Fleet(Policy(shares={"client-1": 2.0}))
    rng = random.Random(0)
    ends: list[tuple[float, int, Lease]] = []
    now = 0.0
    before_mb = _peak_mb()
    begun = time.process_time()

    def carry_out(actions: Sequence[Action[int]]) -> None:
        for action in actions:
            if isinstance(action, Run):
                heapq.heappush(ends, (now + rng.uniform(5.0, 12.0), action.lease.fence, action.lease))

    for n in range(int(phones)):
        carry_out(fleet.join(f"phone-{n}", f"model-{n % 3}", now=now))
    for n in range(int(jobs)):
        job = Job(f"job-{n}", f"artifact-{n}", f"model-{n % 3}", client=f"client-{n % 7 % 3}", priority=n % 17 == 0)
        carry_out(fleet.submit(job, now=now))
    leases = 0
    while ends:
        now, fence, lease = heapq.heappop(ends)
        wake_at_s = fleet.wake_at_s
        if wake_at_s is not None and wake_at_s <= now:
            carry_out(fleet.tick(now))
        carry_out(fleet.complete(lease.serial, fence, result=0, now=now))
        leases += 1
    seconds = time.process_time() - begun
    return {
        "phones": int(phones),
        "leases": leases,
        "seconds": seconds,
        "lease_us": seconds / leases * 1e6,
        "peak_mb": _peak_mb(),
        "grown_mb": _peak_mb() - before_mb,
    }


def show_fleet(quick: bool) -> list[dict[str, Any]]:
    cells = [_cell("fleet", *size) for size in (QUICK if quick else SIZES)]
    rows = [[c["phones"], c["leases"], c["lease_us"], c["seconds"], c["peak_mb"]] for c in cells]
    print("\nThe state machine alone")
    print(table(["phones", "leases", "us a lease", "s", "peak MB"], rows), flush=True)
    return cells


# --- simulated phones -------------------------------------------------------------------------------------------------


def simulator_cell(phones: float, jobs: float, storm: float) -> dict[str, Any]:
    scenario = lab(int(phones), int(jobs), faults=STORM if storm else ADB_AS_IT_IS)
    begun = time.process_time()
    report = simulate(scenario, 0)
    seconds = time.process_time() - begun
    return {
        "storm": bool(storm),
        "real_s": seconds,
        "lease_us": seconds / report.leases * 1e6,
        "peak_mb": _peak_mb(),
        **report.to_json(),
    }


def show_simulator(quick: bool) -> list[dict[str, Any]]:
    sizes = [(*size, 0) for size in (QUICK if quick else SIZES)] + ([] if quick else [(1_000, 100_000, 1)])
    cells = [_cell("simulator", *size) for size in sizes]
    rows = [
        [c["phones"], c["leases"], "storm" if c["storm"] else "usual", c["lease_us"], c["real_s"], c["peak_mb"],
         f"{c['utilisation']:.2%}", f"{c['serving']:.1%}", c["seconds"], sum(c["failed"].values()), c["wrong_numbers"],
         c["lost"] + c["doubled"], c["most_harmed"]]
        for c in cells
    ]  # fmt: skip
    header = ["phones", "leases", "faults", "us a lease", "real s", "peak MB", "utilisation", "serving", "virtual s"]
    print("\nThe pool and the fleet over simulated phones")
    print(table([*header, "failed", "wrong", "lost or doubled", "most harmed"], rows), flush=True)
    return cells


def broker_cell(phones: float, jobs: float, broker_ms: float) -> dict[str, Any]:
    scenario = replace(lab(int(phones), int(jobs), crashing=0.0), broker_s=broker_ms / 1000)
    report = simulate(scenario, 0)
    return {"broker_ms": broker_ms, "utilisation": report.utilisation, "leases": report.leases, "s": report.seconds}


def show_broker(quick: bool) -> list[dict[str, Any]]:
    phones, jobs = (100, 5_000) if quick else (1_000, 50_000)
    cells = [_cell("broker", phones, jobs, broker_ms) for broker_ms in BROKER_MS]
    rows = [[c["broker_ms"], f"{c['utilisation']:.2%}", c["leases"] / c["s"]] for c in cells]
    print(f"\n{phones} phones whose leases last 9 s, by what the broker needs for one lease")
    print(table(["ms a lease", "utilisation", "leases a second"], rows), flush=True)
    return cells


# --- emulated phones --------------------------------------------------------------------------------------------------


def phones_cell(phones: float, each: float) -> dict[str, Any]:
    from benchmarks._emulated_farm import measure_overhead

    return measure_overhead(phones=int(phones), each=int(each))


def show_phones(quick: bool) -> list[dict[str, Any]]:
    """Emulated phones on this host, through adb and the broker."""
    cells = [_cell("phones", count, each) for count, each in (((4, 4),) if quick else PHONES)]
    keys = [key for key in cells[0] if key != "cpu_ms_per_measurement"]
    print("\nEmulated phones through adb, compiler and broker")
    print(table(keys, [[cell[key] for key in keys] for cell in cells]), flush=True)
    roles = sorted({role for cell in cells for role in cell["cpu_ms_per_measurement"]})
    rows = [[role, *(cell["cpu_ms_per_measurement"].get(role, 0.0) for cell in cells)] for role in roles]
    print("\nProcessor time of a measurement, ms, by who used it")
    print(table(["", *(f"{cell['phones']} phones" for cell in cells)], rows), flush=True)
    return cells


CELLS: dict[str, Callable[..., dict[str, Any]]] = {
    "fleet": fleet_cell,
    "simulator": simulator_cell,
    "broker": broker_cell,
    "phones": phones_cell,
}
SHOWS: dict[str, Callable[[bool], Any]] = {
    "fleet": show_fleet,
    "simulator": show_simulator,
    "broker": show_broker,
    "phones": show_phones,
}


if __name__ == "__main__":
    main()
