"""What the farm tells of itself."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from device_farm.fleet.devices import DeviceSpec
from device_farm.fleet.words import DeviceState, DeviceStatus, Load
from device_farm.measurement.types import DeviceFacts


@dataclass(frozen=True)
class FarmDevice:
    """A device of the farm as it is now. `facts` are None until it was reached for the first time."""

    serial: str
    state: DeviceState
    facts: DeviceFacts | None
    reason: str  # why it is not healthy, or was not lately
    job_key: str | None = None
    completed: int = 0
    failed: int = 0
    strikes: int = 0  # in a row
    unfit: int = 0  # times in a row that it said so
    quarantines: int = 0  # in close succession
    ends_in_s: float | None = None  # when its state ends by itself
    pinned_to: str = ""  # the resource or the node that it belongs to


@dataclass(frozen=True)
class FarmStatus:
    """What goes on in the farm as a whole."""

    node: str  # the address of the node that its broker is on
    pid: int
    clients: int  # living processes that have asked for something
    load: Mapping[str, Load]  # by model
    compiling: int  # networks that wait for a compiler, or have one
    journal: str  # the file, on that node
    answers: int  # measurements and final failures in it
    complaints: Mapping[str, str]  # by host, why its devices cannot be told; "journal": what is wrong with that


def view(
    spec: DeviceSpec, status: DeviceStatus | None, facts: DeviceFacts | None, *, complaint: str | None, now: float
) -> FarmDevice:
    """`complaint` says why its actor could not be connected; `now` is on the fleet's clock."""
    pinned_to = spec.resource or spec.node_id or ""
    if status is None:
        reason = complaint or "its actor has not started"
        return FarmDevice(spec.serial, DeviceState.GONE, facts, reason, pinned_to=pinned_to)
    return FarmDevice(
        serial=spec.serial,
        state=status.state,
        facts=facts,
        reason=complaint or status.reason,
        job_key=status.job_key,
        completed=status.completed,
        failed=status.failed,
        strikes=status.strikes,
        unfit=status.unfit,
        quarantines=status.quarantines,
        ends_in_s=None if status.until_s == math.inf else max(0.0, status.until_s - now),
        pinned_to=pinned_to,
    )
