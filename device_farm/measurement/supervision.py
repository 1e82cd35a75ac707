"""A session between two looks at the device: admitted, compared with itself, corrected a little or not believed.

    conditions -> admitted? -> sentinel -> session -> sentinel -> conditions -> changed? drifted? -> Measurement, Unfit

What a session that changed under way costs is another one, up to the protocol's attempts, all within its one deadline.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from device_farm.compiler.artifact import Artifact
from device_farm.errors import (
    DeadlineExceeded,
    DeviceGone,
    MeasurementError,
    RunnerFailed,
    Unfit,
    Unstable,
    WrongAnswer,
)
from device_farm.measurement.admission import AdmissionRules, admit
from device_farm.measurement.codec import conditions_to_json
from device_farm.measurement.conditioning import best_spin_ns, changed, clock_between, clock_changed, shared
from device_farm.measurement.drift import BASELINE_READINGS, Baseline, Drift, Verdict, judge, robust_baseline
from device_farm.measurement.sentinel import Sentinel
from device_farm.measurement.types import DeviceConditions, Measurement, Protocol
from device_farm.transport.base import Deadline, Transport

_FRESH_S = 1.0  # how the device was so long ago is how it is, if nothing was done with it since


class Measure(typing.Protocol):
    """A session without supervision. `look` is told how the device is at the end of each of its runs."""

    def __call__(
        self, artifact: Artifact, protocol: Protocol, look: Callable[[DeviceConditions], None] | None = None
    ) -> Measurement: ...


_RETAKES = 2  # of a reading that is off for no reason that the clock tells
_TESTIMONY_S = 8.0  # a lease lasts 15 s longer than the deadline of what is measured under it
_BROKEN_S = 600.0  # a device that computes wrongly, or kills what it runs, is not mended by resting a little


@dataclass(frozen=True)
class Reading:
    """One run of the sentinel."""

    measurement: Measurement
    ended_s: float

    @property
    def latency_ms(self) -> float:
        return self.measurement.latency_ms

    @property
    def spin_ns(self) -> float | None:
        return best_spin_ns(self.measurement)


class Supervisor:
    """What `Meter` is with a sentinel, with rules, or with both. One for each device; `measure` is an unguarded one."""

    def __init__(
        self,
        transport: Transport,
        *,
        measure: Measure,
        sentinel: Sentinel | None,
        rules: AdmissionRules | None,
        clock: Callable[[], float],
    ) -> None:
        self._transport = transport
        self._measure = measure
        self._sentinel = sentinel
        self._rules = rules
        self._limits = rules or AdmissionRules()  # of what may change within a session
        self._clock = clock
        self._last: Reading | None = None
        self._seen: DeviceConditions | None = None
        self._seen_s = -math.inf
        self.baseline: Baseline | None = None
        if sentinel is not None and sentinel.baseline_ms is not None:
            self.baseline = Baseline(sentinel.artifact.key, sentinel.baseline_ms, sentinel.spin_ns)

    def measure(self, artifact: Artifact, protocol: Protocol) -> Measurement:
        """Raises what a session raises, and Unfit."""
        deadline = Deadline(protocol.deadline_s, f"measurement of {artifact.key}")
        found: list[str] = []  # what was wrong with the device in each attempt
        while True:
            left_s = deadline.remaining_s
            try:
                measurement = self._attempt(artifact, protocol, deadline, found)
            except DeadlineExceeded as error:
                if found:  # it answers, so it is not that which is the matter with it
                    raise self._not_itself(found, "and no time was left for another") from error
                raise
            if measurement is not None:
                return measurement
            if len(found) >= protocol.attempts:
                raise self._not_itself(found)
            if deadline.remaining_s < left_s - deadline.remaining_s:
                raise self._not_itself(found, "and no time was left for another")

    def _attempt(
        self, artifact: Artifact, protocol: Protocol, deadline: Deadline, found: list[str]
    ) -> Measurement | None:
        """A session between two looks; None: the device was not itself, and `found` has one reason more."""
        before = self._admitted(deadline)
        first = self._before(protocol, deadline)
        try:
            measurement = self._measure(artifact, _within(protocol, deadline))
        except (WrongAnswer, RunnerFailed) as error:
            self._last = None
            self._check_testimony(error, artifact, protocol)
            raise
        except Unstable:
            self._last = None  # nobody knows what came over it
            raise
        noisy = shared(measurement, self._limits)
        try:
            second = self._after(protocol, deadline)
            after = self._seen if second is not None else None
            if after is None:
                after = self._look(deadline)
        except DeadlineExceeded:
            found += [] if noisy is None else [noisy]
            raise
        readings = [reading for reading in (first, second) if reading is not None]
        changed = self._what_changed(before, after, measurement, readings)
        if changed is None:
            return self._judged(measurement, first, second, before, after, protocol)
        found.append(changed)
        self._last = None
        self._admitted(deadline)  # too hot by now: no further attempt, and it says for how long
        return None

    def _not_itself(self, found: list[str], why_no_more: str = "") -> Unfit:
        times = f"in each of {len(found)} attempts" if len(found) > 1 else "during the session"
        text = f"not itself {times}: {found[-1]}" + (f" ({why_no_more})" if why_no_more else "")
        return Unfit(text, retry_after_s=self._limits.cool_s)

    def calibrate(self, protocol: Protocol) -> Baseline:
        """Takes the baseline anew, of a device that is admitted. Raises ValueError (no sentinel), Unfit."""
        if self._sentinel is None:
            raise ValueError("this meter has no sentinel, so there is nothing to calibrate")
        self._take_baseline(Deadline(protocol.deadline_s, f"calibration by {self._sentinel.artifact.key}"))
        assert self.baseline is not None
        return self.baseline

    def _admitted(self, deadline: Deadline) -> DeviceConditions:
        """How it is now, or was at the end of the last run, just now. Raises Unfit."""
        conditions, self._seen = self._seen, None
        if conditions is None or self._clock() - self._seen_s > _FRESH_S:
            conditions = self._look(deadline)
        if self._rules is not None:
            facts = self._transport.facts(timeout_s=deadline.remaining_s)
            cpus = facts.cpus or (() if facts.cpu is None else (facts.cpu,))
            if (refusal := admit(conditions, self._rules, cpus=cpus)) is not None:
                self._last = self._seen = None
                raise refusal
        return conditions

    def _look(self, deadline: Deadline) -> DeviceConditions:
        conditions = self._transport.conditions(timeout_s=deadline.remaining_s)
        self._saw(conditions)
        return conditions

    def _saw(self, conditions: DeviceConditions) -> None:
        self._seen, self._seen_s = conditions, self._clock()

    def _before(self, protocol: Protocol, deadline: Deadline) -> Reading | None:
        """A reading that is young enough, with a baseline to compare it with. Raises Unfit."""
        if self._sentinel is None:
            return None
        if self.baseline is None:
            self._take_baseline(deadline)
        self._is_of_its_model(protocol)
        last = self._last
        if last is None or self._clock() - last.ended_s > protocol.sentinel_every_s:
            last = self._settled(protocol, deadline)
        self._fit([last], protocol)
        return last

    def _after(self, protocol: Protocol, deadline: Deadline) -> Reading | None:
        return None if self._sentinel is None else self._settled(protocol, deadline)

    def _settled(self, protocol: Protocol, deadline: Deadline) -> Reading:
        """A reading; where it is off and the clock is not, the best of a few: what disturbs it adds time and passes."""
        best = self._reading(deadline)
        for _ in range(_RETAKES):
            drift = self._drift([best], protocol)
            if drift.is_fit or drift.explained or drift.ratio < 1:
                break
            again = self._reading(deadline)
            best = min(best, again, key=lambda reading: reading.latency_ms)
        self._last = best
        return best

    def _reading(self, deadline: Deadline) -> Reading:
        assert self._sentinel is not None
        protocol = _within(self._sentinel.protocol, deadline)
        try:
            measurement = self._measure(self._sentinel.artifact, protocol, self._saw)
        except (WrongAnswer, RunnerFailed) as error:
            self._last = None
            raise Unfit(f"it fails its sentinel: {error}", retry_after_s=_BROKEN_S) from error
        except DeviceGone as error:
            error.boot_id = ""  # if it restarts, then not by the program that it is asked to measure
            raise
        except Unstable as error:
            self._last = None
            raise Unfit(f"its sentinel does not settle: {error}", retry_after_s=self._limits.cool_s) from error
        self._last = Reading(measurement, self._clock())
        return self._last

    def _take_baseline(self, deadline: Deadline) -> None:
        assert self._sentinel is not None
        self._admitted(deadline)
        readings: list[Reading] = []
        for _ in range(BASELINE_READINGS):
            reading = self._reading(deadline)
            if (found := clock_changed(reading.measurement, self._limits)) is not None:
                self._last = None
                raise Unfit(f"no baseline can be taken: {found}", retry_after_s=self._limits.cool_s)
            readings.append(reading)
        self._admitted(deadline)
        baseline_ms = robust_baseline(reading.latency_ms for reading in readings)
        clocks = [reading.spin_ns for reading in readings if reading.spin_ns is not None]
        self.baseline = Baseline(self._sentinel.artifact.key, baseline_ms, min(clocks, default=None))

    def _is_of_its_model(self, protocol: Protocol) -> None:
        ratio = self._of_model()
        if ratio is not None and abs(ratio - 1) > protocol.max_drift:
            word = "longer" if ratio > 1 else "less"
            raise Unfit(
                f"at its best its sentinel takes {abs(ratio - 1):.0%} {word} than on the median phone of its model"
                f" (at most {protocol.max_drift:.0%} is allowed): another chip under the same name, or its baseline was"
                " taken while it was throttled; calibrate it when it is cool",
                retry_after_s=_BROKEN_S,
            )

    def _of_model(self) -> float | None:
        if self._sentinel is None or self._sentinel.model_ms is None or self.baseline is None:
            return None
        return self.baseline.baseline_ms / self._sentinel.model_ms

    def _drift(self, readings: list[Reading], protocol: Protocol) -> Drift:
        assert self.baseline is not None
        clocks = [clock for r in readings if (clock := self.baseline.clock(r.spin_ns)) is not None]
        return judge(
            [reading.latency_ms for reading in readings],
            self.baseline.baseline_ms,
            clock=statistics.fmean(clocks) if clocks else None,
            max_correction=protocol.max_correction,
            max_unexplained=protocol.max_unexplained,
            max_drift=protocol.max_drift,
        )

    def _fit(self, readings: list[Reading], protocol: Protocol) -> Drift:
        """Raises Unfit where it is too large."""
        assert self.baseline is not None
        baseline, last = self.baseline, readings[-1]
        drift = self._drift(readings, protocol)
        self.baseline = baseline.observe(last.latency_ms, last.spin_ns, max_correction=protocol.max_correction)
        if drift.is_fit:
            return drift
        self._last = None
        word = "above" if drift.ratio > 1 else "below"
        found = (
            f"its sentinel takes {readings[-1].latency_ms:.4g} ms, {abs(drift.ratio - 1):.1%} {word} its baseline of"
            f" {baseline.baseline_ms:.4g} ms"
        )
        if drift.ratio < 1:
            found += ": the baseline was taken while it was not at its best; a few more readings replace it"
            raise Unfit(found, retry_after_s=1.0)
        if drift.verdict is Verdict.OFF:
            allowed = f"at most {protocol.max_drift:.0%}"
        elif drift.explained:
            allowed = f"at most {protocol.max_correction:.0%}"
        else:
            allowed = f"and its clock does not explain it: at most {protocol.max_unexplained:.1%}"
        raise Unfit(
            f"{found} ({allowed})", retry_after_s=self._limits.cool_s * (1 if drift.verdict is Verdict.OFF else 0.5)
        )

    def _check_testimony(self, error: MeasurementError, artifact: Artifact, protocol: Protocol) -> None:
        """Returns if what the device says against the artifact is to be believed.

        Its sentinel must run well, and a wrong answer must be wrong again. Two devices that say the same poison an
        artifact for good, so there is some time for it beyond the deadline. Raises Unfit if the sentinel fails,
        Unstable for a device that contradicts itself, and what the transport raises: then nothing is said about the
        artifact.
        """
        if self._sentinel is None:
            return
        deadline = Deadline(_TESTIMONY_S, f"sentinel after {artifact.key} failed")
        try:
            self._reading(deadline)
        except Unfit as unfit:
            raise unfit from error
        if not isinstance(error, WrongAnswer):
            return  # what crashes is not let loose on it again
        short = dataclasses.replace(
            protocol, min_time_s=min(protocol.min_time_s, 0.05), attempts=1, max_relative_ci=1.0
        )
        try:
            self._measure(artifact, _within(short, deadline))
        except WrongAnswer:
            return
        raise Unstable(f"it contradicts itself: the same program, run again, gave the right answer; before, {error}")

    def _what_changed(
        self, before: DeviceConditions, after: DeviceConditions, measurement: Measurement, readings: list[Reading]
    ) -> str | None:
        found = [changed(before, after), clock_changed(measurement, self._limits), shared(measurement, self._limits)]
        found += [clock_between(measurement, reading.measurement, self._limits) for reading in readings]
        return next((text for text in found if text is not None), None)

    def _judged(
        self,
        measurement: Measurement,
        first: Reading | None,
        second: Reading | None,
        before: DeviceConditions,
        after: DeviceConditions,
        protocol: Protocol,
    ) -> Measurement:
        conditions = measurement.conditions | {
            "device_before": conditions_to_json(before),
            "device_after": conditions_to_json(after),
        }
        if first is None or second is None:
            return dataclasses.replace(measurement, conditions=conditions)
        assert self.baseline is not None and self._sentinel is not None
        baseline = self.baseline
        drift = self._fit([first, second], protocol)
        latency_ms, low_ms, high_ms = drift.correct(
            measurement.latency_ms, measurement.ci_low_ms, measurement.ci_high_ms
        )
        conditions["sentinel"] = _said(self._sentinel, baseline, first, second, drift, measurement, self._of_model())
        return dataclasses.replace(
            measurement, latency_ms=latency_ms, ci_low_ms=low_ms, ci_high_ms=high_ms, conditions=conditions
        )


def _said(
    sentinel: Sentinel,
    baseline: Baseline,
    first: Reading,
    second: Reading,
    drift: Drift,
    measurement: Measurement,
    of_model: float | None,
) -> dict[str, Any]:
    return {
        "key": sentinel.artifact.key,
        "baseline_ms": baseline.baseline_ms,
        "readings_ms": [first.latency_ms, second.latency_ms],
        "drift": drift.ratio,
        "corrected": drift.verdict is Verdict.CORRECTED,
        "uncorrected_ms": measurement.latency_ms,
        "of_model": of_model,
    }


def _within(protocol: Protocol, deadline: Deadline) -> Protocol:
    """The protocol, with what is left of the deadline. Raises DeadlineExceeded."""
    deadline.check()
    return dataclasses.replace(protocol, deadline_s=min(protocol.deadline_s, deadline.remaining_s))
