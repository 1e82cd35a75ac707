"""The broker: one named, detached, asynchronous Ray actor that compiles what is asked for and hands it to devices.

Its state lives in memory. When its process dies Ray starts it anew from its configuration, its actors die with it, and
clients' pending calls are made again by Ray: they are idempotent by key, so what was queued is queued again.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from device_farm.compiler.target import TARGETS
from device_farm.errors import CompileError, InvalidGraph, LeaseError, NoSuchDevice, Refused, UnsupportedOperator
from device_farm.fleet.compile_actor import CompileActor
from device_farm.fleet.config import FarmConfig
from device_farm.fleet.device_actor import DeviceActor
from device_farm.fleet.devices import DeviceSpec
from device_farm.fleet.pool import Pool
from device_farm.fleet.ray_workers import COMPILER, Compiled, CompileTask, RayCompiler, RayDevice
from device_farm.fleet.state import Fleet
from device_farm.fleet.words import Blame, DeviceState, DeviceStatus, Done, Failed, Job, Outcome, Policy
from device_farm.measurement.types import DeviceFacts, Measurement

if TYPE_CHECKING:
    from device_farm.compiler.graph import Graph

# A request whose inputs or artifact were lost with a node is compiled again this often.
_ROUNDS = 3
_COMPILER_ERRORS = {cls.__name__ for cls in (InvalidGraph, UnsupportedOperator, CompileError)}


@dataclass(frozen=True)
class Request:
    """Measure a network on a device of a model. `program_key` hashes graph, weights and seed."""

    program_key: str
    graph: Graph
    model: str
    weights: ray.ObjectRef[Any] | None
    seed: int
    client: str = ""
    priority: int = 0


@dataclass(frozen=True)
class FarmDevice:
    """A device of the farm as it is now. `facts` are None until it was reached for the first time."""

    serial: str
    state: DeviceState
    facts: DeviceFacts | None
    reason: str  # why it is not healthy, or was not lately
    job_key: str | None = None
    completed: int = 0
    failed: int = 0
    pid: int | None = None


class Broker:
    """Made a Ray actor by Farm.start. Nothing here blocks the event loop."""

    def __init__(self, config: FarmConfig) -> None:
        self._config = config
        self._facts: dict[str, DeviceFacts] = {}
        self._pools: tuple[Pool[CompileTask, Compiled], Pool[Compiled, Measurement]] | None = None

    async def measure(self, request: Request) -> Outcome[Measurement]:
        """The outcome of a request. The same artifact, model and protocol are measured once."""
        compilers, devices = self._start()
        facts = await self._facts_of(request.model, devices)
        if isinstance(facts, Failed):
            return facts
        outcome: Outcome[Measurement] = Failed("LeaseError", "never tried")
        for _ in range(_ROUNDS):
            compiled = await self._compile(request, facts, compilers)
            if isinstance(compiled, Done):
                outcome = await devices.ask(self._job(request, compiled.result), compiled.result)
            else:
                outcome = compiled
            if not _input_was_lost(outcome):
                break
            compilers.forget(_compile_key(request, facts))
        return outcome

    async def devices(self) -> list[FarmDevice]:
        """All devices of the configuration, in its order."""
        _, devices = self._start()
        known = {status.serial: status for status in devices.fleet.devices()}
        complaints = devices.complaints
        return [
            _view(spec, known.get(spec.serial), self._facts.get(spec.serial), complaints.get(spec.serial))
            for spec in self._config.devices
        ]

    async def ready(self, timeout_s: float) -> list[str]:
        """Waits until every device and compiler has joined; what is missing after the timeout, and why."""
        compilers, devices = self._start()
        expected = [*self._compiler_serials(), *(spec.serial for spec in self._config.devices)]
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

    async def pid(self) -> int:
        return os.getpid()

    # Parts

    def _start(self) -> tuple[Pool[CompileTask, Compiled], Pool[Compiled, Measurement]]:
        """Employs compilers and devices; here and not in __init__, which has no event loop."""
        if self._pools is None:
            # Later than every fence of an earlier life, and what that life had leased died with it.
            first_fence = time.time_ns() // 1000
            compilers: Pool[CompileTask, Compiled] = Pool(
                Fleet(_compiler_policy(self._config), first_fence=first_fence)
            )
            policy = replace(self._config.policy, lease_s=self._config.lease_s)
            devices: Pool[Compiled, Measurement] = Pool(Fleet(policy, first_fence=first_fence))
            for serial in self._compiler_serials():
                compilers.add(RayCompiler(serial, self._make_compiler))
            for spec in self._config.devices:
                devices.add(self._device_worker(spec))
            self._pools = compilers, devices
        return self._pools

    def _compiler_serials(self) -> list[str]:
        return [f"compiler-{n}" for n in range(self._config.compile_workers)]

    def _make_compiler(self) -> Any:
        options: dict[str, Any] = {"num_cpus": self._config.compile_cpus, **_RESTARTED_BUT_NOT_RETRIED}
        actor = ray.remote(CompileActor).options(**options)
        return actor.remote(self._config.cache_dir, self._config.compile_with)

    def _device_worker(self, spec: DeviceSpec) -> RayDevice:
        options: dict[str, Any] = {"num_cpus": spec.num_cpus, **_RESTARTED_BUT_NOT_RETRIED}
        if spec.resource is not None:
            options["resources"] = {spec.resource: 1}
        elif spec.node_id is not None:
            options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(spec.node_id, soft=False)
        work_dir = self._config.cache_dir / "devices"

        def create() -> Any:
            return ray.remote(DeviceActor).options(**options).remote(spec, work_dir, self._config.measure_with)

        return RayDevice(spec.serial, create, admit=self._admit, protocol=self._config.protocol)

    def _admit(self, facts: DeviceFacts) -> None:
        check_admissible(facts, self._facts.values())
        self._facts[facts.serial] = facts

    async def _facts_of(self, model: str, devices: Pool[Compiled, Measurement]) -> DeviceFacts | Failed:
        """Of any device of a model, as soon as one has been seen: they agree in what an artifact depends on."""
        try:
            async with asyncio.timeout(self._config.policy.absent_s):
                while True:
                    for facts in self._facts.values():
                        if facts.model == model:
                            return facts
                    if len(self._facts) == len(self._config.devices):
                        break
                    await devices.joined()
        except TimeoutError:
            pass
        models = ", ".join(sorted({facts.model for facts in self._facts.values()})) or "none"
        missing = "; ".join(f"{serial}: {why}" for serial, why in devices.complaints.items())
        message = f"no device of model {model!r}; the farm has {models}" + (f" ({missing})" if missing else "")
        return Failed(NoSuchDevice.__name__, message)

    async def _compile(
        self, request: Request, facts: DeviceFacts, compilers: Pool[CompileTask, Compiled]
    ) -> Outcome[Compiled]:
        key = _compile_key(request, facts)
        job = Job(key, artifact_key=key, model=COMPILER, client=request.client, priority=request.priority)
        task = CompileTask(request.graph, TARGETS[facts.target], request.weights, request.seed, facts.threads)
        outcome = await compilers.ask(job, task)
        if isinstance(outcome, Failed) and outcome.error not in _COMPILER_ERRORS and not _input_was_lost(outcome):
            # The compiler died, or hung, on every attempt. That may be this network's doing, or a full disk's:
            # who asks for many networks can tell, by how the others fare.
            return replace(outcome, error=LeaseError.__name__, message=f"the compiler broke down: {outcome.message}")
        return outcome

    def _job(self, request: Request, compiled: Compiled) -> Job:
        key = f"{compiled.artifact.key}/{request.model}/{self._config.protocol.key}"
        return Job(key, compiled.artifact.key, request.model, client=request.client, priority=request.priority)


# The pool decides what is tried again, and where. Three calls at once: hello, watch and the job.
_RESTARTED_BUT_NOT_RETRIED = {"max_restarts": -1, "max_task_retries": 0, "max_concurrency": 3}


def check_admissible(facts: DeviceFacts, known: Iterable[DeviceFacts]) -> None:
    """Devices of one model run the same artifacts and are equally fast. Raises Refused for one that would not."""
    if facts.target not in TARGETS:
        raise Refused(f"{facts.serial} has target {facts.target!r}; the compiler knows {', '.join(TARGETS)}")
    for other in known:
        if other.serial != facts.serial and other.model == facts.model and _kind(other) != _kind(facts):
            raise Refused(
                f"{facts.serial} is {_kind(facts)}, but {other.serial} of the same model {facts.model!r} "
                f"is {_kind(other)}; name their models apart"
            )


def _kind(facts: DeviceFacts) -> str:
    """What devices of one model must have in common to be interchangeable."""
    threads = f"of {facts.threads} threads" if facts.threads > 1 else None
    return ", ".join(str(part) for part in (facts.target, facts.details.get("processor"), threads) if part)


def _compile_key(request: Request, facts: DeviceFacts) -> str:
    return f"{request.program_key}/{facts.target}/{facts.threads}"


def _compiler_policy(config: FarmConfig) -> Policy:
    """Compilers are all alike: a network that breaks two is not tried on a third, and none is put in quarantine."""
    return Policy(
        lease_s=config.compile_timeout_s,
        infrastructure_attempts=2,
        quarantine_strikes=1_000_000,
        cool_s=0.05,
        max_cool_s=1.0,
        absent_s=config.policy.absent_s,
        remember=256,  # executables of about 0.1 MB each; with real weights more
    )


def _input_was_lost(outcome: Outcome[Any]) -> bool:
    return isinstance(outcome, Failed) and bool(outcome.evidence) and outcome.evidence[-1].fault.blame is Blame.INPUT


def _view(
    spec: DeviceSpec, status: DeviceStatus | None, facts: DeviceFacts | None, complaint: str | None
) -> FarmDevice:
    if status is None:
        return FarmDevice(spec.serial, DeviceState.GONE, facts, complaint or "its actor has not started")
    reason = complaint or status.reason
    return FarmDevice(spec.serial, status.state, facts, reason, status.job_key, status.completed, status.failed)
