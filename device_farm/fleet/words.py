"""The words of the fleet: what is asked, what is granted, what went wrong, what is to be done. Plain data.

All times are seconds on one clock of the caller's choice; nothing in here reads a clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

R = TypeVar("R")


class Blame(StrEnum):
    """Whom a failure counts against."""

    CALLER = "caller"  # the request is wrong; no worker can help, so it is answered at once and remembered
    INPUT = "input"  # what the job needs was lost on the way; the asker may bring it again
    ARTIFACT = "artifact"  # the program itself: wrong answer, crash. Two devices that say so poison it
    UNFIT = "unfit"  # the device says itself that it may not measure now: it rests, and the job counts nothing
    DEVICE = "device"  # the device answered but could not serve: unstable, refused, too slow. It cools down
    LOST = "lost"  # the device vanished or hangs. It must join again

    @property
    def is_infrastructure(self) -> bool:
        return self in (Blame.DEVICE, Blame.LOST)


@dataclass(frozen=True)
class Fault:
    """One failure as the one who saw it tells it. `error` names a class of device_farm.errors."""

    blame: Blame
    error: str
    message: str
    retry_after_s: float = 0.0  # of UNFIT: how long the device rests at least


@dataclass(frozen=True)
class Failure:
    """One failure as the fleet keeps it: the evidence."""

    serial: str
    fence: int
    at_s: float
    fault: Fault

    def __str__(self) -> str:
        return f"{self.serial}: {self.fault.error}: {self.fault.message}"


@dataclass(frozen=True)
class Job:
    """Run `artifact_key` on some device of `model`. Equal keys are one job.

    `priority` (higher first) orders the queue. `client` names the search that asks; fair shares will read it.
    """

    key: str
    artifact_key: str
    model: str
    client: str = ""
    priority: int = 0


@dataclass(frozen=True)
class Lease:
    """The right of one job to one device until `deadline_s`. `fence` rises strictly over all leases of a fleet."""

    fence: int
    job: Job
    serial: str
    deadline_s: float


@dataclass(frozen=True)
class Done(Generic[R]):
    """The job's result."""

    result: R


@dataclass(frozen=True)
class Failed:
    """The job will not be tried again. `final`: asking the same key again gives the same answer from memory."""

    error: str  # a class of device_farm.errors
    message: str
    evidence: tuple[Failure, ...] = ()
    final: bool = False


Outcome = Done[R] | Failed


@dataclass(frozen=True)
class Run:
    """Action: run the lease's job on its device, then report `complete` or `fail` with its fence."""

    lease: Lease


@dataclass(frozen=True)
class Settle(Generic[R]):
    """Action: answer everybody who waits for this key."""

    key: str
    outcome: Outcome[R]


@dataclass(frozen=True)
class Restart:
    """Action: whatever serves this device is not to be trusted; kill it, start it anew and let it `join`."""

    serial: str
    reason: str


Action = Run | Settle[R] | Restart


class DeviceState(StrEnum):
    """Health of a device, the worst that applies."""

    HEALTHY = "healthy"
    COOLING = "cooling"  # comes back by itself, soon
    QUARANTINED = "quarantined"  # comes back on probation after a long time, or when released
    GONE = "gone"  # comes back when it joins


@dataclass(frozen=True)
class DeviceStatus:
    """What the fleet knows of one device."""

    serial: str
    model: str
    state: DeviceState
    job_key: str | None  # what it runs now
    strikes: int
    reason: str  # of the last strike, cooling or quarantine
    completed: int
    failed: int


@dataclass(frozen=True)
class Policy:
    """How patient the fleet is.

    A job ends without a result when its artifact failed on `poison_devices` different devices; or, where no other
    device of the model is usable, `same_device_attempts` times on one; or after `infrastructure_attempts` failures that
    were not its own; or after `max_attempts` of any kind; or when no device of its model was usable for `absent_s`.

    A device cools for `cool_s` after a strike, twice as long after each further one in a row, at most `max_cool_s`;
    `quarantine_strikes` in a row quarantine it for `quarantine_s`, unless it is the last usable one of its model:
    with nothing to take its place nobody would gain.
    """

    lease_s: float = 90.0
    poison_devices: int = 2
    same_device_attempts: int = 2
    infrastructure_attempts: int = 4
    max_attempts: int = 8
    absent_s: float = 60.0
    cool_s: float = 1.0
    max_cool_s: float = 15.0
    quarantine_strikes: int = 3
    quarantine_s: float = 600.0
    remember: int = 20_000  # finished keys answered from memory; the oldest are forgotten first

    def __post_init__(self) -> None:
        for name in ("lease_s", "absent_s", "cool_s", "max_cool_s", "quarantine_s"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0 seconds, got {getattr(self, name)}")
        counts = ("poison_devices", "same_device_attempts", "infrastructure_attempts", "max_attempts")
        for name in (*counts, "quarantine_strikes", "remember"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
