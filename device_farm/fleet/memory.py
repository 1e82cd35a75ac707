"""What a fleet knows that should outlive it. Plain data, free of its clock: times are seconds from the moment taken."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Generic

from device_farm.fleet.health import Device
from device_farm.fleet.words import Failure, Outcome, R


@dataclass(frozen=True)
class DeviceMemory:
    """What is remembered of one device. `quarantine_left_s`: infinite if only a release ends it, 0 if there is none."""

    serial: str
    model: str | None = None
    quarantine_left_s: float = 0.0
    quarantines: int = 0
    probation: bool = False
    strikes: int = 0
    reason: str = ""
    completed: int = 0
    failed: int = 0

    @classmethod
    def of(cls, device: Device, *, now: float) -> DeviceMemory:
        return cls(
            serial=device.serial,
            model=device.model,
            quarantine_left_s=max(0.0, device.quarantined_until_s - now),
            quarantines=device.quarantines,
            probation=device.probation,
            strikes=device.strikes,
            reason=device.reason,
            completed=device.completed,
            failed=device.failed,
        )

    def device(self, *, now: float) -> Device:
        """The device as it was; it is not present before it joins."""
        device = Device(
            self.serial,
            model=self.model,
            quarantines=self.quarantines,
            probation=self.probation,
            strikes=self.strikes,
            reason=self.reason,
            completed=self.completed,
            failed=self.failed,
        )
        if self.quarantine_left_s > 0:
            device.quarantined_since_s, device.quarantined_until_s = now, now + self.quarantine_left_s
        return device


@dataclass(frozen=True)
class Memory(Generic[R]):
    """What a fleet of an earlier life knew. Every part may be left out.

    `answers` by job key, `evidence` by artifact key; `Failure.at_s` in it is relative, hence negative. `last_fence` is
    the highest fence that was given away: fences go on above it.
    """

    devices: tuple[DeviceMemory, ...] = ()
    evidence: Mapping[str, tuple[Failure, ...]] = field(default_factory=dict)
    answers: Mapping[str, Outcome[R]] = field(default_factory=dict)
    last_fence: int = 0


def shifted(failures: tuple[Failure, ...], by_s: float) -> tuple[Failure, ...]:
    """The same failures on a clock that shows `by_s` more."""
    if not math.isfinite(by_s):
        return failures
    return tuple(replace(failure, at_s=failure.at_s + by_s) for failure in failures)
