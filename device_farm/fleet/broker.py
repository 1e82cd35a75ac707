"""The broker: one named, detached, asynchronous Ray actor that compiles what is asked for and hands it to devices.

What it must not forget is in its journal. When its process dies Ray starts it anew from its configuration, its actors
die with it, and clients' pending calls are made again by Ray: they are idempotent by key, so what is in the journal is
answered from it, and the rest is queued again.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import ray

from device_farm.fleet.asking import Asking, Leave, Request
from device_farm.fleet.clients import Clients
from device_farm.fleet.compiling import Compiling
from device_farm.fleet.config import FarmConfig
from device_farm.fleet.devices import DeviceSpec, file_name
from device_farm.fleet.entries import Entry, Kind
from device_farm.fleet.hosts import Hosts
from device_farm.fleet.journal import JOURNAL_NAME, Journal, sweep
from device_farm.fleet.membership import Membership
from device_farm.fleet.metrics import Metrics
from device_farm.fleet.recorder import Recorder
from device_farm.fleet.remembering import RememberingFleet
from device_farm.fleet.sentinels import Sentinels
from device_farm.fleet.staffing import DevicePool, compiler_serials, compilers_of, device_policy
from device_farm.fleet.views import FarmDevice, FarmStatus, view
from device_farm.fleet.words import Outcome
from device_farm.measurement.types import Measurement

_log = logging.getLogger(__name__)

# For calls that were let go to answer before the process is killed: Ray warns of those that were not.
_LAST_WORDS_S = 0.05


@dataclass(frozen=True)
class _Parts:
    """What a broker is made of once it runs in its event loop."""

    journal: Journal
    recorder: Recorder
    clients: Clients
    asking: Asking
    membership: Membership
    devices: DevicePool
    hosts: Hosts


class Broker:
    """Made a Ray actor by Farm.start. `farm_id` is the same for all its lives, and for no other farm.

    Nothing here blocks the event loop, but for the restoring from the journal when a life begins. Every method raises
    JournalError if the journal cannot be used.
    """

    def __init__(self, config: FarmConfig, farm_id: str) -> None:
        self._config = config
        self._farm_id = farm_id
        self._parts: _Parts | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._lost = ""  # what is missing in the journal

    async def measure(self, request: Request) -> Outcome[Measurement]:
        """The outcome of a request. The same artifact, model and protocol are measured once."""
        return await self._start().asking.measure(request)

    async def hold(self, token: str) -> None:
        """Returns when the process of this token has died: its pending call shows that it lives."""
        await self._start().clients.hold(token)

    async def devices(self) -> list[FarmDevice]:
        """All devices that are attached, in the order in which they were."""
        parts = self._start()
        known = {status.serial: status for status in parts.devices.fleet.devices()}
        complaints = parts.devices.complaints
        facts = parts.membership.facts
        now = asyncio.get_running_loop().time()
        return [
            view(spec, known.get(serial), facts.get(serial), complaint=complaints.get(serial), now=now)
            for serial, spec in parts.membership.specs.items()
        ]

    async def attach(self, spec: DeviceSpec) -> None:
        parts = self._start()
        await parts.membership.attach(spec)
        await parts.recorder.written()

    async def detach(self, serial: str) -> None:
        """Raises NoSuchDevice."""
        parts = self._start()
        await parts.membership.detach(serial)
        await parts.recorder.written()

    async def quarantine(self, serial: str, reason: str) -> None:
        """Raises NoSuchDevice."""
        parts = self._start()
        parts.membership.check(serial)
        parts.devices.quarantine(serial, reason=reason)
        await parts.recorder.written()

    async def release(self, serial: str) -> None:
        """Raises NoSuchDevice."""
        parts = self._start()
        parts.membership.check(serial)
        parts.devices.release(serial)
        await parts.recorder.written()

    async def calibrate(self, serial: str) -> float:
        """Raises FarmError."""
        parts = self._start()
        parts.membership.check(serial)
        baseline_ms = await parts.devices.calibrate(serial)
        await parts.recorder.written()
        return baseline_ms

    async def set_share(self, client: str, share: float) -> None:
        """Raises ValueError."""
        parts = self._start()
        _set_share(parts.asking, client, share)
        parts.recorder.note(Entry(Kind.SHARE, client, data={"share": share}))
        await parts.recorder.written()

    async def history(self, serial: str, limit: int) -> list[Entry]:
        """What the journal has of a device, the oldest first."""
        parts = self._start()
        await parts.recorder.written()
        return parts.journal.history(serial, limit=limit)

    async def ready(self, timeout_s: float) -> list[str]:
        """Waits until every configured device and compiler has joined; what is missing after the timeout, and why."""
        parts = self._start()
        compilers, devices = parts.asking.compiling.pool, parts.devices
        expected = [*compiler_serials(self._config), *(spec.serial for spec in self._config.devices)]
        until_s = time.monotonic() + timeout_s
        while True:
            present = {
                status.serial
                for status in [*compilers.fleet.devices(), *devices.fleet.devices()]
                if status.state.is_present
            }
            missing = [serial for serial in expected if serial not in present]
            if not missing or time.monotonic() >= until_s:
                complaints = compilers.complaints | devices.complaints
                return [f"{serial}: {complaints.get(serial, 'its actor has not started')}" for serial in missing]
            await asyncio.sleep(0.02)

    async def config(self) -> FarmConfig:
        return self._config

    async def status(self) -> FarmStatus:
        parts = self._start()
        compiling = parts.asking.compiling.pool.fleet.load().values()
        return FarmStatus(
            node=cast(Any, ray).util.get_node_ip_address(),
            pid=os.getpid(),
            clients=len(parts.clients),
            load=parts.devices.fleet.load(),
            compiling=sum(load.waiting + load.leased for load in compiling),
            journal=str(parts.journal.path),
            answers=parts.journal.count_answers(),
            complaints=dict(parts.hosts.complaints) | ({"journal": self._lost} if self._lost else {}),
        )

    async def host_complaints(self) -> dict[str, str]:
        """By host, why its devices cannot be told."""
        return dict(self._start().hosts.complaints)

    async def pid(self) -> int:
        return os.getpid()

    async def end(self) -> None:
        """Before it is killed for good: a journal that was for this farm's life only is deleted."""
        if self._parts is not None:
            self._parts.clients.close()
            await asyncio.sleep(_LAST_WORDS_S)
        if self._config.journal is None:
            shutil.rmtree(self._journal_path().parent, ignore_errors=True)

    # Parts

    def _start(self) -> _Parts:
        """Restores what the journal has and employs everybody; here and not in __init__, which has no event loop."""
        if self._parts is None:
            self._parts = self._make()
        return self._parts

    def _make(self) -> _Parts:
        config = self._config
        sweep(config.cache_dir / "farms")
        self._lost = self._what_is_lost()
        journal = Journal.open(self._journal_path(), farm_id=self._farm_id)
        restored = journal.restored
        now = asyncio.get_running_loop().time()
        metrics = Metrics(config.name)
        recorder = Recorder(journal, heard=metrics.heard)
        clients = Clients(grace_s=config.grace_s)
        leave = Leave(clients, recorder)
        fleet = RememberingFleet(device_policy(config), restored=restored, tell=recorder.note, now=now)
        membership = Membership(config.devices, tell=recorder.note)
        compilers = compilers_of(config, first_fence=restored.first_fence, may_run=leave)
        compiling = Compiling(compilers, clients)
        sentinels = Sentinels(
            config.sentinel, compile_for=compiling.sentinel, baselines=restored.baselines, tell=recorder.note
        )
        devices = DevicePool(config, fleet, leave, admit=membership.admit, sentinels=sentinels, timed=metrics.measured)
        membership.begin(devices, restored.attached)
        hosts = Hosts(config.hosts, membership.listed)
        keeping = (hosts.keep(), metrics.keep(compilers, devices, clients))
        self._tasks = [asyncio.get_running_loop().create_task(_endless(task)) for task in keeping]
        asking = Asking(config, compiling, devices, membership, clients, journal, recorder)
        for client, share in restored.shares.items():
            _set_share(asking, client, share)
        return _Parts(journal, recorder, clients, asking, membership, devices, hosts)

    def _what_is_lost(self) -> str:
        """Words for a later life that does not find the journal of the earlier ones; empty if all is well."""
        path = self._journal_path()
        if path.exists() or not ray.get_runtime_context().was_current_actor_reconstructed:
            return ""
        lost = (
            f"the broker came back on a node where {path} is not, and began an empty one: what was measured and"
            " quarantined before is on the node that it was on; stop the farm and start it there to have it again"
        )
        _log.warning(lost)
        return lost

    def _journal_path(self) -> Path:
        if self._config.journal is not None:
            return self._config.journal
        return self._config.cache_dir / "farms" / f"{file_name(self._config.name)}-{self._farm_id}" / JOURNAL_NAME


async def _endless(task: Coroutine[Any, Any, None]) -> None:
    """What goes on beside the work must not end it, nor end unheard."""
    try:
        await task
    except Exception:
        _log.exception("a part of the broker broke down; the rest goes on without it")


def _set_share(asking: Asking, client: str, share: float) -> None:
    asking.devices.set_share(client, share)
    asking.compiling.pool.set_share(client, share)
