"""One request's way: facts of a device, an artifact for it, a measurement; and the journal before and after."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ray

from device_farm.errors import (
    JournalError,
    LeaseError,
    NoSuchDevice,
)
from device_farm.fleet.clients import Caller, Clients, Gone
from device_farm.fleet.compiling import Compiling, Source, input_was_lost
from device_farm.fleet.config import FarmConfig
from device_farm.fleet.journal import Journal
from device_farm.fleet.membership import Membership, kind_of
from device_farm.fleet.pool import InputLost
from device_farm.fleet.ray_workers import Compiled
from device_farm.fleet.recorder import Recorder
from device_farm.fleet.staffing import DevicePool
from device_farm.fleet.words import Failed, Job, Lease, Outcome
from device_farm.measurement.types import DeviceFacts, Measurement

if TYPE_CHECKING:
    from device_farm.compiler.graph import Graph

# A request whose inputs or artifact were lost with a node is compiled again this often.
_ROUNDS = 3


@dataclass(frozen=True)
class Request:
    """Measure a network on a device of a model. `program_key` hashes graph, weights and seed.

    `replicate` tells apart measurements that are equal in all else: 0 is the one that everybody shares.
    """

    program_key: str
    graph: Graph
    model: str
    weights: ray.ObjectRef[Any] | None
    seed: int
    client: str = ""
    priority: int = 0
    replicate: int = 0
    caller: Caller | None = None
    avoid: tuple[str, ...] = ()  # serials that measure only where no other device of the model can


@dataclass(frozen=True)
class Leave:
    """Whether a lease may be used: somebody waits for its job, and all that is known before it is on disk."""

    clients: Clients
    recorder: Recorder

    async def __call__(self, lease: Lease) -> None:
        """Raises InputLost."""
        if not self.clients.want(lease.job.key):
            raise InputLost("nobody waits for it any more")
        try:
            await self.recorder.written()
        except JournalError as error:
            raise InputLost(f"{type(error).__name__}: {error}") from error


@dataclass(frozen=True)
class Asking:
    """Serves requests. All methods belong to the broker's event loop."""

    config: FarmConfig
    compiling: Compiling
    devices: DevicePool
    membership: Membership
    clients: Clients
    journal: Journal
    recorder: Recorder

    async def measure(self, request: Request) -> Outcome[Measurement]:
        """The outcome, on disk if it is for good."""
        if request.caller is None:
            return await self._measure(request)
        try:
            return await self.clients.answer(request.caller, self._measure(request))
        except Gone:
            return Failed(LeaseError.__name__, "who asked is gone")

    async def _measure(self, request: Request) -> Outcome[Measurement]:
        facts = await self._facts_of(request.model)
        if isinstance(facts, Failed):
            return facts
        outcome: Outcome[Measurement] = Failed("LeaseError", "never tried")
        source = Source(request.program_key, request.graph, request.weights, request.seed)
        for _ in range(_ROUNDS):
            compiled = await self.compiling.compile(source, facts, client=request.client, priority=request.priority)
            if isinstance(compiled, Failed):
                outcome = compiled
            else:
                outcome = await self._run(self._job(request, compiled.result, facts), compiled.result)
            if not input_was_lost(outcome):
                break
            self.compiling.forget(source, facts)
        return outcome

    async def _facts_of(self, model: str) -> DeviceFacts | Failed:
        """Of any device of a model, as soon as one has been seen."""
        try:
            async with asyncio.timeout(self.config.policy.absent_s):
                while True:
                    facts = self.membership.facts_of_model(model)
                    if facts is not None:
                        return facts
                    if self.membership.all_were_reached and not self.config.hosts:
                        break
                    await self.membership.news()
        except TimeoutError:
            pass
        models = ", ".join(sorted({facts.model for facts in self.membership.facts.values()})) or "none"
        missing = "; ".join(f"{serial}: {why}" for serial, why in self.devices.complaints.items())
        message = f"no device of model {model!r}; the farm has {models}" + (f" ({missing})" if missing else "")
        return Failed(NoSuchDevice.__name__, message)

    async def _run(self, job: Job, compiled: Compiled) -> Outcome[Measurement]:
        """From the journal if it is there; else measured, and in the journal before it is told."""
        try:
            known = self.journal.answer(job.key)
            if known is not None:
                return known
            with self.clients.waiting_for(job.key):
                outcome = await self.devices.ask(job, compiled)
            await self.recorder.written()
        except JournalError as error:
            return Failed(JournalError.__name__, str(error))
        return outcome

    def _job(self, request: Request, compiled: Compiled, facts: DeviceFacts) -> Job:
        """A model's name may mean another device one day: what it is made of is in the key, too."""
        kind = hashlib.sha256(kind_of(facts).encode()).hexdigest()[:12]
        key = f"{compiled.artifact.key}/{request.model}/{kind}/{self.config.protocol_key}/{request.replicate}"
        return Job(
            key,
            compiled.artifact.key,
            request.model,
            client=request.client,
            priority=request.priority,
            avoid=frozenset(request.avoid),
        )
