"""Errors of device_farm.errors <-> faults that the fleet counts."""

from __future__ import annotations

from device_farm import errors
from device_farm.fleet.words import Blame, Done, Failed, Fault, Outcome, R

# The nearest class in an error's family decides, so that a new subclass is blamed like its parent.
_BLAMES: dict[type[errors.FarmError], Blame] = {
    errors.FarmError: Blame.DEVICE,
    errors.InvalidGraph: Blame.CALLER,
    errors.UnsupportedOperator: Blame.CALLER,
    errors.CompileError: Blame.CALLER,
    errors.DeviceGone: Blame.LOST,
    errors.DeadlineExceeded: Blame.DEVICE,
    errors.Refused: Blame.DEVICE,
    errors.Unstable: Blame.DEVICE,
    errors.Unfit: Blame.UNFIT,
    errors.WrongAnswer: Blame.ARTIFACT,
    errors.RunnerFailed: Blame.ARTIFACT,
}


def fault_of(error: Exception) -> Fault:
    """What an error of a worker counts for. One that is not a FarmError means that the worker itself is broken."""
    if not isinstance(error, errors.FarmError):
        return Fault(Blame.LOST, "DeviceGone", f"its worker broke down: {type(error).__name__}: {error}")
    blame = next(_BLAMES[cls] for cls in type(error).__mro__ if cls in _BLAMES)
    retry_after_s = error.retry_after_s if isinstance(error, errors.Unfit) else 0.0
    boot_id = error.boot_id if isinstance(error, errors.DeviceGone) else ""
    return Fault(blame, type(error).__name__, str(error), retry_after_s, boot_id)


def error_of(failed: Failed) -> errors.FarmError:
    """The exception that a failed outcome stands for, its evidence added as notes."""
    cls = getattr(errors, failed.error, None)
    if not (isinstance(cls, type) and issubclass(cls, errors.FarmError)):
        cls = errors.LeaseError
    error = cls(failed.message)
    for failure in failed.evidence:
        error.add_note(f"lease {failure.fence} on {failure}")
    return error


def result_of(outcome: Outcome[R]) -> R:
    """The result, or raises the error that the outcome stands for."""
    match outcome:
        case Done(result):
            return result
        case Failed():
            raise error_of(outcome)
