"""What the runner prints, validated. The format is described in docs/runner.md."""

from __future__ import annotations

from typing import Annotated, Literal, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from device_farm.errors import DeadlineExceeded, DeviceGone, FarmError, Refused, RunnerFailed
from device_farm.measurement.statistics import Session
from device_farm.transport.base import Completed

_EXIT_CODES = {
    2: "it does not understand its command line",
    3: "a file cannot be read or written",
    4: "the plan cannot be used",
    5: "a kernel reported an error",
    6: "the wall-clock limit has passed",
    7: "its stdin ended",
    8: "the device is out of memory",
    9: "a kernel crashed",
    10: "the processor lacks instructions that the artifact needs",
    11: "a core cannot be used",
}

Nanoseconds = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class Affinity(_Strict):
    asked: int | list[int] | None
    obtained: list[int]  # by all threads together


class Conditions(_Strict):
    cpu_khz: dict[str, int]
    thermal_millicelsius: list[tuple[str, int]]
    load_1min: float | None
    spin_ns: Nanoseconds


class Step(_Strict):
    name: str
    kind: str
    macs: float
    kept_macs: float
    median_ns: Count


class Profile(_Strict):
    passes: int
    steps: list[Step]


class BenchReport(_Strict):
    """One object of `artifact bench`."""

    schema_version: Literal[1] = Field(alias="schema")
    mode: Literal["bench"]
    key: str
    input_seed: Count
    denormals: Literal["flushed"]
    output: list[float | None]
    output_repeats: bool
    affinity: Affinity
    threads: list[list[int]] = Field(default_factory=list)  # the cores that each may use
    warmup_runs: Count
    samples_ns: list[Nanoseconds] = Field(min_length=1)
    windows: list[tuple[Count, Nanoseconds]] = Field(min_length=2)
    profile: Profile | None
    before: Conditions
    after: Conditions
    voluntary_switches: int
    involuntary_switches: int
    page_faults: int

    def session(self) -> Session:
        """The numbers for the statistics. Raises RunnerFailed if the windows do not divide the samples."""
        first, probe_ns = np.array(self.windows, dtype=np.int64).T  # [windows + 1] each
        if first[0] != 0 or first[-1] != len(self.samples_ns) or (np.diff(first) <= 0).any():
            raise RunnerFailed(f"the runner's windows do not divide its {len(self.samples_ns)} samples")
        return Session(
            samples_ns=np.array(self.samples_ns, dtype=np.float64),
            first=first,
            probe_ns=probe_ns.astype(np.float64),
            spin_ns=float(min(self.before.spin_ns, self.after.spin_ns)),
        )


class ClassifyReport(_Strict):
    """One object of `artifact classify`."""

    schema_version: Literal[1] = Field(alias="schema")
    mode: Literal["classify"]
    key: str
    images: Count


R = TypeVar("R", BenchReport, ClassifyReport)


def parse_report(kind: type[R], completed: Completed, *, key: str) -> R:
    """The report of a run that ended well.

    Raises RunnerFailed for any other exit status, for anything that is not such a report, and for the report of another
    artifact; DeadlineExceeded if the runner ended itself at its wall-clock limit; DeviceGone if it lost the link;
    Refused if the device does not let it have the cores that it was to use.
    """
    if completed.exit_status != 0:
        raise _failure(completed)
    try:
        report = kind.model_validate_json(completed.stdout)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        raise RunnerFailed(
            f"the runner's report cannot be read ({error.error_count()} errors), at {where}: {first['msg']};"
            f" it begins with {completed.stdout[:60]!r}"
        ) from error
    if report.key != key:
        raise RunnerFailed(f"another artifact ran: expected key {key!r}, got {report.key!r}")
    return report


def _failure(completed: Completed) -> FarmError:
    status = completed.exit_status
    said = completed.stderr.decode(errors="replace").strip().splitlines()
    message = said[-1][:500] if said else "it said nothing"
    if status == 6:
        return DeadlineExceeded(f"the runner ended itself: {message}")
    if status == 7:
        return DeviceGone(f"the runner ended itself: {message}")
    if status == 11:
        return Refused(f"{message} (choose another `cpu` for this device)")
    meaning = _EXIT_CODES.get(status) or (f"signal {status - 128}" if 128 < status < 160 else "unknown")
    return RunnerFailed(f"the runner ended with exit status {status} ({meaning}): {message}")
