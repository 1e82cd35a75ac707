"""The health of one device: strikes, rests, quarantine and the way back. Time is passed in."""

from __future__ import annotations

import math
from dataclasses import dataclass

from device_farm.fleet.words import DeviceState, DeviceStatus, Lease, Policy

_NEVER = -math.inf


@dataclass
class Device:
    """What the fleet remembers of a device, also while it is gone."""

    serial: str
    model: str | None = None  # None until it was reached
    present: bool = False
    expected: bool = False  # somebody tries to reach it
    lease: Lease | None = None
    strikes: int = 0  # in a row, since the last completed job
    unfit: int = 0  # times in a row, as are its rests
    rested_s: float = 0.0
    cooling_since_s: float = _NEVER
    cool_until_s: float = _NEVER
    quarantined_since_s: float = _NEVER
    quarantined_until_s: float = _NEVER
    quarantines: int = 0
    probation: bool = False
    reason: str = ""
    completed: int = 0
    failed: int = 0
    # Kept by the roster: the state that it was last seen in, since when, when it was last told of, its next alarm.
    seen: DeviceState = DeviceState.GONE
    since_s: float = _NEVER
    told_s: float = _NEVER
    alarm_s: float = _NEVER

    def state(self, now: float) -> DeviceState:
        if not self.present:
            return DeviceState.CONNECTING if self.expected and self.model is None else DeviceState.GONE
        if now < self.quarantined_until_s:
            return DeviceState.QUARANTINED
        if now < self.cool_until_s:
            return DeviceState.COOLING
        return DeviceState.PROBATION if self.probation else DeviceState.HEALTHY

    def is_usable(self, now: float) -> bool:
        """It serves, or will serve again by itself soon."""
        return self.present and now >= self.quarantined_until_s

    def is_idle(self, now: float) -> bool:
        return self.lease is None and self.is_usable(now) and now >= self.cool_until_s

    def ends_s(self, now: float) -> float:
        """When its state ends by itself."""
        match self.state(now):
            case DeviceState.QUARANTINED:
                return self.quarantined_until_s
            case DeviceState.COOLING:
                return self.cool_until_s
            case _:
                return math.inf

    def overdue_s(self, policy: Policy, now: float) -> float:
        """When its state has lasted too long, or has again since it was last told of."""
        since_s = max(self.since_s, self.told_s)
        match self.state(now):
            case DeviceState.QUARANTINED:
                return since_s + policy.quarantine_note_s
            case DeviceState.COOLING:
                return max(self.cooling_since_s, self.told_s) + policy.cooling_s
            case DeviceState.CONNECTING | DeviceState.GONE if self.expected:
                return since_s + policy.connecting_s
            case _:
                return math.inf

    # What befalls it. `replaceable`: other devices of its model are usable

    def strike(self, reason: str, *, policy: Policy, replaceable: bool, now: float) -> None:
        """One more failure that counts against it: it cools, or is quarantined."""
        self.strikes += 1
        if now < self.quarantined_until_s:
            return
        if replaceable and (self.probation or self.strikes >= policy.quarantine_strikes):
            self.quarantine(reason, policy=policy, now=now)
        else:
            exponent = min(self.strikes - 1, 30)
            self.cool(reason, until_s=now + min(policy.cool_s * 2**exponent, policy.max_cool_s), now=now)

    def rest(self, reason: str, *, retry_after_s: float, policy: Policy, replaceable: bool, now: float) -> None:
        """It says that it is unfit. It rests as long as it asks for within reason, or is quarantined at last."""
        wanted_s = retry_after_s if retry_after_s > 0 else 0.0  # NaN, too, is nothing
        rest_s = min(max(wanted_s, policy.cool_s), policy.cooling_s)
        self.unfit += 1
        self.rested_s += rest_s
        if now < self.quarantined_until_s:
            return
        worn_out = self.unfit >= policy.unfit_times or self.rested_s >= policy.unfit_rest_s
        if replaceable and (self.probation or worn_out):
            self.quarantine(f"unfit {self.unfit} times in a row: {reason}", policy=policy, now=now, least_s=rest_s)
        else:
            self.cool(reason, until_s=now + rest_s, now=now)

    def cool(self, reason: str, *, until_s: float, now: float) -> None:
        """It rests until then at least."""
        if now >= self.cool_until_s:
            self.cooling_since_s = now
        self.cool_until_s = max(self.cool_until_s, until_s)
        self.reason = reason

    def quarantine(self, reason: str, *, policy: Policy, now: float, least_s: float = 0.0) -> None:
        """Out of service; each time in close succession for twice as long. Its way back is a probation."""
        last_s = self.quarantined_until_s - self.quarantined_since_s
        if self.quarantines and not self.probation and now - self.quarantined_until_s > last_s:
            self.quarantines = 0  # it has served for longer since than it was out
        length_s = min(policy.quarantine_s * 2 ** min(self.quarantines, 30), policy.max_quarantine_s)
        self.quarantines += 1
        self.put_away(reason, until_s=now + max(length_s, least_s), now=now)

    def put_away(self, reason: str, *, until_s: float, now: float) -> None:
        """Out of service until then."""
        self.quarantined_since_s = now
        self.quarantined_until_s = until_s
        self.cool_until_s = _NEVER
        self.strikes = self.unfit = 0
        self.rested_s = 0.0
        self.probation = True
        self.reason = reason

    def serve(self, *, now: float) -> None:
        """It completed a job."""
        self.completed += 1
        self.strikes = self.unfit = 0
        self.rested_s = 0.0
        self.probation = self.probation and now < self.quarantined_until_s

    def release(self) -> None:
        """Everything that speaks against it is forgotten."""
        self.strikes = self.unfit = self.quarantines = 0
        self.rested_s = 0.0
        self.cool_until_s = self.quarantined_until_s = self.quarantined_since_s = _NEVER
        self.probation = False
        self.reason = ""

    def status(self, now: float) -> DeviceStatus:
        return DeviceStatus(
            serial=self.serial,
            model=self.model or "",
            state=self.state(now),
            job_key=None if self.lease is None else self.lease.job.key,
            strikes=self.strikes,
            reason=self.reason,
            completed=self.completed,
            failed=self.failed,
            unfit=self.unfit,
            quarantines=self.quarantines,
            since_s=self.since_s,
            until_s=self.ends_s(now),
        )
