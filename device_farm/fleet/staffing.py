"""The two pools of a broker: compilers, and devices that come and go. Makes their Ray actors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from device_farm.fleet.compile_actor import CompileActor
from device_farm.fleet.config import FarmConfig
from device_farm.fleet.device_actor import DeviceActor
from device_farm.fleet.device_host import DeviceHost
from device_farm.fleet.devices import DeviceSpec
from device_farm.fleet.pool import Pool
from device_farm.fleet.ray_workers import (
    Compiled,
    CompileTask,
    HostedProcess,
    MayRun,
    OwnActor,
    Process,
    RayCompiler,
    RayDevice,
)
from device_farm.fleet.remembering import RememberingFleet
from device_farm.fleet.sentinels import Sentinels
from device_farm.fleet.state import Fleet
from device_farm.fleet.words import Policy
from device_farm.measurement.types import DeviceFacts, Measurement

Compilers = Pool[CompileTask, Compiled]

# The pool decides what is tried again, and where. Three calls at once: hello, watch and the job.
_RESTARTED_BUT_NOT_RETRIED = {"max_restarts": -1, "max_task_retries": 0, "max_concurrency": 3}
_HOST = {"max_restarts": -1, "max_task_retries": 0, "max_concurrency": 10_000, "num_cpus": 0}


def compilers_of(config: FarmConfig, *, first_fence: int, may_run: MayRun) -> Compilers:
    """The compile actors of a farm, employed."""
    options: dict[str, Any] = {"num_cpus": config.compile_cpus, **_RESTARTED_BUT_NOT_RETRIED}

    def create() -> OwnActor:
        return OwnActor(ray.remote(CompileActor).options(**options).remote(config.cache_dir, config.compile_with))

    pool: Compilers = Pool(Fleet(_compiler_policy(config), first_fence=first_fence))
    for serial in compiler_serials(config):
        pool.add(RayCompiler(serial, create, may_run))
    return pool


def compiler_serials(config: FarmConfig) -> list[str]:
    return [f"compiler-{n}" for n in range(config.compile_workers)]


class DevicePool(Pool[Compiled, Measurement]):
    """A pool whose devices are employed and dismissed while it runs."""

    def __init__(
        self,
        config: FarmConfig,
        fleet: RememberingFleet,
        may_run: MayRun,
        *,
        admit: Callable[[DeviceFacts], None],
        sentinels: Sentinels,
        timed: Callable[[DeviceFacts, float], None],
    ) -> None:
        super().__init__(fleet, connect_s=config.connect_timeout_s)
        self._config = config
        self._may_run = may_run
        self._admit = admit  # is shown every device that was reached
        self._sentinels = sentinels
        self._timed = timed
        self._hosts: dict[str, Any] = {}  # of devices that share one, by node

    def employ(self, spec: DeviceSpec) -> None:
        """An actor for the device, which joins as soon as it can be reached."""
        options: dict[str, Any] = {"num_cpus": spec.num_cpus, **_RESTARTED_BUT_NOT_RETRIED}
        if spec.resource is not None:
            options["resources"] = {spec.resource: 1}
        elif spec.node_id is not None:
            options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(spec.node_id, soft=False)
        config = self._config
        made_with = (spec, config.cache_dir / "devices", config.measure_with, config.rules)

        def create() -> Process:
            if spec.node_id is not None and spec.resource is None and not spec.num_cpus:
                return HostedProcess(self._host(spec.node_id), spec.serial, made_with, self._forget)
            return OwnActor(ray.remote(DeviceActor).options(**options).remote(*made_with))

        device = RayDevice(
            spec.serial,
            create,
            self._may_run,
            admit=self._admit,
            sentinels=self._sentinels,
            protocol=config.protocol,
            timed=self._timed,
        )
        self.add(device)

    def _host(self, node_id: str) -> Any:
        """The actor that has the processes of a node's devices."""
        if node_id not in self._hosts:
            placed = NodeAffinitySchedulingStrategy(node_id, soft=False)
            self._hosts[node_id] = ray.remote(DeviceHost).options(**_HOST, scheduling_strategy=placed).remote()
        return self._hosts[node_id]

    def _forget(self, host: Any) -> None:
        self._hosts = {node: known for node, known in self._hosts.items() if known is not host}

    async def calibrate(self, serial: str) -> float:
        """The sentinel's baseline on a device, taken anew, in milliseconds. Raises FarmError."""
        worker = self._workers[serial]
        assert isinstance(worker, RayDevice)
        return await worker.calibrate()

    async def dismiss(self, serial: str) -> None:
        """End a device's actor for good; what it ran is tried elsewhere. Raises NoSuchDevice."""
        worker = self._workers[serial]
        assert isinstance(worker, RayDevice)
        worker.dismiss()
        await self.remove(serial)


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


def device_policy(config: FarmConfig) -> Policy:
    return replace(config.policy, lease_s=config.lease_s)
