"""The times of an emulated phone: a seeded model takes the place of the host's clock in the runner's report.

The program really runs, once, so the answer is really computed; what it says of time is replaced, all of it together:
samples, windows, profile, clock probes, frequencies, temperatures, affinity. docs/emulated_phones.md has the formula.
Nothing here reads a clock or a file.
"""

from __future__ import annotations

import argparse
import json
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from device_farm.emulator.phone_model import PhoneModel

Report = dict[str, Any]

# Constants of the runner (windows.h, conditions.h, bench.h), in cycles of a core.
PROBE_CYCLES = 40_000
SPIN_CYCLES = 300_000
WINDOW_NS = 2_000_000
QUIET_RATIO = 1.015
MOST_SAMPLES = 50_000  # whatever was asked: other phones wait while they are drawn
PROFILE_PASSES = 201
PROFILE_MAX_NS = 300_000_000

_EFFICIENCY = {"depthwise_conv2d": 0.4}  # of the multiplications a cycle of a convolution
_THREAD_LOSS = 0.12  # each further thread adds so much less than a core
_PROBE_SPREAD = 0.0005
_SPIKES = 0.004  # samples that something interrupts


@dataclass(frozen=True)
class BenchOptions:
    """What the command line of the runner asked for."""

    warmup_s: float = 0.05
    min_time_s: float = 0.2
    max_time_s: float = 1.0
    min_samples: int = 20
    max_samples: int = 20_000
    cpus: tuple[int, ...] = ()
    asked: int | list[int] | None = None
    profile: bool = False
    wall_limit_s: float = 60.0
    dies_with_stdin: bool = False
    kept: tuple[str, ...] = field(default=())  # arguments that the real run is given, too


def parse_bench(arguments: Sequence[str]) -> BenchOptions | None:
    """The options of `artifact bench ...`; None for any other program or what the runner itself must judge."""
    if not arguments or arguments[0] != "bench":
        return None
    parser = _Quiet(add_help=False, allow_abbrev=False)
    for name in ("warmup", "min-time", "max-time", "wall-limit"):
        parser.add_argument(f"--{name}-s", type=float, default=getattr(BenchOptions, f"{name.replace('-', '_')}_s"))
    parser.add_argument("--min-samples", type=int, default=BenchOptions.min_samples)
    parser.add_argument("--max-samples", type=int, default=BenchOptions.max_samples)
    parser.add_argument("--cpu", type=int, default=-1)
    parser.add_argument("--cpus", type=lambda text: [int(cpu) for cpu in text.split(",")], default=None)
    parser.add_argument("--input-seed")
    parser.add_argument("--issue-ratio", type=float)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--die-with-stdin", action="store_true")
    try:
        found = parser.parse_args(list(arguments[1:]))
    except (ValueError, argparse.ArgumentError):
        return None
    if not 1 <= found.min_samples <= found.max_samples <= 10_000_000:
        return None
    cpus = tuple(found.cpus or ([found.cpu] if found.cpu >= 0 else []))
    kept = ["--wall-limit-s", str(found.wall_limit_s)]
    kept += ["--input-seed", found.input_seed] if found.input_seed is not None else []
    kept += ["--die-with-stdin"] if found.die_with_stdin else []
    return BenchOptions(
        warmup_s=found.warmup_s,
        min_time_s=found.min_time_s,
        max_time_s=max(found.max_time_s, found.min_time_s),
        min_samples=found.min_samples,
        max_samples=found.max_samples,
        cpus=cpus,
        asked=list(cpus) if len(cpus) > 1 else cpus[0] if cpus else None,
        profile=found.profile,
        wall_limit_s=found.wall_limit_s,
        dies_with_stdin=found.die_with_stdin,
        kept=tuple(kept),
    )


def shortest_run(options: BenchOptions) -> list[str]:
    """Arguments of a real run that computes the answer, names the steps, and takes no longer than that."""
    short = ["--warmup-s", "0", "--min-time-s", "0", "--max-time-s", "0", "--min-samples", "1", "--max-samples", "1"]
    return ["bench", *short, "--profile", *options.kept]


def on_host_cores(arguments: Sequence[str], host_cores: Sequence[int]) -> list[str]:
    """A command line of the runner with cores of the host for those of the phone, each always for the same."""
    found = list(arguments)
    for position, word in enumerate(found[:-1]):
        if word in ("--cpu", "--cpus"):
            cpus = [int(cpu) for cpu in found[position + 1].split(",")]
            found[position + 1] = ",".join(str(host_cores[cpu % len(host_cores)] if cpu >= 0 else cpu) for cpu in cpus)
    return found


def on_phone_cores(report: Report, options: BenchOptions, model: PhoneModel) -> Report:
    """The report of such a run, with the cores of the phone."""
    obtained, by_thread = _affinity(model, options.cpus, max(1, len(report["threads"])))
    return report | {"affinity": {"asked": options.asked, "obtained": obtained}, "threads": by_thread}


def parse_report(output: bytes) -> Report | None:
    """The report of a runner, or None where it is something else."""
    try:
        report = json.loads(output)
    except (ValueError, RecursionError):
        return None
    if not isinstance(report, dict) or report.get("schema") != 1 or report.get("mode") != "bench":
        return None
    is_whole = isinstance(report.get("threads"), list) and isinstance(report.get("key"), str)
    return report if is_whole and isinstance(report.get("output"), list) else None


@dataclass(frozen=True)
class Session:
    """What the times of one run depend on. Both functions are asked for seconds since the run began, in their order."""

    model: PhoneModel
    speed: float  # of this phone among those of its model, and of this session among its own: about 1
    noise: float  # 0: quiet
    state_at: Callable[[float], State]
    khz_at: Callable[[float], Sequence[int]]  # the same clocks alone: asked for at every window
    rng: random.Random


@dataclass(frozen=True)
class State:
    """A phone at one moment."""

    khz: tuple[int, ...]  # of each core
    thermal_millicelsius: list[list[str | int]]
    load_1min: float


@dataclass(frozen=True)
class Modelled:
    """A report with the model's times, and how long the phone was busy with it."""

    report: Report
    took_s: float


def step_cycles(model: PhoneModel, step: Report, cpus: Sequence[int], threads: int) -> float:
    """Clock cycles of one step of a network, on the slowest of the cores."""
    clusters = [model.cluster_of(cpu) for cpu in cpus] or [model.cluster_of(-1)]
    slowest = min(clusters, key=lambda cluster: cluster.macs_per_cycle)
    macs_per_cycle = slowest.macs_per_cycle * _EFFICIENCY.get(step["kind"], 1.0)
    parallel = threads / (1 + _THREAD_LOSS * (threads - 1))
    return slowest.step_cycles + float(step["kept_macs"]) / (macs_per_cycle * parallel)


def modelled(report: Report, options: BenchOptions, session: Session) -> Modelled:
    """The report as this phone would have written it. Equal arguments give an equal report."""
    threads = max(1, len(report["threads"]))
    steps = report["profile"]["steps"]
    cycles = [step_cycles(session.model, step, options.cpus, threads) / session.speed for step in steps]
    total = sum(cycles) or 1000.0
    core = options.cpus[0] if options.cpus else session.model.big_core
    before = session.state_at(options.warmup_s)
    latency_ns = total / before.khz[core % session.model.cores] * 1e6
    timeline = _Timeline(session, options, core, total)
    timeline.sample()
    after = session.state_at(timeline.now_s)
    profile = None
    if options.profile:
        ghz = after.khz[core % session.model.cores] / 1e6
        medians = [round(c / ghz * (1 + 0.5 * session.model.sample_spread)) for c in cycles]
        passes = max(1, min(PROFILE_PASSES, len(timeline.samples_ns), int(PROFILE_MAX_NS / (total / ghz))))
        named = [dict(step) | {"median_ns": ns} for step, ns in zip(steps, medians, strict=True)]
        profile = {"passes": passes, "steps": named}
        timeline.now_s += passes * total / ghz * 1e-9
    obtained, by_thread = _affinity(session.model, options.cpus, threads)
    replaced = {
        "affinity": {"asked": options.asked, "obtained": obtained},
        "threads": by_thread,
        "warmup_runs": int(options.warmup_s * 1e9 / latency_ns),
        "samples_ns": timeline.samples_ns,
        "windows": timeline.windows,
        "profile": profile,
        "before": _conditions(before, core % session.model.cores, session.rng),
        "after": _conditions(after, core % session.model.cores, session.rng),
        "voluntary_switches": 0,
        "involuntary_switches": round(20 * session.noise),
        "page_faults": 0,
    }
    return Modelled(report | replaced, timeline.now_s)


class _Timeline:
    """Sampling as the runner does it (windows.h), in the phone's own time."""

    def __init__(self, session: Session, options: BenchOptions, core: int, cycles: float) -> None:
        self.samples_ns: list[int] = []
        self.windows: list[list[int]] = []
        self.now_s = options.warmup_s
        self._session = session
        self._options = options
        self._most = min(options.max_samples, MOST_SAMPLES)
        self._core = core % session.model.cores
        self._cycles = cycles

    def sample(self) -> None:
        session, options, rng = self._session, self._options, self._session.rng
        began_s = self.now_s
        quiet_s = 0.0
        disturbance = self._disturbance()
        ghz = self._ghz()
        best_ns = self._probe(ghz, disturbance)
        last_was_quiet = True
        while True:
            opened_s = self.now_s
            limit = WINDOW_NS
            base = self._cycles / ghz * (1 + disturbance)
            spread = session.model.sample_spread * (1 + 10 * session.noise)
            while limit > 0 and len(self.samples_ns) < self._most:
                sample = base * (1 + rng.expovariate(1.0) * spread)
                if rng.random() < _SPIKES:
                    sample *= 1 + rng.random()
                self.samples_ns.append(max(1, round(sample)))
                limit -= round(sample)
            self.now_s += (WINDOW_NS - limit) * 1e-9
            window_s = self.now_s - opened_s
            disturbance, ghz = self._disturbance(), self._ghz()
            probe_ns = self._probe(ghz, disturbance)
            best_ns = min(best_ns, probe_ns)
            is_quiet = probe_ns <= QUIET_RATIO * best_ns
            if is_quiet and last_was_quiet:
                quiet_s += window_s
            last_was_quiet = is_quiet
            elapsed_s = self.now_s - began_s
            if len(self.samples_ns) >= self._most:
                return
            if len(self.samples_ns) < options.min_samples or elapsed_s < options.min_time_s:
                continue
            if quiet_s >= options.min_time_s or elapsed_s >= options.max_time_s:
                return

    def _ghz(self) -> float:
        return self._session.khz_at(self.now_s)[self._core] / 1e6

    def _disturbance(self) -> float:
        """Of the window that begins: how much slower something else makes it."""
        noise = self._session.noise
        return noise * abs(self._session.rng.gauss(0.0, 1.0)) if noise else 0.0

    def _probe(self, ghz: float, disturbance: float) -> int:
        took = PROBE_CYCLES / ghz * (1 + disturbance) * (1 + self._session.rng.random() * _PROBE_SPREAD)
        self.windows.append([len(self.samples_ns), round(took)])
        self.now_s += took * 1e-9
        return round(took)


def _conditions(state: State, core: int, rng: random.Random) -> Report:
    spin = SPIN_CYCLES / (state.khz[core] / 1e6) * (1 + rng.random() * _PROBE_SPREAD)
    return {
        "cpu_khz": {str(number): khz for number, khz in enumerate(state.khz)},
        "thermal_millicelsius": state.thermal_millicelsius,
        "load_1min": round(state.load_1min, 2),
        "spin_ns": round(spin),
    }


def _affinity(model: PhoneModel, cpus: Sequence[int], threads: int) -> tuple[list[int], list[list[int]]]:
    """The cores that all threads together may use, and those of each. A core that is not there pins nothing."""
    everywhere = list(range(model.cores))
    by_thread = [[cpus[i]] if i < len(cpus) and cpus[i] < model.cores else everywhere for i in range(threads)]
    return sorted({cpu for cores in by_thread for cpu in cores}), by_thread


def session_rng(seed: int, key: str, number: int) -> random.Random:
    """For the `number`-th run of an artifact on a phone."""
    return random.Random(f"{seed}/{key}/{number}")


def phone_speed(model: PhoneModel, seed: int) -> float:
    """How fast a phone is among those of its model."""
    return math.exp(random.Random(f"phone/{seed}").gauss(0.0, model.spread))


class _Quiet(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        raise ValueError(message)
