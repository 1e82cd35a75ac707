"""What the farm tells Prometheus, through Ray's own metrics: docs/farm.md has the table.

Ray puts `ray_` before every name and `_total` behind counters, and serves them on every node's metrics port. That needs
Ray's agent, which comes with `ray[default]`: without it nothing is served, and nothing fails.
"""

from __future__ import annotations

import asyncio
from collections import Counter as Tally
from collections.abc import Mapping
from typing import Any

from ray.util.metrics import Counter, Gauge, Histogram

from device_farm.fleet.clients import Clients
from device_farm.fleet.entries import Entry, Kind
from device_farm.fleet.pool import Pool
from device_farm.measurement.types import DeviceFacts

EVERY_S = 2.0
_Tags = tuple[tuple[str, str], ...]
_SECONDS = [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0]
# What happens to devices, as far as it is counted by kind.
_EVENTS = {
    Kind.JOINED,
    Kind.LEFT,
    Kind.COOLED,
    Kind.STUCK,
    Kind.QUARANTINED,
    Kind.PROBATION,
    Kind.RETURNED,
    Kind.RELEASED,
}


class Metrics:
    """Counters follow the journal's entries, gauges the pools as they are every `EVERY_S` seconds."""

    def __init__(self, farm: str) -> None:
        self._farm = farm
        self._queue = _gauge("queue_jobs", "Jobs that wait for a worker.", "stage", "model")
        self._leases = _gauge("leases", "Jobs that a worker has.", "stage")
        self._devices = _gauge("devices", "Devices by state.", "model", "state")
        self._utilisation = _gauge("utilisation", "Measuring devices / those that measure or could.", "model")
        self._clients = _gauge("clients", "Client processes that live.")
        self._temperature = _gauge("temperature_celsius", "After the last measurement.", "serial", "zone")
        self._drift = _gauge("sentinel_drift", "Sentinel's reading / baseline - 1, of the last.", "serial")
        self._baseline = _gauge("sentinel_baseline_ms", "What the sentinel takes at the device's best.", "serial")
        self._busy = _counter("busy_seconds", "Time that a device measured.", "serial")
        self._measured = _counter("measurements", "Measurements that are in the journal.", "model")
        self._failed = _counter("failed_jobs", "Jobs that failed for good.", "error")
        self._faults = _counter("faults", "Leases that ended badly: retries, by reason.", "error", "blame")
        self._events = _counter("device_events", "What happened to devices.", "serial", "kind")
        self._seconds = Histogram(
            "npas_farm_measurement_seconds",
            description="Wall time of a measurement: transfer, sentinel, run.",
            boundaries=_SECONDS,
            tag_keys=("farm", "model"),
        )
        self._shown: dict[str, set[_Tags]] = {}

    def heard(self, entry: Entry) -> None:
        """An entry of the journal."""
        match entry.kind:
            case Kind.MEASURED:
                self._count(self._measured, model=entry.data["device"]["model"])
                self._conditions(entry.serial, entry.data["conditions"])
            case Kind.FAILED:
                self._count(self._failed, error=entry.data["error"])
            case Kind.BASELINE:
                self._show(self._baseline, entry.data["baseline_ms"], serial=entry.serial)
            case Kind.STRUCK | Kind.UNFIT | Kind.ACCUSED if "fault" in entry.data:
                fault = entry.data["fault"]
                self._count(self._faults, error=fault["error"], blame=str(fault["blame"]))
            case kind if kind in _EVENTS:
                self._count(self._events, serial=entry.serial, kind=str(kind))

    def measured(self, facts: DeviceFacts, seconds: float) -> None:
        """A device was busy with one job for so long, however it ended."""
        self._busy.inc(max(seconds, 1e-6), tags={"farm": self._farm, "serial": facts.serial})
        self._seconds.observe(max(seconds, 1e-6), tags={"farm": self._farm, "model": facts.model})

    async def keep(self, compilers: Pool[Any, Any], devices: Pool[Any, Any], clients: Clients) -> None:
        """Endless: the gauges."""
        while True:
            self.look(compilers, devices, clients)
            await asyncio.sleep(EVERY_S)

    def look(self, compilers: Pool[Any, Any], devices: Pool[Any, Any], clients: Clients) -> None:
        """Everything as it is now."""
        for stage, pool in (("compile", compilers), ("measure", devices)):
            loads = pool.fleet.load()
            waiting = {_tags(model=model, stage=stage): load.waiting for model, load in loads.items()}
            self._show_all(self._queue, waiting, key=stage)
            self._show(self._leases, sum(load.leased for load in loads.values()), stage=stage)
        statuses = devices.fleet.devices()
        states = Tally(_tags(model=s.model, state=str(s.state)) for s in statuses)
        self._show_all(self._devices, states, key="devices")
        shares = {
            _tags(model=model): load.leased / (load.idle + load.leased)
            for model, load in devices.fleet.load().items()
            if load.idle + load.leased
        }
        self._show_all(self._utilisation, shares, key="utilisation")
        self._show(self._clients, len(clients))

    def _conditions(self, serial: str, conditions: Mapping[str, Any]) -> None:
        sentinel = conditions.get("sentinel") or {}
        if isinstance(drift := sentinel.get("drift"), int | float):
            self._show(self._drift, drift - 1, serial=serial)
        after = conditions.get("device_after") or {}
        for zone, celsius in (after.get("temperature_c") or {}).items():
            self._show(self._temperature, celsius, serial=serial, zone=str(zone))

    def _count(self, counter: Counter, **tags: str) -> None:
        counter.inc(tags={"farm": self._farm, **tags})

    def _show(self, gauge: Gauge, value: float, **tags: str) -> None:
        gauge.set(value, tags={"farm": self._farm, **tags})

    def _show_all(self, gauge: Gauge, values: Mapping[_Tags, float], *, key: str) -> None:
        """All values of a gauge: what is not among them any more is 0."""
        before = self._shown.get(key, set())
        for tags in before | values.keys():
            self._show(gauge, values.get(tags, 0), **dict(tags))
        self._shown[key] = before | set(values)


def _tags(**tags: str) -> _Tags:
    return tuple(tags.items())


def _gauge(name: str, description: str, *tags: str) -> Gauge:
    return Gauge(f"npas_farm_{name}", description=description, tag_keys=("farm", *tags))


def _counter(name: str, description: str, *tags: str) -> Counter:
    return Counter(f"npas_farm_{name}", description=description, tag_keys=("farm", *tags))
