"""Networks to artifacts, through the pool of compilers. Part of the broker."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from device_farm.compiler.target import TARGETS
from device_farm.errors import CompileError, InvalidGraph, LeaseError, UnsupportedOperator
from device_farm.fleet.clients import Clients
from device_farm.fleet.faults import result_of
from device_farm.fleet.ray_workers import COMPILER, Compiled, CompileTask
from device_farm.fleet.words import Blame, Failed, Job, Outcome
from device_farm.measurement.types import DeviceFacts

if TYPE_CHECKING:
    import ray

    from device_farm.compiler.graph import Graph
    from device_farm.fleet.staffing import Compilers

_COMPILER_ERRORS = {cls.__name__ for cls in (InvalidGraph, UnsupportedOperator, CompileError)}
# No device measures before it has its sentinel.
_SENTINEL_FIRST = 1_000_000


@dataclass(frozen=True)
class Source:
    """What is compiled. `program_key` hashes graph, weights and seed; None for weights: made from the seed."""

    program_key: str
    graph: Graph
    weights: ray.ObjectRef[Any] | None = None
    seed: int = 0


@dataclass(frozen=True)
class Compiling:
    """Devices of equal target and threads, whatever their models, share an artifact."""

    pool: Compilers
    clients: Clients

    async def compile(
        self, source: Source, facts: DeviceFacts, *, client: str = "", priority: int = 0
    ) -> Outcome[Compiled]:
        """An artifact for devices with such facts."""
        key = _key(source, facts)
        job = Job(key, artifact_key=key, model=COMPILER, client=client, priority=priority)
        task = CompileTask(source.graph, TARGETS[facts.target], source.weights, source.seed, facts.threads)
        with self.clients.waiting_for(key):
            outcome = await self.pool.ask(job, task)
        if isinstance(outcome, Failed) and outcome.error not in _COMPILER_ERRORS and not input_was_lost(outcome):
            # The compiler died, or hung, on every attempt. That may be this network's doing, or a full disk's:
            # who asks for many networks can tell, by how the others fare.
            return replace(outcome, error=LeaseError.__name__, message=f"the compiler broke down: {outcome.message}")
        return outcome

    def forget(self, source: Source, facts: DeviceFacts) -> None:
        """Its executable was lost: asked again, it is compiled again."""
        self.pool.forget(_key(source, facts))

    async def sentinel(self, graph: Graph, facts: DeviceFacts) -> Compiled:
        """A sentinel for devices with such facts, compiled before anything else. Raises FarmError."""
        source = Source(f"sentinel {graph.key}", graph)
        self.forget(source, facts)
        return result_of(await self.compile(source, facts, priority=_SENTINEL_FIRST))


def input_was_lost(outcome: Outcome[Any]) -> bool:
    """Whether another round, with the input brought again, may end better."""
    return isinstance(outcome, Failed) and bool(outcome.evidence) and outcome.evidence[-1].fault.blame is Blame.INPUT


def _key(source: Source, facts: DeviceFacts) -> str:
    return f"{source.program_key}/{facts.target}/{facts.threads}"
