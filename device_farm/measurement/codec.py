"""A Measurement as JSON, and back with every field checked."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from device_farm.measurement.types import DeviceFacts, Measurement

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
    try:
        wire = _MeasurementWire.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        raise ValueError(f"not a measurement: {where}: {first['msg']}, got {str(first['input'])[:80]!r}") from error
    if not wire.ci_low_ms <= wire.latency_ms <= wire.ci_high_ms:
        raise ValueError(
            f"not a measurement: latency_ms {wire.latency_ms} lies outside its interval"
            f" [{wire.ci_low_ms}, {wire.ci_high_ms}]"
        )
    fields = wire.model_dump(exclude={"schema_version", "device", "steps_ms"})
    return Measurement(device=DeviceFacts(**wire.device.model_dump()), steps_ms=tuple(wire.steps_ms), **fields)
