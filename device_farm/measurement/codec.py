"""Measurements, conditions and replicated latencies as JSON, and back with every field checked."""

from __future__ import annotations

import dataclasses
import math
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from device_farm.measurement.drift import Baseline
from device_farm.measurement.types import DeviceConditions, DeviceFacts, LeftOut, Measurement, ReplicatedLatency

SCHEMA = 1

_Milliseconds = Annotated[float, Field(gt=0)]


class _Wire(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class _DeviceWire(_Wire):
    serial: str
    model: str
    target: str
    emulated: bool
    cpu: int | None
    threads: Annotated[int, Field(ge=1)] = 1  # journals from before there were threads do not have it
    cpus: tuple[int, ...] = ()
    details: dict[str, Any]


class _ConditionsWire(_Wire):
    cpu_khz: dict[int, Annotated[int, Field(ge=0)]] = {}
    temperature_c: dict[str, float] = {}
    thermal_status: int | None = None
    battery_level: float | None = None
    battery_temperature_c: float | None = None
    charging: bool | None = None
    screen_on: bool | None = None
    load_1min: float | None = None


class _SentinelWire(_Wire):
    key: str
    baseline_ms: _Milliseconds
    readings_ms: Annotated[list[_Milliseconds], Field(min_length=1)]
    drift: Annotated[float, Field(gt=0)]  # reading / baseline
    corrected: bool
    uncorrected_ms: _Milliseconds
    of_model: Annotated[float, Field(gt=0)] | None  # baseline / that of the model's median phone


class _KnownConditions(BaseModel):
    """What a measurement's conditions hold beside the runner's own, in journals since there are phones."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    device_before: _ConditionsWire | None = None
    device_after: _ConditionsWire | None = None
    sentinel: _SentinelWire | None = None


class _BaselineWire(_Wire):
    artifact_key: str
    baseline_ms: _Milliseconds
    spin_ns: Annotated[float, Field(gt=0)] | None = None


class _LeftOutWire(_Wire):
    serial: str
    latency_ms: _Milliseconds
    reason: str


class _ReplicatedWire(_Wire):
    schema_version: Literal[1] = Field(alias="schema")
    artifact_key: str
    model: str
    protocol_key: str
    latency_ms: _Milliseconds
    ci_low_ms: float  # below 0 where phones contradict each other that much
    ci_high_ms: _Milliseconds
    scope: Literal["model", "phones"]
    phones: Annotated[int, Field(ge=1)]
    sessions: Annotated[int, Field(ge=1)]
    between_sessions: Annotated[float, Field(ge=0)]
    between_phones: Annotated[float, Field(ge=0)]
    assumed: list[Literal["between_sessions", "between_phones"]]
    left_out: list[_LeftOutWire]


class _MeasurementWire(_Wire):
    schema_version: Literal[1] = Field(alias="schema")
    artifact_key: str
    device: _DeviceWire
    protocol_key: str
    latency_ms: _Milliseconds
    ci_low_ms: _Milliseconds
    ci_high_ms: _Milliseconds
    samples: Annotated[int, Field(gt=0)]
    percentiles_ms: dict[str, _Milliseconds]
    max_relative_error: Annotated[float, Field(ge=0)]
    steps_ms: list[tuple[str, Annotated[float, Field(ge=0)]]]
    conditions: dict[str, Any]


def measurement_to_json(measurement: Measurement) -> dict[str, Any]:
    """Plain dicts, lists, strings and numbers; `measurement_from_json` gives an equal measurement back."""
    fields = dataclasses.asdict(measurement)
    return {"schema": SCHEMA} | fields | {"steps_ms": [list(step) for step in measurement.steps_ms]}


def measurement_from_json(data: Any) -> Measurement:
    """Inverse of `measurement_to_json`. Raises ValueError on anything that it would not have written."""
    wire = _validated(_MeasurementWire, data, "a measurement")
    _validated(_KnownConditions, wire.conditions, "a measurement: conditions")
    if not wire.ci_low_ms <= wire.latency_ms <= wire.ci_high_ms:
        raise ValueError(
            f"not a measurement: latency_ms {wire.latency_ms} lies outside its interval"
            f" [{wire.ci_low_ms}, {wire.ci_high_ms}]"
        )
    fields = wire.model_dump(exclude={"schema_version", "device", "steps_ms"})
    return Measurement(device=DeviceFacts(**wire.device.model_dump()), steps_ms=tuple(wire.steps_ms), **fields)


def conditions_to_json(conditions: DeviceConditions) -> dict[str, Any]:
    """Only what the device told and JSON can hold; `conditions_from_json` gives equal conditions back."""
    fields = vars(conditions) | {
        "cpu_khz": {str(cpu): khz for cpu, khz in conditions.cpu_khz.items()},
        "temperature_c": {zone: c for zone, c in conditions.temperature_c.items() if math.isfinite(c)},
    }
    return {name: value for name, value in fields.items() if value not in (None, {}) and math.isfinite(_scalar(value))}


def _scalar(value: Any) -> float:
    return value if isinstance(value, int | float) else 0.0


def conditions_from_json(data: Any) -> DeviceConditions:
    """Inverse of `conditions_to_json`. Raises ValueError on anything that it would not have written."""
    return DeviceConditions(**_validated(_ConditionsWire, data, "conditions of a device").model_dump())


def replicated_to_json(latency: ReplicatedLatency) -> dict[str, Any]:
    """`replicated_from_json` gives an equal latency back."""
    fields = dataclasses.asdict(latency)
    return {"schema": SCHEMA} | fields | {"assumed": list(latency.assumed), "left_out": list(fields["left_out"])}


def replicated_from_json(data: Any) -> ReplicatedLatency:
    """Inverse of `replicated_to_json`. Raises ValueError on anything that it would not have written."""
    wire = _validated(_ReplicatedWire, data, "a replicated latency")
    if not wire.ci_low_ms <= wire.latency_ms <= wire.ci_high_ms:
        raise ValueError(
            f"not a replicated latency: latency_ms {wire.latency_ms} lies outside its interval"
            f" [{wire.ci_low_ms}, {wire.ci_high_ms}]"
        )
    fields = wire.model_dump(exclude={"schema_version", "assumed", "left_out"})
    left_out = tuple(LeftOut(**left.model_dump()) for left in wire.left_out)
    return ReplicatedLatency(**fields, assumed=tuple(wire.assumed), left_out=left_out)


def baseline_to_json(baseline: Baseline) -> dict[str, Any]:
    """What a farm remembers of a meter's `baseline`; readings that contradict it are not kept."""
    return {"artifact_key": baseline.artifact_key, "baseline_ms": baseline.baseline_ms, "spin_ns": baseline.spin_ns}


def baseline_from_json(data: Any) -> Baseline:
    """Inverse of `baseline_to_json`. Raises ValueError on anything that it would not have written."""
    return Baseline(**_validated(_BaselineWire, data, "a sentinel's baseline").model_dump())


W = TypeVar("W", bound=BaseModel)


def _validated(wire: type[W], data: Any, what: str) -> W:
    try:
        return wire.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        raise ValueError(f"not {what}: {where}: {first['msg']}, got {str(first['input'])[:80]!r}") from error
