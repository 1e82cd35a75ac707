"""Everything that the device farm raises.

FarmError
 +- InvalidGraph           the network description is wrong (the caller's error)
 +- UnsupportedOperator    the compiler has no kernel for an operator (the caller's error)
 +- CompileError           TVM or the linker failed on a network that should compile
 +- TransportError         the way to a device
 |   +- DeviceGone         the device or its link vanished
 |   +- DeadlineExceeded   the total deadline of one call passed
 |   +- Refused            the device answered, and said no
 +- MeasurementError       the device ran, and its numbers cannot be believed
 |   +- WrongAnswer        the output differs from the host's reference
 |   +- Unstable           the samples vary more than the protocol allows
 |   +- Unfit              the device may not measure now: hot, throttled, empty battery, sentinel off
 |   `- RunnerFailed       the runner ended with an error, a signal or garbage
 +- CalibrationError       a calibration file is damaged, stale or of another device or space
 +- JournalError           the broker's journal is damaged, held by another farm, or cannot be written
 `- LeaseError             the fleet
     +- NoSuchDevice       no device of the asked model is known
     +- Fenced             a result came under a lease that has expired
     `- Poisoned           the artifact failed on two different devices
"""

from __future__ import annotations


class FarmError(Exception):
    """Base of all errors of the device farm."""


class InvalidGraph(FarmError):
    """The network description is wrong: unknown input, impossible shape, duplicate name."""


class UnsupportedOperator(FarmError):
    """The compiler has no kernel for an operator; the message names layer, operator and way out."""


class CompileError(FarmError):
    """TVM or the linker failed on a network that should compile."""


class TransportError(FarmError):
    """The way to a device failed."""


class DeviceGone(TransportError):
    """The device or its link vanished.

    `boot_id` is told where that cut off a program: the boot of the device (a new one after every restart) that it ran
    in. Whoever meets the device again can see from it whether it restarted.
    """

    boot_id: str = ""


class DeadlineExceeded(TransportError):
    """The total deadline of one call passed."""


class Refused(TransportError):
    """The device answered, and said no."""


class MeasurementError(FarmError):
    """The device ran, and its numbers cannot be believed."""


class WrongAnswer(MeasurementError):
    """The device's output differs from the host's reference."""


class Unstable(MeasurementError):
    """The samples vary more than the protocol allows."""


class Unfit(MeasurementError):
    """The device may not measure now: too hot, throttled, low battery, its sentinel off. Nothing was measured."""

    def __init__(self, message: str, *, retry_after_s: float = 30.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s  # when it is worth looking again

    def __reduce__(self) -> tuple[object, ...]:
        return _unfit, (str(self), self.retry_after_s)


def _unfit(message: str, retry_after_s: float) -> Unfit:
    """For pickle between our own actors, which calls constructors with positional arguments only."""
    return Unfit(message, retry_after_s=retry_after_s)


class RunnerFailed(MeasurementError):
    """The runner ended with an error, a signal or garbage."""


class CalibrationError(FarmError):
    """A calibration is damaged, stale, or of another device or search space."""


class JournalError(FarmError):
    """The broker's journal is damaged, held by another farm, or cannot be written; the message says what to do."""


class LeaseError(FarmError):
    """The fleet could not serve a request."""


class NoSuchDevice(LeaseError):
    """No device of the asked model is known."""


class Fenced(LeaseError):
    """A result came under a lease that has expired."""


class Poisoned(LeaseError):
    """The artifact failed on two different devices and is not tried on a third."""
