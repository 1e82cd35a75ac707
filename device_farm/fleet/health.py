"""The health of one device: strikes, cooling, quarantine. Time is passed in."""

from __future__ import annotations

import math
from dataclasses import dataclass

from device_farm.fleet.words import DeviceState, DeviceStatus, Lease, Policy


@dataclass
class Device:
    """What the fleet remembers of a device, also while it is gone."""

    serial: str
    model: str
    present: bool = False
    lease: Lease | None = None
    strikes: int = 0  # in a row, since the last completed job
    cool_until_s: float = -math.inf
    quarantined_until_s: float = -math.inf
    reason: str = ""
    completed: int = 0
    failed: int = 0

    def state(self, now: float) -> DeviceState:
        if not self.present:
            return DeviceState.GONE
        if now < self.quarantined_until_s:
            return DeviceState.QUARANTINED
        return DeviceState.COOLING if now < self.cool_until_s else DeviceState.HEALTHY

    def is_usable(self, now: float) -> bool:
        """It serves, or will serve again by itself soon."""
        return self.state(now) in (DeviceState.HEALTHY, DeviceState.COOLING)

    def is_idle(self, now: float) -> bool:
        return self.lease is None and self.state(now) is DeviceState.HEALTHY

    def strike(self, reason: str, *, policy: Policy, replaceable: bool, now: float) -> None:
        """One more failure that counts against the device; `replaceable` if others of its model are usable."""
        self.strikes += 1
        self.reason = reason
        if self.strikes >= policy.quarantine_strikes and replaceable:
            self.quarantined_until_s = now + policy.quarantine_s
        else:
            exponent = min(self.strikes - 1, 30)
            self.cool_until_s = max(self.cool_until_s, now + min(policy.cool_s * 2**exponent, policy.max_cool_s))

    def status(self, now: float) -> DeviceStatus:
        return DeviceStatus(
            serial=self.serial,
            model=self.model,
            state=self.state(now),
            job_key=None if self.lease is None else self.lease.job.key,
            strikes=self.strikes,
            reason=self.reason,
            completed=self.completed,
            failed=self.failed,
        )
