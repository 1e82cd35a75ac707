"""The farm's face: ask for a latency, get a Measurement or one of device_farm.errors.

    farm = Farm.start(FarmConfig(devices=(LocalDevice(cpu=0),), cache_dir=Path("~/.cache/npas").expanduser()))
    measurement = farm.measure(graph, model=farm.devices()[0].facts.model)

A Farm is a name: it can be sent to any Ray worker, and a broker that restarts is found again. Several searches may use
one farm, each under a client's name of its own: `Farm.connect("lab", client="search-7")`.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
import ray
from numpy.typing import NDArray
from ray.exceptions import ActorDiedError, ActorUnavailableError, GetTimeoutError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from device_farm.errors import DeadlineExceeded, FarmError, LeaseError, NoSuchDevice
from device_farm.fleet.asking import Request
from device_farm.fleet.broker import Broker
from device_farm.fleet.clients import caller_of_this_process
from device_farm.fleet.config import FarmConfig
from device_farm.fleet.devices import DeviceSpec, LocalDevice
from device_farm.fleet.entries import Entry
from device_farm.fleet.faults import result_of
from device_farm.fleet.host_watcher import PhoneHost
from device_farm.fleet.views import FarmDevice, FarmStatus
from device_farm.fleet.words import Outcome, check_share
from device_farm.measurement.types import Measurement

if TYPE_CHECKING:
    from device_farm.compiler.graph import Graph

S = TypeVar("S", bound="DeviceSpec | PhoneHost")

__all__ = ["Farm", "FarmConfig", "FarmDevice", "FarmStatus", "LocalDevice", "PendingMeasurement", "PhoneHost"]

# As many calls as a broker lets wait at once.
_WAITING_CALLS = 10_000
_END_S = 5.0


@dataclass(frozen=True)
class Farm:
    """A running farm, by name. Needs a connected Ray (`ray.init`).

    `client` names the search that asks: devices are shared between clients, see Policy.
    """

    name: str = "farm"
    namespace: str = "npas"
    client: str = ""

    @classmethod
    def start(cls, config: FarmConfig) -> Farm:
        """The farm of this name on the running Ray cluster, started if there is none; all its devices have joined.

        Devices and hosts that say neither `resource` nor `node_id` belong to the node of the caller.

        Raises:
            LeaseError: a farm of that name runs with another configuration, or its actors do not start.
            NoSuchDevice: a device could not be reached within `config.start_timeout_s`; the message says why.
            JournalError: the journal is damaged, or another farm writes it.
        """
        hosts = tuple(_pinned(host) for host in config.hosts)
        config = replace(config, devices=tuple(_pinned(spec) for spec in config.devices), hosts=hosts)
        farm = cls(config.name, config.namespace)
        started = farm._start_broker(config)
        other = farm._call("config")
        if other != config:
            raise LeaseError(
                f"a farm {config.name!r} with another configuration runs already; stop it, or take another name"
            )
        try:
            missing = farm._call("ready", config.start_timeout_s)
        except FarmError:
            if started:
                farm.stop()
            raise
        if missing:
            if started:
                farm.stop()
            serials = {spec.serial for spec in config.devices}
            error = NoSuchDevice if any(line.split(": ")[0] in serials for line in missing) else LeaseError
            what = "; ".join(missing)
            raise error(f"not ready within {config.start_timeout_s:g} s: {what}. {_hint(config)}")
        return farm

    @classmethod
    def connect(cls, name: str = "farm", *, namespace: str = "npas", client: str = "") -> Farm:
        """A handle to a running farm, for one of its clients. Raises LeaseError if there is none."""
        farm = cls(name, namespace, client)
        _ = farm._broker
        return farm

    def measure(
        self,
        graph: Graph,
        *,
        model: str,
        weights: Mapping[str, NDArray[Any]] | None = None,
        seed: int = 0,
        timeout_s: float | None = None,
        priority: int = 0,
        replicate: int = 0,
        avoid: Iterable[str] = (),
    ) -> Measurement:
        """Compiles the graph for a device of the model and measures it there. Blocks; not for an async actor.

        Without `weights` they are made on the device from `seed`. Equal requests are measured once, in the life of the
        journal; another `replicate` (0, 1, 2, ...) is another session, kept apart. Serials in `avoid` measure it only
        where no other device of the model is usable: a session on another phone; or, avoiding all but one, on that.

        Raises:
            InvalidGraph, UnsupportedOperator, CompileError: it cannot be compiled.
            WrongAnswer, RunnerFailed: it failed repeatedly on the only device of the model.
            Poisoned: it failed on two different devices. All of these carry the evidence as notes.
            NoSuchDevice: no device of the model is there.
            DeviceGone, DeadlineExceeded, Refused, Unstable: several attempts ended so; asking again tries again.
            DeadlineExceeded: no answer within `timeout_s` (the farm goes on; asking again finds the result).
            LeaseError: the farm has been stopped, or its compilers died on every attempt.
            JournalError: it was measured, but cannot be written down: asking again tries that again.
        """
        pending = self.submit(
            graph, model=model, weights=weights, seed=seed, priority=priority, replicate=replicate, avoid=avoid
        )
        return pending.result(timeout_s)

    def submit(
        self,
        graph: Graph,
        *,
        model: str,
        weights: Mapping[str, NDArray[Any]] | None = None,
        seed: int = 0,
        priority: int = 0,
        replicate: int = 0,
        avoid: Iterable[str] = (),
    ) -> PendingMeasurement:
        """Like `measure`, but returns at once."""
        return self.submit_each(
            graph, models=[model], weights=weights, seed=seed, priority=priority, replicate=replicate, avoid=avoid
        )[model]

    def submit_each(
        self,
        graph: Graph,
        *,
        models: Iterable[str],
        weights: Mapping[str, NDArray[Any]] | None = None,
        seed: int = 0,
        priority: int = 0,
        replicate: int = 0,
        avoid: Iterable[str] = (),
    ) -> dict[str, PendingMeasurement]:
        """Like `submit` on each of several models, by model: side by side, and each with an outcome of its own."""
        broker = self._broker
        key = hashlib.sha256(f"{graph.key} {_digest(weights)} {seed}".encode()).hexdigest()
        stored = None if weights is None else ray.put({name: np.asarray(array) for name, array in weights.items()})
        caller = caller_of_this_process(broker)
        pending, away = {}, tuple(avoid)
        for model in models:
            request = Request(key, graph, model, stored, seed, self.client, priority, replicate, caller, away)
            pending[model] = PendingMeasurement(self, request, broker.measure.remote(request))
        return pending

    # Devices

    def devices(self) -> list[FarmDevice]:
        """All devices with their facts and health. This and what follows raise LeaseError if the farm is gone."""
        return cast(list[FarmDevice], self._call("devices"))

    def config(self) -> FarmConfig:
        """What the farm is made of, and how it measures."""
        return cast(FarmConfig, self._call("config"))

    def status(self) -> FarmStatus:
        """What goes on: who asks, what waits, where its journal lies."""
        return cast(FarmStatus, self._call("status"))

    def host_complaints(self) -> dict[str, str]:
        """Of the hosts whose devices cannot be told now: why, by entry of `FarmConfig.hosts` and node."""
        return cast(dict[str, str], self._call("host_complaints"))

    def attach(self, spec: DeviceSpec) -> None:
        """Employ a device while the farm runs; it joins as soon as it can be reached (`devices` says why it is not).

        A serial that is attached already is from now on reached as `spec` says. It stays when the broker dies and
        comes back, if its kind is one of device_farm.fleet.devices.
        """
        self._call("attach", _pinned(spec))

    def detach(self, serial: str) -> None:
        """Dismiss a device; what it runs is tried elsewhere. Raises NoSuchDevice.

        One that a host lists stays away until it is attached again, or leaves the host and comes back.
        """
        self._call("detach", serial)

    def quarantine(self, serial: str, *, reason: str) -> None:
        """Take a device out of service until it is released, over restarts. What it runs may end. NoSuchDevice."""
        self._call("quarantine", serial, reason)

    def release(self, serial: str) -> None:
        """Forget a device's strikes, rest and quarantine. Raises NoSuchDevice."""
        self._call("release", serial)

    def calibrate(self, serial: str) -> float:
        """Takes the sentinel's baseline of a device anew, when it is next free; in milliseconds.

        Raises NoSuchDevice; Refused for a farm without a sentinel; Unfit and what a measurement raises.
        """
        return cast(float, self._call("calibrate", serial))

    def set_share(self, client: str, share: float) -> None:
        """Gives a client another weight, 1 where nothing was said. Raises ValueError unless it is a number above 0."""
        check_share(client, share)
        self._call("set_share", client, share)

    def history(self, serial: str, *, limit: int = 100) -> list[Entry]:
        """What the journal has of a device, attached now or once: its last `limit` entries, the oldest first."""
        return cast(list[Entry], self._call("history", serial, limit))

    def stop(self) -> None:
        """Ends the farm and its actors; whoever waits gets LeaseError. Stopping twice is well."""
        with contextlib.suppress(LeaseError):
            broker = self._broker
            with contextlib.suppress(RayError):
                ray.get(broker.end.remote(), timeout=_END_S)
            ray.kill(broker, no_restart=True)

    @property
    def _broker(self) -> Any:
        """The broker's handle. Raises LeaseError."""
        try:
            return ray.get_actor(self.name, namespace=self.namespace)
        except ValueError as error:
            raise LeaseError(f"no farm {self.name!r} runs in the namespace {self.namespace!r}") from error

    def _call(self, method: str, *args: Any) -> Any:
        """What the broker answers. Raises the FarmError that it raises, LeaseError if it is gone."""
        try:
            return ray.get(getattr(self._broker, method).remote(*args))
        except RayTaskError as error:
            if isinstance(error.cause, FarmError):
                raise error.cause from None
            raise LeaseError(f"the broker of the farm {self.name!r} failed: {error.cause!r}") from error
        except ActorDiedError as error:
            raise LeaseError(f"the farm {self.name!r} has been stopped") from error

    def _start_broker(self, config: FarmConfig) -> bool:
        with contextlib.suppress(LeaseError):
            _ = self._broker
            return False
        options = {
            "name": self.name,
            "namespace": self.namespace,
            "lifetime": "detached",
            "get_if_exists": True,  # two may start it at once
            "num_cpus": 0,
            "max_restarts": -1,
            "max_task_retries": -1,
            "max_concurrency": _WAITING_CALLS,
            # Beside whoever starts it, not on a phone host that may go; elsewhere if that node dies. Ray 2.60 places
            # an actor without any resource at random in spite of a soft affinity, hence the one byte.
            "scheduling_strategy": NodeAffinitySchedulingStrategy(_this_node(), soft=True),
            "memory": 1,
        }
        ray.remote(Broker).options(**options).remote(config, uuid.uuid4().hex)
        return True


@dataclass(frozen=True)
class PendingMeasurement:
    """A measurement under way. `ref` is for `ray.wait`; its value is an Outcome."""

    farm: Farm
    request: Request
    ref: ray.ObjectRef[Outcome[Measurement]]

    def result(self, timeout_s: float | None = None) -> Measurement:
        """The measurement; raises as Farm.measure does."""
        return result_of(self.outcome(timeout_s))

    def outcome(self, timeout_s: float | None = None) -> Outcome[Measurement]:
        """The outcome with its evidence as data. Raises DeadlineExceeded, LeaseError."""
        until_s = None if timeout_s is None else time.monotonic() + timeout_s
        ref = self.ref
        while True:
            left_s = None if until_s is None else max(0.0, until_s - time.monotonic())
            try:
                return ray.get(ref, timeout=left_s)
            except GetTimeoutError:
                raise DeadlineExceeded(f"no measurement on {self.request.model!r} within {timeout_s:g} s") from None
            except ActorDiedError as error:
                raise LeaseError(f"the farm {self.farm.name!r} has been stopped") from error
            except ActorUnavailableError:
                # Ray itself asks again after most losses; this is for the rest. The key makes it the same job.
                time.sleep(0.2)
                ref = self.farm._broker.measure.remote(self.request)
            except RayTaskError as error:
                if isinstance(error.cause, FarmError):
                    raise error.cause from None
                raise LeaseError(f"the broker of the farm {self.farm.name!r} failed: {error.cause!r}") from error


def _digest(weights: Mapping[str, NDArray[Any]] | None) -> str:
    """Content hash of weights; equal for equal values, types and shapes."""
    if weights is None:
        return "seeded"
    hasher = hashlib.sha256()
    for name in sorted(weights):
        array = np.ascontiguousarray(weights[name])
        hasher.update(f"{name!r} {array.dtype.str} {array.shape} ".encode())
        hasher.update(array.data if array.size else b"")
    return hasher.hexdigest()


def _pinned(spec: S) -> S:
    if spec.resource is not None or spec.node_id is not None:
        return spec
    return cast(S, replace(cast(Any, spec), node_id=_this_node()))


def _this_node() -> str:
    return ray.get_runtime_context().get_node_id()


def _hint(config: FarmConfig) -> str:
    wanted = [f"{spec.serial} wants {spec.num_cpus:g} CPU" + (f" and {spec.resource}" if spec.resource else "")
              for spec in config.devices]  # fmt: skip
    free = cast(Any, ray).available_resources().get("CPU", 0)
    return f"Ray has {free:g} CPU free; {', '.join(wanted)}"
