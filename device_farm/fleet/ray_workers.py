"""Ray actors as workers of a Pool."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import ActorDiedError, ActorUnavailableError, ObjectLostError, RayActorError, RayTaskError

from device_farm.errors import DeviceGone, FarmError
from device_farm.fleet.device_actor import Greeting
from device_farm.fleet.pool import InputLost
from device_farm.fleet.words import Lease
from device_farm.measurement.types import DeviceFacts, Measurement, Protocol

if TYPE_CHECKING:
    from device_farm.compiler.artifact import Artifact
    from device_farm.compiler.graph import Graph
    from device_farm.compiler.target import Target

# The only model of the compilers' fleet.
COMPILER = "compiler"

# Called before a lease is used. Raises InputLost to give it back.
MayRun = Callable[[Lease], Awaitable[None]]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CompileTask:
    """What a compiler needs. `weights` refers to a mapping name -> array; None makes them from the seed."""

    graph: Graph
    target: Target
    weights: ray.ObjectRef[Any] | None
    seed: int
    threads: int = 1


@dataclass(frozen=True)
class Compiled:
    """An artifact, and where its executable's bytes are in the object store."""

    artifact: Artifact
    program: ray.ObjectRef[bytes]


class _RayWorker:
    """The life of one actor: made, greeted, watched, killed, greeted again.

    Ray restarts the same actor, so a killed process may still answer: an instance once condemned is never employed
    again.
    """

    def __init__(self, serial: str, create: Callable[[], Any], may_run: MayRun) -> None:
        self._serial = serial
        self._create = create
        self._may_run = may_run
        self._actor: Any = None
        self._instance: str | None = None
        self._condemned: str | None = None
        self._died = False

    @property
    def serial(self) -> str:
        return self._serial

    async def connect(self) -> str:
        return self._employ(await self._greet())

    def _employ(self, greeting: Greeting) -> str:
        """The model that it joins as. Raises FarmError to turn it away for now."""
        raise NotImplementedError

    async def _greet(self) -> Greeting:
        if self._actor is None:
            self._actor = self._create()
        try:
            greeting: Greeting = await self._actor.hello.remote()
        except ActorDiedError:
            self._actor = None  # for good, as with its node; the next attempt makes a new one
            raise
        except RayTaskError as error:
            raise _cause(error) from None
        if greeting.instance == self._condemned:
            self._kill()
            raise DeviceGone(f"the process that serves {self._serial} is being replaced")
        self._instance, self._died = greeting.instance, False
        return greeting

    async def watch(self) -> None:
        try:
            await self._actor.watch.remote()
        except RayActorError:
            self._died = True
            raise

    async def restart(self) -> None:
        self._condemned = self._instance
        if not self._died:
            self._kill()

    def dismiss(self) -> None:
        """Its actor and whatever that runs are ended for good."""
        self._died = True
        if self._actor is not None:
            ray.kill(self._actor, no_restart=True)

    def _kill(self) -> None:
        if self._actor is not None:
            ray.kill(self._actor, no_restart=False)

    async def _call(self, method: str, *args: Any, num_returns: int = 1) -> Any:
        """The references of a call's results, the first one fetched."""
        refs = getattr(self._actor, method).options(num_returns=num_returns).remote(*args)
        first, *others = refs if num_returns > 1 else (refs,)
        try:
            value = await first
        except (ActorDiedError, ActorUnavailableError) as error:
            self._died = True
            raise DeviceGone(f"the process that serves {self._serial} died") from error
        except ObjectLostError as error:
            raise InputLost(str(error).splitlines()[0]) from error
        except RayTaskError as error:
            if isinstance(error.cause, ObjectLostError):
                raise InputLost(str(error.cause).splitlines()[0]) from error
            _log.exception("%s of %s broke down", method, self._serial)
            raise _cause(error) from None
        if isinstance(value, FarmError):
            raise value
        return (value, *others) if others else value


def _cause(error: RayTaskError) -> Exception:
    return error.cause if isinstance(error.cause, Exception) else error


class RayCompiler(_RayWorker):
    """A CompileActor as a worker."""

    def _employ(self, greeting: Greeting) -> str:
        return COMPILER

    async def run(self, lease: Lease, payload: CompileTask) -> Compiled:
        await self._may_run(lease)
        args = (payload.graph, payload.target, payload.weights, payload.seed, payload.threads)
        artifact, program = await self._call("compile", *args, num_returns=2)
        return Compiled(artifact, program)


class RayDevice(_RayWorker):
    """A DeviceActor as a worker. `admit` is shown the facts before it joins, and raises FarmError to refuse it."""

    def __init__(
        self,
        serial: str,
        create: Callable[[], Any],
        may_run: MayRun,
        *,
        admit: Callable[[DeviceFacts], None],
        protocol: Protocol,
    ) -> None:
        super().__init__(serial, create, may_run)
        self._admit = admit
        self._protocol = protocol

    def _employ(self, greeting: Greeting) -> str:
        if isinstance(greeting.facts, FarmError):
            raise greeting.facts
        assert greeting.facts is not None
        self._admit(greeting.facts)
        return greeting.facts.model

    async def run(self, lease: Lease, payload: Compiled) -> Measurement:
        await self._may_run(lease)
        args = (lease.fence, payload.artifact, payload.program, self._protocol)
        measurement: Measurement = await self._call("measure", *args)
        return measurement
