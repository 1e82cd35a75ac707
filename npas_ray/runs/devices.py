"""From a device of the configuration to what opens it: the same for searches and for a bench. No Ray in here."""

from __future__ import annotations

from collections.abc import Iterable

from device_farm.fleet.devices import LocalDevice
from npas_ray.config import models
from npas_ray.config.words import did_you_mean, shown
from npas_ray.errors import UserError

KNOWN = (models.LocalDevice(kind="local"),)  # what needs no configuration to be found


def spec_of(device: models.LocalDevice, *, reserved: tuple[int, ...]) -> LocalDevice:
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


def find_device(model: str, *, devices: Iterable[models.LocalDevice] = KNOWN) -> models.LocalDevice:
    """The device of that model. Raises UserError with the models that there are."""
    by_model = {device.model: device for device in devices}
    if model not in by_model:
        hint = did_you_mean(model, by_model)
        raise UserError(f"--device: expected one of {', '.join(by_model)}; got {shown(model)}{hint}")
    return by_model[model]
