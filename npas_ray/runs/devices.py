"""From the devices of a configuration to what opens them: the same for searches and for a bench. No Ray in here."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from device_farm.compiler import TARGETS
from device_farm.compiler.element import Element
from device_farm.compiler.target import Precision
from device_farm.errors import TransportError
from device_farm.fleet.adb_phones import AdbPhones
from device_farm.fleet.devices import AdbDevice, DeviceSpec, LocalDevice
from device_farm.fleet.host_watcher import PhoneHost
from npas_ray import config
from npas_ray.config.words import did_you_mean, printable, shown
from npas_ray.errors import InfrastructureError, UserError

if TYPE_CHECKING:
    from device_farm.measurement.types import DeviceFacts
    from device_farm.transport.adb.server import AdbServer

_PATIENCE_S = 5.0
_SIDE_BY_SIDE = 32


def spec_of(device: config.LocalDevice, *, reserved: tuple[int, ...]) -> LocalDevice:
    """On the cores that were reserved, or on those from the configured one on: one for each thread.

    `reserved` are the cores that this process gave up for measurements, see device_farm.transport.cores.
    """
    auto = device.cpu == "auto"
    cpus = reserved[: device.threads] if auto else tuple(range(int(device.cpu), int(device.cpu) + device.threads))
    return LocalDevice(
        cpu=cpus[0] if cpus else None,
        model=device.model,
        num_cpus=0,
        precision=device.precision,
        threads=device.threads,
        cpus=cpus if device.threads > 1 else (),
    )


def farm_devices(
    search: config.SearchConfig, *, reserved: tuple[int, ...]
) -> tuple[tuple[LocalDevice, ...], tuple[PhoneHost, ...]]:
    """This machine as the search wants it, and the adb servers whose phones come and go."""
    local = tuple(
        spec_of(device, reserved=reserved) for device in search.devices if isinstance(device, config.LocalDevice)
    )
    phones = tuple(PhoneHost(_phones_of(device)) for device in search.devices if isinstance(device, config.AdbDevice))
    return local, phones


def _phones_of(device: config.AdbDevice) -> AdbPhones:
    """Phones that are named belong to the model that the configuration gives them; others to what they say."""
    half = device.target != "auto" and TARGETS[device.target].element is Element.FLOAT16
    return AdbPhones(
        server=device.server,
        only=device.serials,
        models=() if device.serials is None else tuple((serial, device.model) for serial in device.serials),
        cpu=None if device.cpu == "auto" else int(device.cpu),
        threads=device.threads,
        precision=Precision.FP16 if half else Precision.FP32,
    )


@dataclass(frozen=True)
class SingleDevice:
    """This machine, or one phone of an adb server."""

    serial: str
    server: str | None = None  # None: this machine
    threads: int = 1

    @property
    def is_local(self) -> bool:
        return self.server is None

    def spec(self, reserved: tuple[int, ...]) -> DeviceSpec:
        """What opens it. This machine measures on the reserved cores."""
        if self.server is None:
            return spec_of(config.LocalDevice(threads=self.threads), reserved=reserved)
        return AdbDevice(self.serial, server=self.server, threads=self.threads, pinned=False)


def single_device(serial: str, *, server: str | None = None, threads: int = 1) -> SingleDevice:
    """The device that a user means: "local", or a phone's serial. Raises UserError, InfrastructureError."""
    from device_farm.transport.adb.server import AdbServer

    if serial == "local" and server is None:
        return SingleDevice("local", threads=threads)
    address = server or f"127.0.0.1:{os.environ.get('ANDROID_ADB_SERVER_PORT', '5037')}"
    try:
        listed = [entry.serial for entry in AdbServer.at(address).devices(timeout_s=_PATIENCE_S)]
    except ValueError as error:
        raise UserError(f"--server: {error}") from None
    except TransportError as error:
        message = f"--device: expected local, or a phone; got {shown(serial)}, and there is no adb server: {error}"
        raise (UserError if server is None else InfrastructureError)(message) from error
    if serial not in listed:
        known = ["local", *listed]
        raise UserError(
            f"--device: expected one of {', '.join(map(printable, known))};"
            f" got {shown(serial)}{did_you_mean(serial, known)}"
        )
    return SingleDevice(serial, address, threads)


def find_device(
    model: str, *, devices: Iterable[config.LocalDevice | config.AdbDevice | config.FarmDevice]
) -> config.LocalDevice | config.AdbDevice | config.FarmDevice:
    """The device of that model. Raises UserError with the models that there are."""
    by_model = {device.model: device for device in devices}
    if model not in by_model:
        hint = did_you_mean(model, by_model)
        raise UserError(f"--device: expected one of {', '.join(by_model)}; got {shown(model)}{hint}")
    return by_model[model]


def phone_count(search: config.SearchConfig) -> int:
    """Phones of the search that their adb servers list now, in whatever state. Raises InfrastructureError."""
    return sum(len(_listed(device)) for device in search.devices if isinstance(device, config.AdbDevice))


def settled(search: config.SearchConfig) -> config.SearchConfig:
    """The same search with what it leaves to its phones filled in: the targets that they are compiled for.

    Raises InfrastructureError if an adb server does not answer, or has no such phone that does; of a shared farm what
    `shared_farm.settled_by_farm` raises.
    """
    if search.farm is not None:
        from npas_ray.runs.ray_session import prepare_ray

        prepare_ray()
        from npas_ray.runs.shared_farm import settled_by_farm

        return settled_by_farm(search)
    devices = tuple(
        device.model_copy(update={"target": _target_of(device)})
        if isinstance(device, config.AdbDevice) and device.target == "auto"
        else device
        for device in search.devices
    )
    return search if devices == search.devices else search.model_copy(update={"devices": devices})


def _target_of(device: config.AdbDevice) -> str:
    """That of the phones that answer. Phones of one model that differ are refused by the farm when they join."""
    from device_farm.transport.adb.server import AdbServer

    server = AdbServer.at(device.server)
    serials = _listed(device)
    with ThreadPoolExecutor(max_workers=_SIDE_BY_SIDE) as threads:
        answers = list(threads.map(lambda serial: _facts(server, serial), serials))
    targets = [facts.target for facts in answers if not isinstance(facts, TransportError)]
    if targets:
        return targets[0]
    wrong = "; ".join(str(answer) for answer in answers) or "it lists none"
    raise InfrastructureError(
        f"no phone {shown(device.model)} answers at the adb server {device.server}: {wrong}."
        f" `npas devices doctor --server {device.server}` says more; or say what to compile for (devices[].target)"
    )


def _listed(device: config.AdbDevice) -> list[str]:
    """Serials of the phones of a device that its server lists. Raises InfrastructureError."""
    from device_farm.transport.adb.server import AdbServer

    try:
        listed = AdbServer.at(device.server).devices(timeout_s=_PATIENCE_S)
    except TransportError as error:
        raise InfrastructureError(f"{error}; `npas devices doctor --server {device.server}` says more") from error
    return [entry.serial for entry in listed if is_wanted(device, serial=entry.serial, model=entry.model)]


def is_wanted(device: config.AdbDevice, *, serial: str, model: str) -> bool:
    """Whether a phone that adb lists is one of `device`. adb writes `_` for what is no letter or digit of a model."""
    if device.serials is not None:
        return serial in device.serials
    return _folded(model) == _folded(device.model)


def _folded(model: str) -> str:
    return re.sub(r"[^A-Za-z0-9]", "_", model)


def _facts(server: AdbServer, serial: str) -> DeviceFacts | TransportError:
    from device_farm.transport.adb.transport import AdbTransport

    transport = AdbTransport(server, serial)
    try:
        return transport.facts(timeout_s=_PATIENCE_S)
    except TransportError as error:
        return error
    finally:
        transport.close()
