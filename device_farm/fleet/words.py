"""The words of the fleet: what is asked, what is granted, what went wrong, what is to be done. Plain data.

All times are seconds on one clock of the caller's choice; nothing in here reads a clock.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
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
    boot_id: str = ""  # of LOST: the boot that the device was in while the job's own program ran, if it did


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
    """Run `artifact_key` on some device of `model`, on none of `avoid` while another is usable. Equal keys are one job.

    Higher priorities go first; within one, devices are shared between the clients (searches) by their weights.
    """

    key: str
    artifact_key: str
    model: str
    client: str = ""
    priority: int = 0
    avoid: frozenset[str] = frozenset()  # serials


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


class Happening(StrEnum):
    """What is worth a line in the journal."""

    QUARANTINED = "quarantined"  # of a device
    PROBATION = "probation"  # of a device: its quarantine is over, its next job decides
    RETURNED = "returned"  # of a device: it passed its probation, or was released
    STUCK = "stuck"  # of a device: its state has lasted longer than such a state should
    UNFIT = "unfit"  # of a model: none of its devices is fit to measure, so its jobs wait
    ACCUSED = "accused"  # of an artifact: one more failure of its own
    RESTARTED = "restarted"  # of a device: it came back with another boot


@dataclass(frozen=True)
class Note:
    """Action: nothing to do, but to be known. `subject` is a serial, a model or an artifact key."""

    what: Happening
    subject: str
    reason: str


Action = Run | Settle[R] | Restart | Note


class DeviceState(StrEnum):
    """Health of a device, the worst that applies."""

    HEALTHY = "healthy"
    PROBATION = "probation"  # serves; its next job decides whether it is quarantined again, for longer
    COOLING = "cooling"  # comes back by itself, soon
    QUARANTINED = "quarantined"  # comes back on probation after a long time, or when released
    CONNECTING = "connecting"  # employed, and not reached yet
    GONE = "gone"  # comes back when it joins

    @property
    def is_present(self) -> bool:
        """It has joined, whether it may work now or not."""
        return self not in (DeviceState.CONNECTING, DeviceState.GONE)

    @property
    def serves(self) -> bool:
        """It may be given a job now."""
        return self in (DeviceState.HEALTHY, DeviceState.PROBATION)


@dataclass(frozen=True)
class DeviceStatus:
    """What the fleet knows of one device."""

    serial: str
    model: str  # "" until it was reached
    state: DeviceState
    job_key: str | None  # what it runs now
    strikes: int
    reason: str  # of the last strike, rest or quarantine
    completed: int
    failed: int
    unfit: int = 0  # times in a row that it said so
    quarantines: int = 0  # in close succession
    since_s: float = -math.inf  # when its state began
    until_s: float = math.inf  # when its state ends by itself


@dataclass(frozen=True)
class Load:
    """What goes on in one model. Devices that rest, are quarantined or gone are neither idle nor leased."""

    waiting: int  # jobs without a device
    idle: int  # devices that could begin a job now
    leased: int  # devices at work


@dataclass(frozen=True)
class Policy:
    """How patient the fleet is. docs/fleet.md has the reasons for the defaults.

    **Jobs.** A job ends without a result when its artifact failed on `poison_devices` different devices; or, where no
    other device of the model is usable, `same_device_attempts` times on one; or after `infrastructure_attempts`
    failures that were not its own; or after `max_attempts` of any kind; or when no device of its model was usable for
    `absent_s`, or fit for `unfit_wait_s`. That a device was unfit is no attempt.

    **Shares.** Higher priorities go first, but when a lower one has waited `patience_s`, every `overdue_every`-th lease
    of the model is its. Within a priority the clients get device-seconds in proportion to `shares`, 1 for whom it does
    not name.

    **Devices.** A device cools for `cool_s` after a strike, twice as long after each further one in a row, at most
    `max_cool_s`. It is quarantined for `quarantine_s` by `quarantine_strikes` in a row, by being unfit `unfit_times` in
    a row or resting for `unfit_rest_s` in all meanwhile, and by `cooling_s` without pause. Then its next job decides:
    one strike, or being unfit, quarantines it again for twice as long, at most `max_quarantine_s`. None of this befalls
    the last usable device of its model: with nothing to take its place nobody would gain.

    **Restarts.** A device that was lost in the middle of a job's own program counts for `suspect_s` as one that the
    artifact may have harmed. If it is back by then with another boot, that is a failure of the artifact's own; unless
    it restarted by itself in the last `restart_memory_s`, or another device, which ran something else, was lost within
    `together_s`.

    A device that is not reached within `connecting_s`, or is quarantined for `quarantine_note_s`, is told of, again and
    again.
    """

    lease_s: float = 90.0
    poison_devices: int = 2
    same_device_attempts: int = 2
    infrastructure_attempts: int = 4
    max_attempts: int = 8
    absent_s: float = 60.0
    unfit_wait_s: float = 1800.0
    patience_s: float = 300.0
    overdue_every: int = 8
    shares: Mapping[str, float] = field(default_factory=dict)
    cool_s: float = 1.0
    max_cool_s: float = 15.0
    quarantine_strikes: int = 3
    quarantine_s: float = 600.0
    max_quarantine_s: float = 6 * 3600.0
    unfit_times: int = 5
    unfit_rest_s: float = 1800.0
    cooling_s: float = 1800.0
    connecting_s: float = 120.0
    quarantine_note_s: float = 24 * 3600.0
    suspect_s: float = 180.0
    restart_memory_s: float = 3600.0
    together_s: float = 1.0
    remember: int = 20_000  # finished keys answered from memory; the oldest are forgotten first

    def __post_init__(self) -> None:
        for name in _DURATIONS:
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0 seconds, got {getattr(self, name)}")
        for name in _COUNTS:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for client, share in self.shares.items():
            check_share(client, share)


_DURATIONS = (
    "lease_s",
    "absent_s",
    "unfit_wait_s",
    "patience_s",
    "cool_s",
    "max_cool_s",
    "quarantine_s",
    "max_quarantine_s",
    "unfit_rest_s",
    "cooling_s",
    "connecting_s",
    "quarantine_note_s",
    "suspect_s",
    "restart_memory_s",
    "together_s",
)
_COUNTS = (
    "poison_devices",
    "same_device_attempts",
    "infrastructure_attempts",
    "max_attempts",
    "overdue_every",
    "quarantine_strikes",
    "unfit_times",
    "remember",
)


def check_share(client: str, share: float) -> float:
    """The weight itself. Raises ValueError."""
    if not 0 < share < math.inf:
        raise ValueError(f"the share of {client!r} must be a finite number above 0, got {share}")
    return share
