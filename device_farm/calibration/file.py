"""A calibration as a versioned JSON file: what was measured, where and with what, and what follows from it.

    schema, kind      1, "npas calibration"
    identity          compiler, target, device_model, protocol, space: what must be equal where it is used
    device, taken_at, conditions     for people
    stretch           |error| / std of networks left out of the fit: makes the predictor's interval honest
    points            the break-even map: a choice of a layer against what it must beat
    steps             key -> kind, kept_macs, calls, weight_bytes, image_bytes
    networks          label, latency_ms, relative_error, quiet, and [step, profiled ms] of every step

The predictor is fitted when the file is read, so that a better model needs no new measurement.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from device_farm.calibration.breakeven import Point, Verdict
from device_farm.calibration.predictor import Observation, Predictor, fit
from device_farm.calibration.steps import StepShape
from device_farm.errors import CalibrationError
from device_farm.files import write_atomically

SCHEMA = 1
KIND = "npas calibration"
MAX_BYTES = 256 * 1024**2


@dataclass(frozen=True)
class Identity:
    """What a calibration is of. It says nothing about anything else."""

    compiler: str  # device_farm.compiler.version.compiler_version()
    target: str
    device_model: str
    protocol: str  # Protocol.key
    space: Any  # plain data of whoever asks: the networks that were drawn from

    def differences(self, other: Identity) -> list[str]:
        """What differs, as "compiler: abc here, def there" with the other's second; the space is not compared."""
        pairs = ((name, getattr(self, name), getattr(other, name)) for name in ("compiler", "target", "device_model"))
        return [f"{name} {str(b)[:12]!r} instead of {str(a)[:12]!r}" for name, a, b in pairs if a != b]


@dataclass(frozen=True)
class Network:
    """One measured network; `label` is whatever names it where it comes from."""

    label: tuple[str, ...]
    observation: Observation


@dataclass(frozen=True)
class Calibration:
    """Everything that the file says."""

    identity: Identity
    networks: tuple[Network, ...]
    points: tuple[Point, ...] = ()
    stretch: tuple[float, ...] = ()
    taken_at: str = ""
    device: dict[str, Any] = field(default_factory=dict)
    conditions: dict[str, Any] = field(default_factory=dict)

    def predictor(self) -> Predictor:
        """Fitted to the networks: some 50 ms. Raises CalibrationError if there are too few."""
        return fit([network.observation for network in self.networks], stretch=self.stretch)


def write_calibration(path: Path, calibration: Calibration) -> None:
    """Replaces the file whole. Raises OSError."""
    shapes = {step.key: step for network in calibration.networks for step in network.observation.steps}
    data = {
        "schema": SCHEMA,
        "kind": KIND,
        "identity": asdict(calibration.identity),
        "taken_at": calibration.taken_at,
        "device": calibration.device,
        "conditions": calibration.conditions,
        "stretch": [round(value, 4) for value in calibration.stretch],
        "points": [asdict(point) for point in calibration.points],
        "steps": {
            key: [step.kind, step.kept_macs, step.calls, step.weight_bytes, step.image_bytes]
            for key, step in shapes.items()
        },
        "networks": [_network(network) for network in calibration.networks],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(data, allow_nan=False).encode() + b"\n", durable=True)


def _network(network: Network) -> dict[str, Any]:
    seen = network.observation
    return {
        "label": list(network.label),
        "latency_ms": seen.latency_ms,
        "relative_error": seen.relative_error,
        "quiet": seen.quiet,
        "steps": [[step.key, time_ms] for step, time_ms in zip(seen.steps, seen.steps_ms, strict=True)],
    }


def read_calibration(path: Path) -> Calibration:
    """The calibration in a file. Raises CalibrationError, one line: what is wrong, where, and what to do."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise CalibrationError(f"{path}: cannot be read: {error.strerror}; make it with `npas calibrate`") from error
    if len(content) > MAX_BYTES:
        raise CalibrationError(f"{path}: expected a calibration of at most {MAX_BYTES >> 20} MiB; got more")
    try:
        wire = _File.model_validate_json(content)
        return _calibration(wire)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        got = "" if first["type"] == "json_invalid" else f", got {str(first['input'])[:40]!r}"
        problem = f"{where}: {first['msg']}{got}"
    except _Inconsistent as error:
        problem = str(error)
    raise CalibrationError(
        f"{path}: not a calibration of schema {SCHEMA}: {problem}; make it anew with `npas calibrate`"
    )


class _Inconsistent(Exception):
    pass


def _calibration(wire: _File) -> Calibration:
    shapes = {key: StepShape(key, "", *shape) for key, shape in wire.steps.items()}
    networks = []
    for number, network in enumerate(wire.networks):
        missing = next((key for key, _ in network.steps if key not in shapes), None)
        if missing is not None:
            raise _Inconsistent(f"networks.{number}: step {missing[:40]!r} is not among the steps")
        observation = Observation(
            tuple(shapes[key] for key, _ in network.steps),
            tuple(time_ms for _, time_ms in network.steps),
            network.latency_ms,
            network.relative_error,
            network.quiet,
        )
        networks.append(Network(tuple(network.label), observation))
    return Calibration(
        identity=Identity(**wire.identity.model_dump()),
        networks=tuple(networks),
        points=tuple(Point(**{**point.model_dump(), "verdict": Verdict(point.verdict)}) for point in wire.points),
        stretch=tuple(wire.stretch),
        taken_at=wire.taken_at,
        device=wire.device,
        conditions=wire.conditions,
    )


_Time = Annotated[float, Field(gt=1e-9, lt=1e9)]
_Amount = Annotated[float, Field(ge=0, lt=1e9)]
_Count = Annotated[int, Field(ge=0, lt=2**53)]


class _Wire(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, strict=True)


class _IdentityWire(_Wire):
    compiler: str
    target: str
    device_model: str
    protocol: str
    space: Any


class _PointWire(_Wire):
    layer: str
    choice: str
    against: str
    time_ms: _Amount
    against_ms: _Amount
    difference_ms: Annotated[float, Field(gt=-1e9, lt=1e9)]
    std_ms: _Amount
    seen: _Count
    verdict: Literal["pays", "slower", "unclear"]


class _NetworkWire(_Wire):
    label: list[str]
    latency_ms: _Time
    relative_error: _Amount
    quiet: bool
    steps: Annotated[list[tuple[str, _Amount]], Field(min_length=1)]


class _File(_Wire):
    schema_version: Literal[1] = Field(alias="schema")
    kind: Literal["npas calibration"]
    identity: _IdentityWire
    taken_at: str
    device: dict[str, Any]
    conditions: dict[str, Any]
    stretch: list[_Amount]
    points: list[_PointWire]
    steps: dict[str, tuple[str, _Count, _Count, _Count, _Count]]
    networks: Annotated[list[_NetworkWire], Field(min_length=2)]


def slower(calibrations: Sequence[Calibration]) -> dict[tuple[str, str], Point]:
    """(layer, choice) of the points that are slower than what they must beat in every one of the calibrations."""
    maps = [{(p.layer, p.choice): p for p in c.points if p.verdict is Verdict.SLOWER} for c in calibrations]
    return {place: point for place, point in maps[0].items() if all(place in other for other in maps)} if maps else {}
