"""Ray actors as workers of a Pool."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import ray
from ray.exceptions import ActorDiedError, ActorUnavailableError, ObjectLostError, RayActorError, RayTaskError

from device_farm.errors import DeviceGone, FarmError, Refused
from device_farm.fleet.device_actor import Answer, Greeting
from device_farm.fleet.pool import InputLost
from device_farm.fleet.sentinels import SentinelOrder, Sentinels
from device_farm.fleet.words import Lease
from device_farm.measurement.types import DeviceFacts, Measurement
from device_farm.measurement.types import Protocol as MeasurementProtocol

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


class Process(Protocol):
    """A process somewhere that serves one worker. Methods that return references raise nothing themselves."""

    def call(self, method: str, *args: Any, num_returns: int = 1) -> Any:
        """A reference to what the method returns, or `num_returns` of them."""

    def kill(self, *, for_good: bool) -> None: ...

    def is_lost(self) -> None:
        """Its actor is dead and does not come back: a new process is made elsewhere, or anew."""


@dataclass(frozen=True)
class OwnActor:
    """A process that is a Ray actor of its own."""

    actor: Any

    def call(self, method: str, *args: Any, num_returns: int = 1) -> Any:
        return getattr(self.actor, method).options(num_returns=num_returns).remote(*args)

    def kill(self, *, for_good: bool) -> None:
        ray.kill(self.actor, no_restart=for_good)

    def is_lost(self) -> None:
        pass


@dataclass(frozen=True)
class HostedProcess:
    """One of a DeviceHost's. `forget` is told that the host is dead for good."""

    host: Any
    serial: str
    made_with: tuple[Any, ...]
    forget: Callable[[Any], None]

    def call(self, method: str, *args: Any, num_returns: int = 1) -> Any:
        return self.host.call.remote(self.serial, self.made_with, method, *args)

    def kill(self, *, for_good: bool) -> None:
        self.host.end.remote(self.serial)

    def is_lost(self) -> None:
        self.forget(self.host)


class _RayWorker:
    """The life of one process: made, greeted, watched, killed, greeted again.

    Ray restarts the same actor, so a killed process may still answer: an instance once condemned is never employed
    again.
    """

    def __init__(self, serial: str, create: Callable[[], Process], may_run: MayRun) -> None:
        self._serial = serial
        self._create = create
        self._may_run = may_run
        self._process: Process | None = None
        self._instance: str | None = None
        self._condemned: str | None = None
        self._died = False
        self._boot_id = ""

    @property
    def serial(self) -> str:
        return self._serial

    @property
    def boot_id(self) -> str:
        return self._boot_id

    async def connect(self) -> str:
        return self._employ(await self._greet())

    def _employ(self, greeting: Greeting) -> str:
        """The model that it joins as. Raises FarmError to turn it away for now."""
        raise NotImplementedError

    async def _greet(self) -> Greeting:
        if self._process is None:
            self._process = self._create()
        try:
            greeting: Greeting = await self._process.call("hello")
        except ActorDiedError:
            self._process.is_lost()
            self._process = None  # for good, as with its node; the next attempt makes a new one
            raise
        except RayTaskError as error:
            raise _cause(error) from None
        if greeting.instance == self._condemned:
            self._kill()
            raise DeviceGone(f"the process that serves {self._serial} is being replaced")
        self._instance, self._boot_id, self._died = greeting.instance, greeting.boot_id, False
        return greeting

    async def watch(self) -> None:
        assert self._process is not None
        try:
            await self._process.call("watch")
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
        if self._process is not None:
            self._process.kill(for_good=True)

    def _kill(self) -> None:
        if self._process is not None:
            self._process.kill(for_good=False)

    async def _call(self, method: str, *args: Any, num_returns: int = 1) -> Any:
        """The references of a call's results, the first one fetched."""
        assert self._process is not None
        refs = self._process.call(method, *args, num_returns=num_returns)
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
            if not isinstance(error.cause, DeviceGone):
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
        create: Callable[[], Process],
        may_run: MayRun,
        *,
        admit: Callable[[DeviceFacts], None],
        sentinels: Sentinels,
        protocol: MeasurementProtocol,
        timed: Callable[[DeviceFacts, float], None],
    ) -> None:
        super().__init__(serial, create, may_run)
        self._admit = admit
        self._sentinels = sentinels
        self._protocol = protocol
        self._timed = timed  # is told how many seconds the device was busy with a job
        self._facts: DeviceFacts | None = None
        self._order: SentinelOrder | None = None  # what this instance of the actor has

    async def connect(self) -> str:
        model = await super().connect()
        self._order = None
        await self._watch_over()
        return model

    def _employ(self, greeting: Greeting) -> str:
        if isinstance(greeting.facts, FarmError):
            raise greeting.facts
        assert greeting.facts is not None
        self._admit(greeting.facts)
        self._facts = greeting.facts
        return greeting.facts.model

    async def run(self, lease: Lease, payload: Compiled) -> Measurement:
        await self._may_run(lease)
        assert self._facts is not None
        began_s = time.monotonic()
        try:
            await self._watch_over()
            args = (lease.fence, payload.artifact, payload.program, self._protocol)
            answer = self._noted(await self._call("measure", *args))
        finally:
            self._timed(self._facts, time.monotonic() - began_s)
        assert isinstance(answer.result, Measurement)
        return answer.result

    async def calibrate(self) -> float:
        """The sentinel's baseline in milliseconds, taken anew. Raises FarmError."""
        if await self._watch_over() is None:
            raise Refused(f"this farm has no sentinel, so there is nothing to calibrate {self._serial} by")
        answer = self._noted(await self._call("calibrate", self._protocol))
        assert answer.baseline is not None
        return answer.baseline.baseline_ms

    async def _watch_over(self) -> SentinelOrder | None:
        """The actor has the sentinel that it ought to have. Raises FarmError, InputLost."""
        assert self._facts is not None
        order = await self._sentinels.order(self._facts)
        if order is not None and not order.is_like(self._order):
            try:
                await self._call("watch_over", order.artifact, order.program, order.baseline, order.model_ms)
            except InputLost:
                self._sentinels.lost(self._facts)
                raise
            self._order = order
        return self._order

    def _noted(self, answer: Answer) -> Answer:
        """Remembers the baseline. Raises the FarmError that the answer is."""
        assert self._facts is not None
        if answer.baseline is not None:
            self._sentinels.observed(self._facts, answer.baseline)
        if isinstance(answer.result, FarmError):
            raise answer.result
        return answer
