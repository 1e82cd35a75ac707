"""Finalists are measured again, in other sessions and on other phones, until their interval is as narrow as was asked.

Pure: who measures, and which phones there are, is handed in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from device_farm.errors import FarmError, InvalidGraph, Poisoned, RunnerFailed, WrongAnswer
from device_farm.measurement.replicates import Action, Scope, plan_next, replicate
from device_farm.measurement.types import Measurement, ReplicatedLatency

# `session(replicate, avoid)` measures once more, on none of `avoid` if another phone can. Raises FarmError
Session = Callable[[int, Sequence[str]], Measurement]

_OF_THE_ARTIFACT = (InvalidGraph, WrongAnswer, RunnerFailed, Poisoned)


@dataclass(frozen=True)
class Effort:
    """How well a finalist's latency is to be known. Raises ValueError.

    Sessions end when the 95 % interval's half width, relative to the latency, is `half_width`; `least` are taken in any
    case and never more than `most` (1: the search's own session is believed).
    """

    half_width: float = 0.03
    most: int = 6
    least: int = 3

    def __post_init__(self) -> None:
        if not self.half_width > 0:
            raise ValueError(f"half_width must be above 0, got {self.half_width}")
        if self.most < 1 or self.least < 1:
            raise ValueError(f"most and least must be at least 1, got {self.most} and {self.least}")


@dataclass(frozen=True)
class Believed:
    """A finalist's latency on one model, all sessions that it comes from, and why there are no more."""

    latency: ReplicatedLatency
    sessions: tuple[Measurement, ...]
    ended: str


def believe(session: Session, *, phones: Callable[[], Sequence[str]], effort: Effort) -> Believed:
    """One latency of several sessions; `phones` are the serials of the model that could measure now.

    With two phones or more its interval is of the model's mean phone, else of the only phone. A session that fails for
    reasons of the farm ends it with what is known, if anything is.

    Raises FarmError: what the first session raises, and whatever a later one says against the artifact itself.
    """
    sessions = [session(0, ())]
    while True:
        ended, serial = _next(sessions, phones(), effort)
        if serial is None:
            break
        others = sorted({*phones(), *(m.device.serial for m in sessions)} - {serial})
        try:
            sessions.append(session(len(sessions), others))
        except _OF_THE_ARTIFACT:
            raise
        except FarmError as error:
            ended = f"session {len(sessions) + 1} failed: {type(error).__name__}: {error}"
            break
    return Believed(replicate(sessions, scope=_scope(sessions)), tuple(sessions), ended)


def _next(sessions: Sequence[Measurement], phones: Sequence[str], effort: Effort) -> tuple[str, str | None]:
    """Why it ends, or where the next session is to be."""
    known = [measurement.device.serial for measurement in sessions]
    spare = [serial for serial in phones if serial not in known]
    if len(sessions) >= effort.most:
        return f"{effort.most} sessions were allowed", None
    scope = Scope.MODEL if spare else _scope(sessions)
    plan = plan_next(sessions, asked=effort.half_width, spare=spare, scope=scope)
    if plan.serial is not None:
        return "", plan.serial
    if len(sessions) < effort.least:
        return "", spare[0] if spare else min(dict.fromkeys(known), key=known.count)
    return plan.reason if plan.action is Action.HOPELESS else "", None


def _scope(sessions: Sequence[Measurement]) -> Scope:
    return Scope.MODEL if len({measurement.device.serial for measurement in sessions}) > 1 else Scope.PHONES
