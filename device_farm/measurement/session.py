"""A latency of an artifact on a device: push, run, compare the answer, believe the samples or try again."""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from device_farm.compiler.artifact import Artifact
from device_farm.errors import Refused, Unstable, WrongAnswer
from device_farm.measurement.admission import AdmissionRules
from device_farm.measurement.drift import Baseline
from device_farm.measurement.report import BenchReport, parse_report
from device_farm.measurement.sentinel import Sentinel
from device_farm.measurement.statistics import LATENCY_QUANTILE, Summary, summarise
from device_farm.measurement.supervision import Supervisor
from device_farm.measurement.types import DeviceConditions, DeviceFacts, Measurement, Protocol
from device_farm.transport.base import Completed, Deadline, Transport

_NS_PER_MS = 1e6
_DEFAULT = Protocol()


def measure(
    transport: Transport,
    artifact: Artifact,
    protocol: Protocol = _DEFAULT,
    *,
    known_issue_ratio: float | None = None,
    look: Callable[[DeviceConditions], None] | None = None,
) -> Measurement:
    """Latency of the artifact on the device. The whole session, all attempts, takes at most `protocol.deadline_s`.

    `known_issue_ratio` is the smallest `conditions["issue_ratio"]` of earlier measurements on this device (`Meter`
    keeps it): with it, a core that something else shares all the time is told from a quiet one. Such a measurement is
    marked (`conditions["quiet"]` is False) and its interval is wide, or it is refused (`protocol.require_quiet`).
    `look` is told how the device is at the end of every run, which costs no call of its own.

    Raises WrongAnswer, Unstable, RunnerFailed, Refused (also where the device did not run it on the cores that were
    asked for), and what else the transport raises (DeviceGone, DeadlineExceeded).
    """
    deadline = Deadline(protocol.deadline_s, f"measurement of {artifact.key}")
    facts = transport.facts(timeout_s=deadline.remaining_s)
    reports: list[BenchReport] = []
    longest_s = 0.0  # of the attempts so far
    while True:
        left_s = deadline.remaining_s
        options = _options(artifact, protocol, facts=facts, known_issue_ratio=known_issue_ratio)
        completed = run_artifact(transport, artifact, ["bench", "--profile", *options], deadline, look=look)
        report = parse_report(BenchReport, completed, key=artifact.key)
        _check_cores(report, facts)
        error = _check_answer(report, artifact)
        reports.append(report)
        summary = summarise(
            [r.session() for r in reports], min_samples=protocol.min_samples, known_ratio=known_issue_ratio
        )
        stable = summary.own_half_width <= protocol.max_relative_ci
        if stable and summary.quiet:
            break
        longest_s = max(longest_s, left_s - deadline.remaining_s)
        # Another attempt that cannot end in time would tell less than these: only that it was late.
        if len(reports) >= protocol.attempts or deadline.remaining_s < longest_s:
            if stable and not protocol.require_quiet:
                break  # the samples agree, and the interval says what a shared core does to them
            raise _unstable(summary, protocol, known_issue_ratio, attempts=len(reports))
    return _measurement(artifact, facts, protocol, reports, summary, error)


@dataclass
class Meter:
    """`measure` with a memory of what a quiet core of this device looks like. One for each device.

    With `rules`, a device that they do not admit is Unfit before anything runs, and a session in which it changed is
    taken again. With a `sentinel`, every session lies between two readings of it, and its latency is that of the
    device at its best: corrected for a small drift, Unfit for a larger one. sentinel.py says who provides it.
    """

    transport: Transport
    issue_ratio: float | None = None
    _: KW_ONLY
    sentinel: Sentinel | None = None
    rules: AdmissionRules | None = None
    clock: Callable[[], float] = time.monotonic  # seconds: how old a reading is

    def __post_init__(self) -> None:
        self._supervisor = Supervisor(
            self.transport, measure=self._session, sentinel=self.sentinel, rules=self.rules, clock=self.clock
        )

    @property
    def baseline(self) -> Baseline | None:
        """The sentinel's on this device, to be remembered; None before the first measurement without one."""
        return self._supervisor.baseline

    def measure(self, artifact: Artifact, protocol: Protocol = _DEFAULT) -> Measurement:
        """Like the function of this name; raises Unfit, too."""
        if self.sentinel is None and self.rules is None:
            return self._session(artifact, protocol)
        return self._supervisor.measure(artifact, protocol)

    def calibrate(self, protocol: Protocol = _DEFAULT) -> Baseline:
        """Takes the sentinel's baseline anew. Raises ValueError without a sentinel, Unfit, and like `measure`."""
        return self._supervisor.calibrate(protocol)

    def _session(
        self, artifact: Artifact, protocol: Protocol, look: Callable[[DeviceConditions], None] | None = None
    ) -> Measurement:
        measurement = measure(self.transport, artifact, protocol, known_issue_ratio=self.issue_ratio, look=look)
        if measurement.conditions["quiet"]:
            ratio = float(measurement.conditions["issue_ratio"])
            self.issue_ratio = ratio if self.issue_ratio is None else min(ratio, self.issue_ratio)
        return measurement


def remote_name(path: Path) -> str:
    """The name of a file on a device: its content's hash, so that what is there need not be pushed again."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:32]


def run_artifact(
    transport: Transport,
    artifact: Artifact,
    arguments: Sequence[str],
    deadline: Deadline,
    *,
    look: Callable[[DeviceConditions], None] | None = None,
) -> Completed:
    """Runs the artifact, pushing it first if the device is not known to have it."""
    name = remote_name(artifact.path)

    def run() -> Completed:
        guards = ("--wall-limit-s", f"{max(deadline.remaining_s, 0.001):.3f}", "--die-with-stdin")
        argv = [name, *arguments, *guards]
        if look is None:
            return transport.run(argv, timeout_s=deadline.remaining_s)
        completed, conditions = transport.run_and_look(argv, timeout_s=deadline.remaining_s)
        look(conditions)
        return completed

    if transport.holds(name) is not False:
        with contextlib.suppress(Refused):  # as a rule: no such program there
            return run()
    transport.push(artifact.path, name, timeout_s=deadline.remaining_s)
    return run()


def _options(
    artifact: Artifact, protocol: Protocol, *, facts: DeviceFacts, known_issue_ratio: float | None
) -> list[str]:
    options: dict[str, float | str] = {
        "--warmup-s": protocol.warmup_s,
        "--min-time-s": protocol.min_time_s,
        "--max-time-s": max(protocol.max_time_s, protocol.min_time_s),
        "--min-samples": protocol.min_samples,
        "--max-samples": protocol.max_samples,
        "--cpu": -1 if facts.cpu is None else facts.cpu,
        "--input-seed": artifact.input_seed,
        "--issue-ratio": known_issue_ratio or 0.0,
    }
    if artifact.threads > 1 and facts.cpus:
        options["--cpus"] = ",".join(map(str, facts.cpus))  # the runner takes the last word
    return [str(part) for option in options.items() for part in option]


def _check_cores(report: BenchReport, facts: DeviceFacts) -> None:
    """Raises Refused if it ran elsewhere: a latency of another cluster is the latency of another processor."""
    asked = report.affinity.asked
    cores = set() if asked is None else {asked} if isinstance(asked, int) else set(asked)
    obtained = set(report.affinity.obtained)
    if cores and (not obtained or not obtained <= cores):
        raise Refused(
            f"{facts.serial} did not keep the artifact on core {_listed(cores)}: it ran on"
            f" {_listed(obtained) or 'none that is known'}. It was switched off meanwhile, or programs"
            " of a shell may not use it: choose another `cpu` for this device"
        )


def _listed(cores: set[int]) -> str:
    return ", ".join(map(str, sorted(cores)))


def _check_answer(report: BenchReport, artifact: Artifact) -> float:
    """The largest error relative to the largest expected magnitude. Raises WrongAnswer."""
    expected = np.array(artifact.expected_output, dtype=np.float64)
    if len(report.output) != len(expected):
        raise WrongAnswer(f"the network gave {len(report.output)} outputs, expected {len(expected)}")
    got = np.array([np.nan if value is None else value for value in report.output])
    scale = float(np.abs(expected).max()) or 1.0
    errors = np.where(np.isfinite(got), np.abs(got - expected) / scale, np.inf)
    worst = int(errors.argmax())
    if errors[worst] > artifact.tolerance:
        shown = "a value that is not finite" if report.output[worst] is None else f"{got[worst]:.9g}"
        raise WrongAnswer(
            f"output {worst} of {len(expected)} is {shown}, expected {expected[worst]:.9g}:"
            f" relative error {errors[worst]:.2g}, tolerated {artifact.tolerance:.2g}"
        )
    if not report.output_repeats:
        raise WrongAnswer("the same input gave another answer after some runs: state leaks from image to image")
    return float(errors[worst])


def _unstable(summary: Summary, protocol: Protocol, known_issue_ratio: float | None, *, attempts: int) -> Unstable:
    found = (
        f"latency {summary.latency_ns / _NS_PER_MS:.4g} ms +- {100 * summary.own_half_width:.1f} %"
        f" (at most {100 * protocol.max_relative_ci:.1f} % is allowed)"
    )
    if not summary.quiet:
        quiet = "never repeats itself" if known_issue_ratio is None else f"is {known_issue_ratio:.4f} when quiet"
        found += f"; something shares the core all the time: its issue ratio is {summary.issue_ratio:.4f} and {quiet}"
    return Unstable(f"not stable in {attempts} attempts: {found}")


def _measurement(
    artifact: Artifact,
    facts: DeviceFacts,
    protocol: Protocol,
    reports: Sequence[BenchReport],
    summary: Summary,
    error: float,
) -> Measurement:
    profiles = [report.profile.steps for report in reports if report.profile is not None]
    profile = min(profiles, key=lambda steps: sum(step.median_ns for step in steps), default=[])
    last = reports[-1]
    conditions: dict[str, Any] = {
        "taken_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "statistic": f"p{100 * LATENCY_QUANTILE:.0f} of {'quiet' if summary.quiet else 'all'} samples",
        "attempts": len(reports),
        "quiet": summary.quiet,
        "quiet_fraction": round(summary.quiet_fraction, 4),
        "issue_ratio": summary.issue_ratio,
        "denormals": last.denormals,
        "threads": artifact.threads,
    }
    if artifact.threads > 1:
        conditions["thread_cores"] = last.threads
    conditions |= last.model_dump(
        mode="json",  # plain: what comes back from a journal is equal to what went in
        include={
            "affinity", "before", "after", "warmup_runs", "voluntary_switches", "involuntary_switches", "page_faults"
        },
    )  # fmt: skip
    return Measurement(
        artifact_key=artifact.key,
        device=facts,
        protocol_key=protocol.key,
        latency_ms=summary.latency_ns / _NS_PER_MS,
        ci_low_ms=summary.ci_low_ns / _NS_PER_MS,
        ci_high_ms=summary.ci_high_ns / _NS_PER_MS,
        samples=summary.samples,
        percentiles_ms={name: value / _NS_PER_MS for name, value in summary.percentiles_ns.items()},
        max_relative_error=error,
        steps_ms=tuple((step.name, step.median_ns / _NS_PER_MS) for step in profile),
        conditions=conditions,
    )
