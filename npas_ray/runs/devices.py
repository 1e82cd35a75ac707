"""From the devices of a configuration to what opens them: the same for searches and for a bench. No Ray in here."""

from __future__ import annotations

import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from device_farm.errors import TransportError
from device_farm.fleet.devices import LocalDevice
from npas_ray import config
from npas_ray.config.words import did_you_mean, printable, shown
from npas_ray.errors import InfrastructureError, UserError

if TYPE_CHECKING:
    from device_farm.measurement.types import DeviceFacts
    from device_farm.transport.adb.server import AdbServer

KNOWN = (config.LocalDevice(),)  # what needs no configuration to be found

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


def find_device(
    model: str, *, devices: Iterable[config.LocalDevice | config.AdbDevice] = KNOWN
) -> config.LocalDevice | config.AdbDevice:
    """The device of that model. Raises UserError with the models that there are."""
    by_model = {device.model: device for device in devices}
    if model not in by_model:
        hint = did_you_mean(model, by_model)
        raise UserError(f"--device: expected one of {', '.join(by_model)}; got {shown(model)}{hint}")
    return by_model[model]


def settled(search: config.SearchConfig) -> config.SearchConfig:
    """The same search with what it leaves to its phones filled in: the targets that they are compiled for.

    Raises InfrastructureError if an adb server does not answer, or has no such phone that does.
    """
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
    try:
        listed = server.devices(timeout_s=_PATIENCE_S)
    except TransportError as error:
        raise InfrastructureError(f"{error}; `npas devices doctor --server {device.server}` says more") from error
    serials = [entry.serial for entry in listed if is_wanted(device, serial=entry.serial, model=entry.model)]
    with ThreadPoolExecutor(max_workers=_SIDE_BY_SIDE) as threads:
        answers = list(threads.map(lambda serial: _facts(server, serial), serials))
    targets = [facts.target for facts in answers if not isinstance(facts, TransportError)]
    if targets:
        return targets[0]
    wrong = "; ".join(str(answer) for answer in answers) or f"it has {_models(listed)}"
    raise InfrastructureError(
        f"no phone {shown(device.model)} answers at the adb server {device.server}: {wrong}."
        f" `npas devices doctor --server {device.server}` says more; or say what to compile for (devices[].target)"
    )


def is_wanted(device: config.AdbDevice, *, serial: str, model: str) -> bool:
    """Whether a phone that adb lists is one of `device`. adb writes `_` for what is no letter or digit of a model."""
    if device.serials is not None:
        return serial in device.serials
    return _folded(model) == _folded(device.model)


def _folded(model: str) -> str:
    return re.sub(r"[^A-Za-z0-9]", "_", model)


def _models(listed: Iterable[object]) -> str:
    models = dict.fromkeys(printable(str(getattr(entry, "model", "")) or "one that is not ready") for entry in listed)
    return ", ".join(models) or "none at all"


def _facts(server: AdbServer, serial: str) -> DeviceFacts | TransportError:
    from device_farm.transport.adb.transport import AdbTransport

    transport = AdbTransport(server, serial)
    try:
        return transport.facts(timeout_s=_PATIENCE_S)
    except TransportError as error:
        return error
    finally:
        transport.close()
