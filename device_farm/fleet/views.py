"""What the farm tells of itself."""

from __future__ import annotations

from dataclasses import dataclass

from device_farm.fleet.devices import DeviceSpec
from device_farm.fleet.words import DeviceState, DeviceStatus
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
    strikes: int = 0
    pid: int | None = None


def view(spec: DeviceSpec, status: DeviceStatus | None, facts: DeviceFacts | None, complaint: str | None) -> FarmDevice:
    """`complaint` says why its actor could not be connected; `status` is None until it was."""
    if status is None:
        return FarmDevice(spec.serial, DeviceState.GONE, facts, complaint or "its actor has not started")
    reason = complaint or status.reason
    return FarmDevice(
        spec.serial, status.state, facts, reason, status.job_key, status.completed, status.failed, status.strikes
    )
