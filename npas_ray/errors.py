"""Everything that npas_ray raises on purpose, and the exit code that the `npas` command gives it.

NpasError
 +- UserError              exit 2   the input is wrong; nothing was changed
 |   +- ConfigError        a configuration file or --set
 |   +- SpaceError         an architecture or a search space
 |   +- CalibrationUnusable   a calibration file: damaged, stale, of another device or space
 |   `- RunError           a run directory: missing, unwritable, in use, of another configuration
 +- InvalidObservation     exit 1   a result that no policy can learn from: NaN, out of range, incomplete
 +- NoFeasibleCandidate    exit 3   the search ended well and found nothing within the budgets
 `- InfrastructureError    exit 4   Ray, a device, the disk; try again with --resume
     `- JournalError       the journal cannot be read or written
         `- DamagedJournal  what it holds is not what a search writes: resuming does not help

Ctrl-C is exit 130.
"""

from __future__ import annotations


class NpasError(Exception):
    """Base of all errors of npas_ray."""

    exit_code = 1


class UserError(NpasError):
    """The input is wrong; nothing was changed."""

    exit_code = 2


class ConfigError(UserError):
    """A configuration file or an override is wrong."""


class SpaceError(UserError):
    """An architecture or a search space is wrong."""


class CalibrationUnusable(UserError):
    """A calibration file is damaged, stale, or of another device or space."""


class RunError(UserError):
    """A run directory cannot be used."""


class InvalidObservation(NpasError, ValueError):
    """A result that no policy can learn from: NaN, out of range, incomplete, of another space."""


class NoFeasibleCandidate(NpasError):
    """The search ended well and found nothing within the budgets."""

    exit_code = 3


class InfrastructureError(NpasError):
    """Ray, a device or the disk failed; what was acknowledged is kept."""

    exit_code = 4


class JournalError(InfrastructureError):
    """The journal cannot be read or written."""


class DamagedJournal(JournalError):
    """What the journal holds is not what a search writes, so nothing can be resumed from it."""
