"""What was measured so far, each on disk before the next: an interrupted calibration measures nothing twice.

One JSON object a line. The first says what the journal is of; each other one is a measured network. A line counts once
it is whole: what kill -9 leaves of the last one is cut off by the next writer. One writer at a time, held by a lock.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from device_farm.calibration.file import Identity
from device_farm.errors import CalibrationError
from device_farm.measurement.types import Measurement

SCHEMA = 1
_SIDES = 3.92  # standard deviations between the ends of a 95 % interval


class Record(BaseModel):
    """One network's measurement, or why there is none."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)

    label: tuple[str, ...] = Field(strict=False)
    attempt: int = Field(ge=0)
    latency_ms: float | None = Field(default=None, gt=0)
    relative_error: float = Field(default=0.0, ge=0)
    quiet: bool = False
    steps_ms: tuple[tuple[str, float], ...] = Field(default=(), strict=False)  # (name, ms), as profiled
    taken_at: str = ""
    load_1min: float | None = None
    device: dict[str, Any] = Field(default_factory=dict)  # serial, processor, whether it is emulated
    failure: str | None = None

    @property
    def is_final(self) -> bool:
        """Whether another attempt could not make it better."""
        return self.quiet or self.failure is not None


def record_of(label: tuple[str, ...], measurement: Measurement, *, attempt: int) -> Record:
    return Record(
        label=label,
        attempt=attempt,
        latency_ms=measurement.latency_ms,
        relative_error=(measurement.ci_high_ms - measurement.ci_low_ms) / _SIDES / measurement.latency_ms,
        quiet=bool(measurement.conditions["quiet"]),
        steps_ms=measurement.steps_ms,
        taken_at=str(measurement.conditions.get("taken_at", "")),
        load_1min=(measurement.conditions.get("after") or {}).get("load_1min"),
        device={
            "serial": measurement.device.serial,
            "processor": measurement.device.details.get("processor"),
            "emulated": measurement.device.emulated,
        },
    )


@dataclass
class Journal:
    """An open journal; see `open_journal`."""

    file: BinaryIO
    records: dict[tuple[str, ...], Record]  # by label, the best one

    def write(self, record: Record) -> None:
        """On disk when it returns. Raises OSError."""
        self.file.write(record.model_dump_json().encode() + b"\n")
        self.file.flush()
        os.fsync(self.file.fileno())
        _keep(self.records, record)


@contextmanager
def open_journal(path: Path, identity: Identity) -> Iterator[Journal]:
    """The journal at `path`, continued if it is of this identity, begun anew if it is of another one or damaged.

    Raises CalibrationError if another process writes it, OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    header = json.dumps({"schema": SCHEMA, "journal": asdict(identity)}, sort_keys=True)
    with path.open("a+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CalibrationError(
                f"another calibration is writing {path}; wait for it or name another --out"
            ) from None
        file.seek(0)
        first, _, rest = file.read().partition(b"\n")
        records: dict[tuple[str, ...], Record] = {}
        end = 0
        if _same(first, header):
            end = len(first) + 1
            for line in rest.splitlines(keepends=True):
                record = _parsed(line)
                if record is None:
                    break
                _keep(records, record)
                end += len(line)
        file.truncate(end)
        journal = Journal(file, records)
        if not end:
            file.write(header.encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        yield journal


def _same(line: bytes, header: str) -> bool:
    try:
        found: Any = json.loads(line)
    except ValueError:
        return False
    return bool(found == json.loads(header))


def _parsed(line: bytes) -> Record | None:
    if not line.endswith(b"\n"):
        return None
    try:
        return Record.model_validate_json(line)
    except ValidationError:
        return None


def _keep(records: dict[tuple[str, ...], Record], record: Record) -> None:
    """Quiet is better than shared, and a shared measurement better than none; else the latest."""
    before = records.get(record.label)
    if before is not None and (before.quiet, before.latency_ms is not None) > (
        record.quiet, record.latency_ms is not None
    ):  # fmt: skip
        record = before.model_copy(update={"attempt": record.attempt})
    records[record.label] = record
