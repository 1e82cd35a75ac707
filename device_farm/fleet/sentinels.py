"""The sentinels of a farm: compiled once for each target, with what every device takes for them at its best.

What is remembered is in the journal, by serial: a device that was measured before the broker died, or a year ago, is
compared with the same baseline. See device_farm.measurement.sentinel for what a device does with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ray

from device_farm.fleet.config import imported
from device_farm.fleet.entries import Entry, Kind
from device_farm.measurement.drift import baseline_of_model
from device_farm.measurement.types import DeviceFacts

if TYPE_CHECKING:
    from device_farm.compiler.artifact import Artifact
    from device_farm.compiler.graph import Graph
    from device_farm.fleet.ray_workers import Compiled

# A model's median that moved by less is the same one: a meter is not made anew for it.
_SAME_MEDIAN = 0.01


@dataclass(frozen=True)
class SentinelOrder:
    """The sentinel of one device. The executable's bytes are in the object store."""

    artifact: Artifact
    program: ray.ObjectRef[bytes]
    baseline_ms: float | None
    model_ms: float | None

    def is_like(self, other: SentinelOrder | None) -> bool:
        """A meter made for the other one does for this one, too."""
        if other is None or self.artifact.key != other.artifact.key:
            return False
        if self.model_ms is None or other.model_ms is None:
            return self.model_ms is other.model_ms
        return abs(self.model_ms / other.model_ms - 1) < _SAME_MEDIAN


@dataclass(frozen=True)
class _Known:
    """A device's baseline."""

    artifact_key: str
    model: str
    baseline_ms: float


class Sentinels:
    """All methods belong to the broker's event loop. `compile_for` compiles a graph for a device's facts.

    `graph` is "module:name" of what makes the network; None: devices are measured without one.
    """

    def __init__(
        self,
        graph: str | None,
        *,
        compile_for: Callable[[Graph, DeviceFacts], Awaitable[Compiled]],
        baselines: Mapping[str, Mapping[str, Any]],
        tell: Callable[[Entry], None],
    ) -> None:
        self._graph = graph
        self._compile_for = compile_for
        self._tell = tell
        self._known = {serial: _Known(**data) for serial, data in baselines.items()}
        self._compiled: dict[tuple[str, int], asyncio.Task[Compiled]] = {}

    async def order(self, facts: DeviceFacts) -> SentinelOrder | None:
        """What the device is to be compared with. Raises FarmError if it does not compile."""
        if self._graph is None:
            return None
        compiled = await asyncio.shield(self._compile(facts))
        key = compiled.artifact.key
        known = self._known.get(facts.serial)
        baseline_ms = known.baseline_ms if known is not None and known.artifact_key == key else None
        return SentinelOrder(compiled.artifact, compiled.program, baseline_ms, self._model_ms(facts.model, key))

    def lost(self, facts: DeviceFacts) -> None:
        """The executable was lost with the node that had it: it is compiled again when it is next asked for."""
        self._compiled.pop((facts.target, facts.threads), None)

    def observed(self, facts: DeviceFacts, *, artifact_key: str, baseline_ms: float) -> None:
        """What a device's meter takes for its baseline now."""
        known = _Known(artifact_key, facts.model, baseline_ms)
        if self._known.get(facts.serial) != known:
            self._known[facts.serial] = known
            data = {"artifact_key": artifact_key, "model": facts.model, "baseline_ms": baseline_ms}
            self._tell(Entry(Kind.BASELINE, serial=facts.serial, data=data))

    def _compile(self, facts: DeviceFacts) -> asyncio.Task[Compiled]:
        key = (facts.target, facts.threads)
        task = self._compiled.get(key)
        if task is None or (task.done() and (task.cancelled() or task.exception() is not None)):
            task = self._compiled[key] = asyncio.ensure_future(self._make(facts))
        return task

    async def _make(self, facts: DeviceFacts) -> Compiled:
        assert self._graph is not None
        return await self._compile_for(imported(self._graph)(), facts)

    def _model_ms(self, model: str, artifact_key: str) -> float | None:
        known = {
            serial: device.baseline_ms
            for serial, device in self._known.items()
            if device.model == model and device.artifact_key == artifact_key
        }
        found = baseline_of_model(known)
        return None if found is None else found.baseline_ms
