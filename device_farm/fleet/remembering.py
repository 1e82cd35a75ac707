"""A fleet that begins with what an earlier life knew, and tells what happens in this one."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from device_farm.fleet.journal import Entry, Kind, Memory
from device_farm.fleet.state import Fleet
from device_farm.fleet.words import Action, Blame, DeviceState, DeviceStatus, Done, Failure, Fault, Job, Policy, Settle
from device_farm.measurement.types import Measurement

_Actions = list[Action[Measurement]]


class RememberingFleet(Fleet[Measurement]):
    """A Fleet of devices whose events are told to `tell` as entries of the journal, in their order.

    Times of the fleet are on its own clock; in the journal they are seconds since the epoch.
    """

    def __init__(self, policy: Policy, *, memory: Memory, tell: Callable[[Entry], None]) -> None:
        super().__init__(policy, first_fence=memory.first_fence)
        self._tell = tell
        # The fleet keeps what speaks against an artifact for as long as it is remembered; so does this life.
        self._evidence.update({key: list(failures) for key, failures in memory.evidence.items()})
        self._trim_evidence()

    def restore_quarantines(self, quarantined: Mapping[str, Mapping[str, Any]], *, now: float) -> None:
        """Devices that an earlier life had put in quarantine stay there when they join. Before the first job."""
        for serial, data in quarantined.items():
            until_at_s = data["until_at_s"]
            left_s = math.inf if until_at_s is None else until_at_s - time.time()
            if left_s > 0:
                super().join(serial, data["model"], now=now)
                super().leave(serial, now=now, reason="not seen since the broker started")
                super().quarantine(serial, reason=data["reason"], now=now, until_s=now + left_s)

    # Events

    def submit(self, job: Job, *, now: float) -> _Actions:
        return self._told(super().submit(job, now=now))

    def join(self, serial: str, model: str, *, now: float) -> _Actions:
        before = self._before([serial])
        actions = super().join(serial, model, now=now)
        self._tell(Entry(Kind.JOINED, serial=serial, data={"model": model}))
        return self._told(actions, before)

    def leave(self, serial: str, *, now: float, reason: str = "left the fleet") -> _Actions:
        before = self._before([serial])
        actions = super().leave(serial, now=now, reason=reason)
        self._tell(Entry(Kind.LEFT, serial=serial, data={"reason": reason}))
        return self._told(actions, before)

    def complete(self, serial: str, fence: int, *, result: Measurement, now: float) -> _Actions:
        accusers = {failure.serial for failure in self.evidence(result.artifact_key)}
        before = self._before([serial, *accusers])
        return self._told(super().complete(serial, fence, result=result, now=now), before)

    def fail(self, serial: str, fence: int, *, fault: Fault, now: float) -> _Actions:
        before = self._before([serial])
        lease = next((lease for lease in self.leases() if lease.serial == serial), None)
        actions = super().fail(serial, fence, fault=fault, now=now)  # raises Fenced before anything else happens
        if lease is not None and fault.blame is Blame.ARTIFACT:
            self._tell(Entry.accusation(lease.job.artifact_key, Failure(serial, fence, now, fault)))
        if fault.blame is Blame.UNFIT:
            data = {"reason": fault.message, "retry_after_s": fault.retry_after_s}
            self._tell(Entry(Kind.UNFIT, serial=serial, data=data))
        return self._told(actions, before)

    def tick(self, now: float) -> _Actions:
        before = self._before(lease.serial for lease in self.leases() if lease.deadline_s <= now)
        return self._told(super().tick(now), before)

    def quarantine(self, serial: str, *, reason: str, now: float, until_s: float = math.inf) -> _Actions:
        actions = super().quarantine(serial, reason=reason, now=now, until_s=until_s)
        self._tell_quarantine(serial)
        return self._told(actions)

    def cool(self, serial: str, *, reason: str, now: float, until_s: float) -> _Actions:
        actions = super().cool(serial, reason=reason, now=now, until_s=until_s)
        self._tell(Entry(Kind.COOLED, serial=serial, data={"reason": reason, "for_s": until_s - now}))
        return self._told(actions)

    def release(self, serial: str, *, now: float) -> _Actions:
        actions = super().release(serial, now=now)
        self._tell(Entry(Kind.RELEASED, serial=serial))
        return self._told(actions)

    # Telling

    def _before(self, serials: Iterable[str]) -> dict[str, DeviceStatus]:
        return {serial: self._status(serial) for serial in serials if serial in self._devices}

    def _status(self, serial: str) -> DeviceStatus:
        return self._devices[serial].status(self._now)

    def _told(self, actions: _Actions, before: Mapping[str, DeviceStatus] | None = None) -> _Actions:
        """Tells answers that are for good, and how devices fared."""
        for action in actions:
            if isinstance(action, Settle) and (isinstance(action.outcome, Done) or action.outcome.final):
                self._tell(Entry.answer(action.key, action.outcome))
        for serial, old in (before or {}).items():
            new = self._status(serial)
            if new.strikes > old.strikes:
                data = {"reason": new.reason, "strikes": new.strikes, "state": str(new.state)}
                self._tell(Entry(Kind.STRUCK, serial=serial, data=data))
            if new.state is DeviceState.QUARANTINED and old.state is not DeviceState.QUARANTINED:
                self._tell_quarantine(serial)
        return actions

    def _tell_quarantine(self, serial: str) -> None:
        device = self._devices[serial]
        until_s = device.quarantined_until_s
        until_at_s = None if until_s == math.inf else time.time() + until_s - self._now
        data = {"model": device.model, "reason": device.reason, "until_at_s": until_at_s}
        self._tell(Entry(Kind.QUARANTINED, serial=serial, data=data))
