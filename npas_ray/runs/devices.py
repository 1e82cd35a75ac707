"""From a device of the configuration to what opens it: the same for searches and for a bench. No Ray in here."""

from __future__ import annotations

from collections.abc import Iterable

from device_farm.fleet.devices import LocalDevice
from npas_ray.config import models
from npas_ray.config.words import did_you_mean, shown
from npas_ray.errors import UserError

KNOWN = (models.LocalDevice(kind="local"),)  # what needs no configuration to be found


def spec_of(device: models.LocalDevice, *, reserved: int | None) -> LocalDevice:
    """`reserved` is the core that this process gave up for measurements, see device_farm.transport.cores."""
    cpu = reserved if device.cpu == "auto" else device.cpu
    return LocalDevice(cpu=cpu, model=device.model, num_cpus=0, precision=device.precision)


def find_device(model: str, *, devices: Iterable[models.LocalDevice] = KNOWN) -> models.LocalDevice:
    """The device of that model. Raises UserError with the models that there are."""
    by_model = {device.model: device for device in devices}
    if model not in by_model:
        hint = did_you_mean(model, by_model)
        raise UserError(f"--device: expected one of {', '.join(by_model)}; got {shown(model)}{hint}")
    return by_model[model]
