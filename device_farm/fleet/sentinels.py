"""The sentinels of a farm: compiled once for each target, with what every device takes for them at its best.

What is remembered is in the journal, by serial: a device that was measured before the broker died, or a year ago, is
compared with the same baseline. See device_farm.measurement.sentinel for what a device does with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import ray

from device_farm.fleet.config import imported
from device_farm.fleet.entries import Entry, Kind
from device_farm.measurement.drift import Baseline, baseline_of_model
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
    spin_ns: float | None = None  # the core's clock beside that baseline

    @property
    def baseline(self) -> Baseline | None:
        """What the device takes for it at its best, if that is known."""
        return None if self.baseline_ms is None else Baseline(self.artifact.key, self.baseline_ms, self.spin_ns)

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
    spin_ns: float | None = None  # journals from before it was kept do not have it


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
        model_ms = self._model_ms(facts.model, key)
        if known is None or known.artifact_key != key:
            return SentinelOrder(compiled.artifact, compiled.program, None, model_ms)
        return SentinelOrder(compiled.artifact, compiled.program, known.baseline_ms, model_ms, known.spin_ns)

    def lost(self, facts: DeviceFacts) -> None:
        """The executable was lost with the node that had it: it is compiled again when it is next asked for."""
        self._compiled.pop((facts.target, facts.threads), None)

    def observed(self, facts: DeviceFacts, baseline: Baseline) -> None:
        """What a device's meter takes for its baseline now."""
        known = _Known(baseline.artifact_key, facts.model, baseline.baseline_ms, baseline.spin_ns)
        if self._known.get(facts.serial) != known:
            self._known[facts.serial] = known
            self._tell(Entry(Kind.BASELINE, serial=facts.serial, data=asdict(known)))

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
