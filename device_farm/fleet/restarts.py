"""Devices that were lost in the middle of a job's program: whether that program made them restart.

A device that is lost is nobody's fault. But one that comes back with another boot, and was lost while a job's own
program ran on it, testifies against the program as a crash does. Until it is back it is merely suspicious; that it may
be right is enough to let no further device near the program.

Not believed is a device that lately restarted with nothing to blame, or under a program that runs well elsewhere; nor
one that was lost together with a device that ran something else: they share a hub, a host, a power line.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from device_farm.fleet.evidence import Evidence
from device_farm.fleet.timers import Kind, Timers
from device_farm.fleet.words import Blame, Failure, Fault, Policy

_RESTARTED = "the device restarted while it ran"


@dataclass(frozen=True)
class Return:
    """A device came back with another boot. `against` is the artifact that its `testimony` counts against, if any."""

    reason: str
    against: str = ""
    testimony: Failure | None = None


@dataclass
class _Suspicion:
    artifact_key: str
    failure: Failure
    until_s: float
    is_disproved: bool = False  # the artifact ran well elsewhere meanwhile


class Restarts:
    """By serial, what is known of boots and losses. Tells `evidence` which devices an artifact may have harmed."""

    def __init__(self, policy: Policy, *, evidence: Evidence, timers: Timers) -> None:
        self._policy = policy
        self._evidence = evidence
        self._timers = timers
        self._boots: dict[str, str] = {}  # the last one that is known
        self._losses: dict[str, tuple[float, str]] = {}  # when it was last lost, and what it ran
        self._by_itself_s: dict[str, float] = {}  # when it last restarted with nothing to blame
        self._open: dict[str, _Suspicion] = {}

    def lost(self, artifact_key: str, failure: Failure) -> None:
        """A lease ended with the loss of its device; `Fault.boot_id` is told if the job's own program ran."""
        serial, boot_id, now = failure.serial, failure.fault.boot_id, failure.at_s
        self._losses[serial] = (now, artifact_key)
        self.drop(serial)
        if not boot_id:
            return
        if self._boots.setdefault(serial, boot_id) != boot_id:
            self._by_itself_s[serial] = now  # between two jobs, without anybody noticing
            self._boots[serial] = boot_id
        suspicion = self._open[serial] = _Suspicion(artifact_key, failure, now + self._policy.suspect_s)
        self._evidence.suspect(artifact_key, serial)
        self._timers.set(suspicion.until_s, Kind.SUSPICION, serial)

    def back(self, serial: str, boot_id: str, *, now: float) -> Return | None:
        """It joined; None if it did not restart, or nobody knows. What it was suspicious of is decided."""
        suspicion = self._open.get(serial)
        self.drop(serial)
        before = self._boots.get(serial, "")
        if boot_id:
            self._boots[serial] = boot_id
        if not boot_id or not before or boot_id == before:
            return None
        if suspicion is None:
            self._by_itself_s[serial] = now
            return Return("restarted by itself")
        what = f"restarted while it ran {suspicion.artifact_key[:12]}"
        if suspicion.is_disproved:
            self._by_itself_s[serial] = now
            return Return(f"{what}, which runs well elsewhere")
        if (doubt := self._doubt(serial, suspicion, now=now)) is not None:
            return Return(f"{what}, which is not held against it: {doubt}")
        fault = Fault(Blame.ARTIFACT, "RunnerFailed", _RESTARTED, boot_id=before)
        return Return(what, suspicion.artifact_key, replace(suspicion.failure, fault=fault))

    def ran_well(self, artifact_key: str, serial: str) -> None:
        """The artifact is sound there, so who restarted under it does so by itself."""
        for failure in self._evidence.of(artifact_key):
            if failure.fault.boot_id and failure.serial != serial:
                self._by_itself_s[failure.serial] = max(failure.at_s, self._by_itself_s.get(failure.serial, -math.inf))
        for suspect in self._evidence.suspects(artifact_key):
            self._open[suspect].is_disproved = True
            self._evidence.trust(artifact_key, suspect)

    def about(self, serial: str) -> str | None:
        """The artifact that may have harmed it."""
        return self._open[serial].artifact_key if serial in self._open else None

    def is_due(self, serial: str, at_s: float) -> bool:
        """Whether its suspicion ends then."""
        return serial in self._open and self._open[serial].until_s == at_s

    def drop(self, serial: str) -> str | None:
        """Its suspicion is over; the artifact that it was about."""
        suspicion = self._open.pop(serial, None)
        if suspicion is None:
            return None
        self._evidence.trust(suspicion.artifact_key, serial)
        return suspicion.artifact_key

    def _doubt(self, serial: str, suspicion: _Suspicion, *, now: float) -> str | None:
        since_s = now - self._by_itself_s.get(serial, -math.inf)
        if since_s < self._policy.restart_memory_s:
            return f"it restarted by itself {since_s:.0f} s ago"
        lost_s = suspicion.failure.at_s
        for other, (at_s, artifact_key) in self._losses.items():
            together = abs(at_s - lost_s) <= self._policy.together_s
            if together and other != serial and artifact_key != suspicion.artifact_key:
                return f"{other} was lost at the same moment, and ran something else"
        return None
