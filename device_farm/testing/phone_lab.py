"""A whole farm on one machine: emulated phones, a private adb server, a host that lists them, a broker. For tests.

with PhoneLab(folder, ["emu-x86-fast"] * 4, config={"protocol": Protocol(deadline_s=10)}) as lab:
    lab.farm.measure(graph, model="emu-x86-fast")
    lab.phones[0].inject(PhoneFault.MUTE)

Needs a connected Ray whose workers find this package. Ends everything that it started.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import ray

from device_farm.compiler.graph import Activation, BlockSparsity, Conv2d, Graph, Input, Padding, Pool2d, Shape
from device_farm.fleet.adb_phones import AdbPhones
from device_farm.fleet.config import SENTINEL
from device_farm.fleet.entries import Entry
from device_farm.fleet.farm import Farm, FarmConfig, FarmDevice, PhoneHost
from device_farm.fleet.words import DeviceState, Policy
from device_farm.measurement.admission import AdmissionRules
from device_farm.measurement.types import Protocol
from device_farm.testing.phones import EmulatedPhones
from device_farm.transport.adb.server import AdbServer, PrivateAdbServer

NAMESPACE = "npas-lab"


def small_network(filters: int, *, kept: int = 9) -> Graph:
    """Compiles in a moment. Another number of `filters`, or of `kept` taps of each block (1 to 27), is another one."""
    sparsity = BlockSparsity(16, (kept,) * -(-filters // 16))
    same = Padding.same(3)
    return Graph(
        (
            Input("image", (), Shape(8, 8, 3)),
            Conv2d("conv", ("image",), filters, (3, 3), padding=same, activation=Activation.RELU, sparsity=sparsity),
            Pool2d("pool", ("conv",), kernel=(8, 8), stride=(8, 8)),
            Conv2d("head", ("pool",), 10),
        )
    )


@dataclass(frozen=True)
class Answer:
    """A row of the journal that answers a key."""

    key: str
    kind: str


class PhoneLab:
    """Context manager. `config` are fields of FarmConfig that shall differ.

    Phones are numbered as their `models`. `hosts` says which of them belong to the Ray nodes with which resource, None
    being the node of the caller, who has all if nothing is said. `folder` gets the journal; `cache_dir` compiled
    kernels, `folder` if None.
    """

    def __init__(
        self,
        folder: Path,
        models: Sequence[str],
        *,
        seed: int = 0,
        pace: float = 0.0,
        name: str = "lab",
        cache_dir: Path | None = None,
        config: Mapping[str, Any] | None = None,
        hosts: Sequence[tuple[str | None, Sequence[int]]] | None = None,
        other_hosts: Sequence[PhoneHost] = (),
        start_timeout_s: float = 240.0,
    ) -> None:
        self._folder, self._name, self._start_timeout_s = folder, name, start_timeout_s
        self._models, self._seed, self._pace = list(models), seed, pace
        self._cache_dir = folder if cache_dir is None else cache_dir
        self._changes = dict(config or {})
        self._others = tuple(other_hosts)
        self._hosts = [(None, range(len(models)))] if hosts is None else list(hosts)
        self._stack = contextlib.ExitStack()
        self.farm: Farm
        self.phones: EmulatedPhones
        self.server: PrivateAdbServer

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            home = self._folder / "adb"
            self.server = stack.enter_context(AdbServer.start_private(home=home))
            self.phones = stack.enter_context(EmulatedPhones(self._models, seed=self._seed, pace=self._pace))
            hosts = [PhoneHost(self._source(home, numbers), resource) for resource, numbers in self._hosts]
            self.farm = Farm.start(self._config(hosts))
            stack.callback(self.farm.stop)
            self.until(lambda: self.are_well(*range(len(self._models))), timeout_s=self._start_timeout_s)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _source(self, home: Path, numbers: Sequence[int]) -> AdbPhones:
        addresses = self.phones.addresses
        return AdbPhones(
            str(self.server),
            addresses=tuple(addresses[number] for number in numbers),
            ignored=tuple(address for number, address in enumerate(addresses) if number not in numbers),
            home=str(home),
            look_every_s=1.0,
        )

    def _config(self, hosts: Sequence[PhoneHost]) -> FarmConfig:
        fields: dict[str, Any] = {
            "devices": (),
            "hosts": (*hosts, *self._others),
            "cache_dir": self._cache_dir,
            "journal": self.journal,
            "sentinel": SENTINEL,
            "rules": AdmissionRules(cool_s=2.0),
            "protocol": Protocol(warmup_s=0.01, min_time_s=0.05, deadline_s=20.0),
            "policy": Policy(cool_s=0.2, max_cool_s=2.0, absent_s=120.0),
            "name": self._name,
            "namespace": NAMESPACE,
        }
        return FarmConfig(**fields | self._changes)

    @property
    def journal(self) -> Path:
        return self._folder / "journal.sqlite"

    def device(self, number: int) -> FarmDevice | None:
        """None if the farm does not know the phone."""
        serial = self.phones.addresses[number]
        return next((device for device in self.farm.devices() if device.serial == serial), None)

    def state(self, number: int) -> DeviceState | None:
        device = self.device(number)
        return None if device is None else device.state

    def has_job(self, number: int) -> bool:
        device = self.device(number)
        return device is not None and device.job_key is not None

    def are_well(self, *numbers: int) -> bool:
        wanted = {self.phones.addresses[number] for number in numbers}
        well = {device.serial for device in self.farm.devices() if device.state is DeviceState.HEALTHY}
        return wanted <= well

    def history(self, number: int) -> list[Entry]:
        return self.farm.history(self.phones.addresses[number], limit=10**6)

    def answers(self) -> list[Answer]:
        """What the journal's file says itself."""
        uri = f"file:{self.journal}?mode=ro"
        with contextlib.closing(sqlite3.connect(uri, uri=True)) as journal:
            rows = journal.execute("SELECT key, kind FROM log WHERE kind IN ('measured', 'failed')").fetchall()
        return [Answer(*row) for row in rows]

    def heal(self) -> None:
        """No phone has a fault, and none is remembered by the farm for what it had."""
        for phone in self.phones:
            phone.heal()
        self.until(lambda: all(self.device(n) is not None for n in range(len(self.phones))))
        for address in self.phones.addresses:
            self.farm.release(address)

    def kill_broker(self) -> None:
        """kill -9 of its process. Ray starts it again: returns when it has a phone."""
        broker: Any = ray.get_actor(self._name, namespace=NAMESPACE)
        pid: int = ray.get(broker.pid.remote())
        os.kill(pid, signal.SIGKILL)
        self.until(lambda: any(map(self.are_well, range(len(self.phones)))), timeout_s=self._start_timeout_s)

    def kill_server(self) -> None:
        """The adb server at the port dies at once, whoever started it."""
        kill_adb_server(self.server)

    @staticmethod
    def until(condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
        """Raises TimeoutError."""
        end = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError(f"waited in vain for {timeout_s:g} s")
            time.sleep(0.05)


def kill_adb_server(server: PrivateAdbServer) -> None:
    """kill -9 of whatever serves at its port: a farm may have started another one there."""
    for pid in _listeners(server.port):
        os.kill(pid, signal.SIGKILL)
    server.kill()


def _listeners(port: int) -> list[int]:
    """Processes that were started as an adb server at the port."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes().split(b"\0")
                if f"tcp:localhost:{port}".encode() in words and b"server" in words:
                    found.append(int(entry.name))
    return found
