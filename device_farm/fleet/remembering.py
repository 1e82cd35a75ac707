"""A fleet that begins with what an earlier life knew, and tells what happens in this one."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any

from device_farm.fleet.entries import Entry, Kind, Restored
from device_farm.fleet.memory import DeviceMemory, Memory
from device_farm.fleet.state import Fleet
from device_farm.fleet.words import Action, Blame, Done, Failure, Fault, Happening, Job, Lease, Note, Policy, Settle
from device_farm.measurement.types import Measurement

_Actions = list[Action[Measurement]]

# What a failure is called in a device's history; others are not the device's.
_KINDS = {
    Blame.ARTIFACT: Kind.ACCUSED,
    Blame.UNFIT: Kind.UNFIT,
    Blame.DEVICE: Kind.STRUCK,
    Blame.LOST: Kind.STRUCK,
}
_NOTED = {
    Happening.QUARANTINED: Kind.QUARANTINED,
    Happening.PROBATION: Kind.PROBATION,
    Happening.RETURNED: Kind.RETURNED,
    Happening.STUCK: Kind.STUCK,
}


class RememberingFleet(Fleet[Measurement]):
    """A Fleet of devices whose events are told to `tell` as entries of the journal, in their order.

    Times of the fleet are on its own clock, `now` at first; in the journal they are seconds since the epoch.
    """

    def __init__(self, policy: Policy, *, restored: Restored, tell: Callable[[Entry], None], now: float) -> None:
        memory: Memory[Measurement] = Memory(
            devices=tuple(_known(health, at_s) for at_s, health in restored.health.values()),
            evidence={key: tuple(_since(now_s=time.time(), failure=f) for f in failures)
                      for key, failures in restored.evidence.items()},
        )  # fmt: skip
        super().__init__(policy, first_fence=restored.first_fence, memory=memory, now=now)
        self._tell = tell

    # Events

    def submit(self, job: Job, *, now: float) -> _Actions:
        return self._told(super().submit(job, now=now))

    def join(self, serial: str, model: str, *, now: float, boot_id: str = "") -> _Actions:
        lease = self.lease_of(serial)
        actions = super().join(serial, model, now=now, boot_id=boot_id)
        self._tell_lost(lease, "DeviceGone", "joined anew while it ran a job")
        self._tell(Entry(Kind.JOINED, serial=serial, data={"model": model}))
        for action in actions:
            if isinstance(action, Note) and action.what is Happening.ACCUSED:
                (*_, failure) = self.evidence(action.subject)
                failure = replace(failure, at_s=failure.at_s - now + time.time())
                self._tell(Entry.failure(Kind.ACCUSED, action.subject, failure))
        return self._told(actions)

    def leave(self, serial: str, *, now: float, reason: str = "left the fleet") -> _Actions:
        lease = self.lease_of(serial)
        actions = super().leave(serial, now=now, reason=reason)
        self._tell_lost(lease, "DeviceGone", reason)
        self._tell(Entry(Kind.LEFT, serial=serial, data={"reason": reason}))
        return self._told(actions)

    def complete(self, serial: str, fence: int, *, result: Measurement, now: float) -> _Actions:
        accusers = {failure.serial for failure in self.evidence(result.artifact_key)} - {serial}
        known = {status.serial: status.strikes for status in self.devices()} if accusers else {}
        actions = super().complete(serial, fence, result=result, now=now)
        for accuser in sorted(accusers & known.keys()):
            if self.device(accuser).strikes != known[accuser]:
                data = {"reason": f"called {result.artifact_key[:12]} broken, which runs well on {serial}"}
                self._tell(Entry(Kind.STRUCK, result.artifact_key, accuser, data))
        return self._told(actions)

    def fail(self, serial: str, fence: int, *, fault: Fault, now: float) -> _Actions:
        lease = self.lease_of(serial)
        actions = super().fail(serial, fence, fault=fault, now=now)  # raises Fenced before anything happens
        self._tell_fault(lease, fault)
        return self._told(actions)

    def tick(self, now: float) -> _Actions:
        expired = [lease for lease in self.leases() if lease.deadline_s <= now]
        actions = super().tick(now)
        for lease in expired:
            self._tell_lost(lease, "DeadlineExceeded", f"no answer within the {self.policy.lease_s:g} s of the lease")
        return self._told(actions)

    def quarantine(self, serial: str, *, reason: str, now: float, until_s: float = math.inf) -> _Actions:
        actions = super().quarantine(serial, reason=reason, now=now, until_s=until_s)
        if not any(isinstance(action, Note) and action.what is Happening.QUARANTINED for action in actions):
            self._tell_health(Kind.QUARANTINED, serial, reason)  # it is away, or was in quarantine
        return self._told(actions)

    def cool(self, serial: str, *, reason: str, now: float, until_s: float) -> _Actions:
        actions = super().cool(serial, reason=reason, now=now, until_s=until_s)
        self._tell(Entry(Kind.COOLED, serial=serial, data={"reason": reason, "for_s": until_s - now}))
        return self._told(actions)

    def release(self, serial: str, *, now: float) -> _Actions:
        actions = super().release(serial, now=now)
        self._tell_health(Kind.RELEASED, serial, "")
        return self._told(actions)

    # Telling

    def _told(self, actions: _Actions) -> _Actions:
        for action in actions:
            match action:
                case Settle(key, outcome) if isinstance(outcome, Done) or outcome.final:
                    self._tell(Entry.answer(key, outcome))
                case Note(Happening.RESTARTED, serial, reason):
                    self._tell(Entry(Kind.RESTARTED, serial=serial, data={"reason": reason}))
                case Note(what, subject, reason) if what in _NOTED:
                    self._tell_health(_NOTED[what], subject, reason)
                case _:
                    pass
        return actions

    def _tell_lost(self, lease: Lease | None, error: str, message: str) -> None:
        """A lease that came to its end without its worker saying so."""
        if lease is not None:
            self._tell_fault(lease, Fault(Blame.LOST, error, message))

    def _tell_fault(self, lease: Lease | None, fault: Fault) -> None:
        if lease is not None and fault.blame in _KINDS:
            failure = Failure(lease.serial, lease.fence, time.time(), fault)
            self._tell(Entry.failure(_KINDS[fault.blame], lease.job.artifact_key, failure))

    def _tell_health(self, kind: Kind, serial: str, reason: str) -> None:
        """What a later life must know of the device is told with it."""
        health = next(device for device in self.memory(answers=False).devices if device.serial == serial)
        data = asdict(health) | {"quarantine_left_s": _json_seconds(health.quarantine_left_s)}
        self._tell(Entry(kind, serial=serial, data={"reason": reason, "health": data}))


def _json_seconds(seconds: float) -> float | None:
    return None if seconds == math.inf else seconds


def _known(health: Mapping[str, Any], at_s: float) -> DeviceMemory:
    """A device as it is now, by what was written of it at `at_s`."""
    left_s = health["quarantine_left_s"]
    left_s = math.inf if left_s is None else max(0.0, left_s - (time.time() - at_s))
    return DeviceMemory(**{**health, "quarantine_left_s": left_s})


def _since(*, now_s: float, failure: Failure) -> Failure:
    """On a clock that shows 0 now."""
    return replace(failure, at_s=failure.at_s - now_s)
