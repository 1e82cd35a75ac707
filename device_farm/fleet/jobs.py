"""A job that is not settled, and when it has had enough."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from device_farm.fleet.parking import Entry
from device_farm.fleet.words import Blame, Failed, Failure, Job, Lease, Policy

# Of the times that a device was unfit for it, a job keeps the latest.
_UNFIT_KEPT = 8


@dataclass
class Record:
    """A job that is not settled."""

    job: Job
    sequence: int
    lease: Lease | None = None
    leased_s: float = 0.0  # when its lease began
    charged_s: float = 0.0  # what its client was charged for the lease
    failures: list[Failure] = field(default_factory=list)  # its attempts
    unfit: list[Failure] = field(default_factory=list)  # which are no attempts
    unfit_since_s: float | None = None

    @property
    def entry(self) -> Entry:
        return (-self.job.priority, self.sequence, self.job.key)

    def returned_unfit(self, failure: Failure) -> None:
        """Its device says that it may not measure now."""
        self.unfit = [*self.unfit[1 - _UNFIT_KEPT :], failure]
        if self.unfit_since_s is None:
            self.unfit_since_s = failure.at_s


def verdict(
    record: Record, last: Failure, *, own: Sequence[Failure], untried_left: bool, policy: Policy
) -> Failed | None:
    """Whether a job that just failed has had enough. Its artifact, against which `own` speak, is not poisoned."""
    fault = last.fault
    failures = tuple(record.failures)
    if fault.blame is Blame.UNFIT:
        assert record.unfit_since_s is not None
        since_s = last.at_s - record.unfit_since_s
        return _never_fit(record, since_s) if since_s >= policy.unfit_wait_s else None
    if fault.blame in (Blame.CALLER, Blame.INPUT):
        return Failed(fault.error, fault.message, failures, final=fault.blame is Blame.CALLER)
    here = sum(failure.serial == last.serial for failure in own)
    if fault.blame is Blame.ARTIFACT and here >= policy.same_device_attempts and not untried_left:
        message = f"{here} times on {last.serial}, the only usable device of its model: {fault.message}"
        return Failed(fault.error, message, tuple(own), final=True)
    infrastructure = sum(failure.fault.blame.is_infrastructure for failure in failures)
    if infrastructure >= policy.infrastructure_attempts or len(failures) >= policy.max_attempts:
        tale = "; ".join(map(str, failures))
        return Failed(fault.error, f"given up after {len(failures)} attempts: {tale}", failures)
    return None


def _never_fit(record: Record, since_s: float) -> Failed:
    tale = "; ".join(map(str, record.unfit))
    message = f"no device was fit for it for {since_s:g} s; the latest: {tale}"
    return Failed("Unfit", message, (*record.failures, *record.unfit))
