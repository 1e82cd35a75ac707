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
    """One core of a node as a device.

    `cpu` is the core that measurements are pinned to; None leaves it to the system. `num_cpus` is set aside for it
    in Ray, so that trainers do not run on the core that is being measured; 0 shares it. `precision` is what it is
    asked to compute with; a device at fp16 is another one than the same at fp32, and needs a model name of its own.
    """

    cpu: int | None = None
    model: str | None = None
    name: str | None = None
    num_cpus: float = 1.0
    resource: str | None = None
    node_id: str | None = None
    precision: Precision = Precision.FP32

    @property
    def serial(self) -> str:
        suffix = "" if self.precision is Precision.FP32 else f"-{self.precision}"
        return self.name or ("local" if self.cpu is None else f"local-cpu{self.cpu}") + suffix

    def open(self, work_dir: Path) -> Transport:
        from device_farm.transport.local import LocalTransport

        return LocalTransport(work_dir, self.cpu, precision=self.precision)


def phone_resource(serial: str) -> str:
    """The name of the Ray resource that pins a device to its host: distinct for distinct serials, safe everywhere.

    >>> phone_resource("R5CT_20:5555")
    'phone_R5CT_5f20_3a5555'
    """
    return "phone_" + file_name(serial)


def file_name(text: str) -> str:
    """`text` as letters, digits, `-` and `_`: every other byte as `_` and two hexadecimal digits."""
    return re.sub(rb"[^A-Za-z0-9-]", lambda match: b"_" + match[0].hex().encode(), text.encode()).decode()
