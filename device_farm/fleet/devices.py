"""Descriptions of devices: plain data that says where a device is and how to open a transport to it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from device_farm.compiler.target import Precision

if TYPE_CHECKING:
    from device_farm.transport.base import Transport


@runtime_checkable
class DeviceSpec(Protocol):
    """What the farm must know to employ a device. Implementations are frozen, small and serialisable.

    `resource` is the custom Ray resource of the node that the device is attached to, one unit for each device (see
    `phone_resource`); `node_id` pins to one living node instead. With neither, the device belongs to the node that
    starts the farm.
    """

    @property
    def serial(self) -> str:
        """Its name in the farm, unique."""

    @property
    def model(self) -> str | None:
        """Devices of one model are interchangeable. None: what the transport finds."""

    @property
    def resource(self) -> str | None: ...

    @property
    def node_id(self) -> str | None: ...

    @property
    def num_cpus(self) -> float:
        """CPUs that Ray sets aside on its host."""

    def open(self, work_dir: Path) -> Transport:
        """A transport to the device, made on its host. Raises TransportError."""


@dataclass(frozen=True)
class LocalDevice:
    """One core of a node as a device, or several.

    `cpu` is the core that measurements are pinned to; None leaves it to the system. With `threads` above 1 its
    latencies are those of so many threads, each pinned to one of `cpus`, the first of which is `cpu`; without `cpus`
    the system places all but the first. `num_cpus` is set aside for it in Ray, so that trainers do not run on the core
    that is being measured; 0 shares it. `precision` is what it is asked to compute with; a device at fp16, or of other
    threads, is another one than the same at fp32, and needs a model name of its own.
    """

    cpu: int | None = None
    model: str | None = None
    name: str | None = None
    num_cpus: float = 1.0
    resource: str | None = None
    node_id: str | None = None
    precision: Precision = Precision.FP32
    threads: int = 1
    cpus: tuple[int, ...] = ()

    @property
    def serial(self) -> str:
        suffix = "" if self.precision is Precision.FP32 else f"-{self.precision}"
        return self.name or ("local" if self.cpu is None else f"local-cpu{self.cpu}") + suffix

    def open(self, work_dir: Path) -> Transport:
        from device_farm.transport.local import LocalTransport

        return LocalTransport(work_dir, self.cpu, precision=self.precision, threads=self.threads, cpus=self.cpus)


@dataclass(frozen=True)
class AdbDevice:
    """A phone of an adb server; `serial` is what `adb devices` lists, whatever characters it holds.

    `server` is "HOST:PORT" as seen from the phone's host, `home` where a private server has its key. The phone is
    pinned to the node that offers its resource (`phone_resource(serial)`), unless `pinned` is False: then, or with
    `node_id`, to where the farm says. Measurements run on core `cpu`, the first of the fastest cluster if None.
    Its files on the phone are in a folder of its own below `folder`.

    Raises ValueError for what cannot be a serial, a server or a folder.
    """

    serial: str
    server: str = "127.0.0.1:5037"
    model: str | None = None
    cpu: int | None = None
    threads: int = 1
    precision: Precision = Precision.FP32
    pinned: bool = True
    node_id: str | None = None
    num_cpus: float = 0.0
    home: str | None = None
    folder: str = "/data/local/tmp/npas"

    def __post_init__(self) -> None:
        from device_farm.transport.adb.quoting import check_folder, check_serial
        from device_farm.transport.adb.server import AdbServer

        check_serial(self.serial)
        check_folder(self.folder)
        AdbServer.at(self.server)
        if self.threads < 1:
            raise ValueError(f"threads must be at least 1, got {self.threads}")

    @property
    def resource(self) -> str | None:
        return phone_resource(self.serial) if self.pinned and self.node_id is None else None

    def open(self, work_dir: Path) -> Transport:
        from device_farm.transport.adb.server import AdbServer
        from device_farm.transport.adb.transport import AdbTransport

        return AdbTransport(
            AdbServer.at(self.server, None if self.home is None else Path(self.home)),
            self.serial,
            work_dir=self.folder,
            model=self.model,
            cpu=self.cpu,
            threads=self.threads,
            precision=self.precision,
        )


def phone_resource(serial: str) -> str:
    """The name of the Ray resource that pins a device to its host: distinct for distinct serials, safe everywhere.

    >>> phone_resource("R5CT_20:5555")
    'phone_R5CT_5f20_3a5555'
    """
    return "phone_" + file_name(serial)


def file_name(text: str) -> str:
    """`text` as letters, digits, `-` and `_`: every other byte as `_` and two hexadecimal digits."""
    return re.sub(rb"[^A-Za-z0-9-]", lambda match: b"_" + match[0].hex().encode(), text.encode()).decode()
