"""What the journal holds: facts, one after the other, and what a new life of the broker makes of them. Plain data."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from device_farm.fleet.words import Blame, Done, Failed, Failure, Fault, Outcome
from device_farm.measurement.codec import measurement_from_json, measurement_to_json
from device_farm.measurement.types import Measurement

# More than a broker can give away in one life. Every life takes as many, so that no fence is given twice.
_FENCES_A_LIFE = 10**9


class Kind(StrEnum):
    """What a row of the journal is."""

    LIFE = "life"  # a broker of the farm `key` opened the journal; its fences begin at `first_fence`
    MEASURED = "measured"  # a job's answer: a Measurement
    FAILED = "failed"  # a job's answer: a final failure with its evidence
    ACCUSED = "accused"  # one failure on a device that speaks against the artifact `key`
    ATTACHED = "attached"  # a device was attached by hand
    DETACHED = "detached"
    JOINED = "joined"
    LEFT = "left"
    STRUCK = "struck"  # one failure that speaks against the device
    COOLED = "cooled"
    UNFIT = "unfit"
    RESTARTED = "restarted"  # it came back with another boot, and what follows from that
    STUCK = "stuck"  # in a state that should not last so long
    QUARANTINED = "quarantined"  # this and the next three tell the device's health as it is then
    PROBATION = "probation"
    RETURNED = "returned"
    RELEASED = "released"
    SHARE = "share"  # of a client, `key`
    BASELINE = "baseline"  # what the sentinel takes on a device when all is well


# What a later life does not have to read.
RESTORED = set(Kind) - {
    *(Kind.MEASURED, Kind.FAILED, Kind.JOINED, Kind.LEFT),
    *(Kind.STRUCK, Kind.COOLED, Kind.UNFIT, Kind.STUCK, Kind.RESTARTED),
}


@dataclass(frozen=True)
class Entry:
    """One fact. `data` is plain JSON."""

    kind: Kind
    key: str = ""
    serial: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)
    at_s: float = field(default_factory=time.time)  # since the epoch

    @classmethod
    def answer(cls, key: str, outcome: Outcome[Measurement]) -> Entry:
        """The last word on a job: a measurement, or a failure that is final."""
        if isinstance(outcome, Done):
            measurement = outcome.result
            return cls(Kind.MEASURED, key, measurement.device.serial, measurement_to_json(measurement))
        evidence = [_to_json(failure) for failure in outcome.evidence]
        return cls(Kind.FAILED, key, data={"error": outcome.error, "message": outcome.message, "evidence": evidence})

    @classmethod
    def failure(cls, kind: Kind, artifact_key: str, failure: Failure) -> Entry:
        """One lease that ended badly; the failure's time is since the epoch."""
        data = {"reason": f"{failure.fault.error}: {failure.fault.message}", **_to_json(failure)}
        return cls(kind, artifact_key, failure.serial, data, failure.at_s)


@dataclass
class Restored:
    """What a new life of the broker begins with."""

    first_fence: int = 1
    evidence: dict[str, list[Failure]] = field(default_factory=dict)  # by artifact, of its own failures
    health: dict[str, tuple[float, Mapping[str, Any]]] = field(default_factory=dict)  # by serial: since when, what
    # by serial, of the farm that wrote last: what was attached by hand; None: detached by hand
    attached: dict[str, Mapping[str, Any] | None] = field(default_factory=dict)
    baselines: dict[str, Mapping[str, Any]] = field(default_factory=dict)  # by serial
    shares: dict[str, float] = field(default_factory=dict)  # by client
    farm_id: str = ""

    def add(self, entry: Entry) -> None:
        """Takes in one entry, the next one of the journal."""
        match entry.kind:
            case Kind.LIFE:
                self.first_fence = entry.data["first_fence"] + _FENCES_A_LIFE
                self.begin(entry.key)
            case Kind.ACCUSED:
                self.evidence.setdefault(entry.key, []).append(_from_json(entry.data))
            case Kind.QUARANTINED | Kind.PROBATION | Kind.RETURNED | Kind.RELEASED:
                self.health[entry.serial] = (entry.at_s, entry.data["health"])
            case Kind.ATTACHED:
                self.attached[entry.serial] = entry.data
            case Kind.DETACHED:
                self.attached[entry.serial] = None
            case Kind.SHARE:
                self.shares[entry.key] = float(entry.data["share"])
            case Kind.BASELINE:
                self.baselines[entry.serial] = entry.data

    def begin(self, farm_id: str) -> None:
        """A broker of this farm begins. What was attached to another one is not this one's."""
        if farm_id != self.farm_id:
            self.farm_id = farm_id
            self.attached.clear()


def outcome_of(kind: str, data: Any) -> Outcome[Measurement]:
    """The answer that an entry is. Raises ValueError, KeyError, TypeError for what is none."""
    if kind == Kind.MEASURED:
        return Done(measurement_from_json(data))
    evidence = tuple(_from_json(failure) for failure in data["evidence"])
    return Failed(data["error"], data["message"], evidence, final=True)


def _to_json(failure: Failure) -> dict[str, Any]:
    return asdict(failure)


def _from_json(data: Mapping[str, Any]) -> Failure:
    fault = dict(data["fault"])
    return Failure(data["serial"], data["fence"], data["at_s"], Fault(Blame(fault.pop("blame")), **fault))
