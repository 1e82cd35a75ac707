"""A farm that outlives searches: started on a running Ray cluster, found there by name.

What a search leaves to its farm (what devices are compiled for, how a latency is taken) is asked of it before the
search begins, and belongs to the search's identity from then on. Imports Ray: call prepare_ray() before.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import ray
from ray.util import list_named_actors

from device_farm.errors import LeaseError
from device_farm.fleet.adb_phones import AdbPhones
from device_farm.fleet.config import SENTINEL, FarmConfig
from device_farm.fleet.devices import DeviceSpec, LocalDevice
from device_farm.fleet.farm import Farm, FarmDevice, PhoneHost
from device_farm.fleet.journal import JOURNAL_NAME
from npas_ray import config
from npas_ray.config.admission import AdmissionConfig
from npas_ray.config.farms import CoreOfNode, FarmConfigFile, PhonesOfServer
from npas_ray.config.models import MeasurementConfig
from npas_ray.config.words import did_you_mean, printable, shown
from npas_ray.errors import ConfigError, InfrastructureError
from npas_ray.runs.ray_session import NAMESPACE, clusters_here, ray_session
from npas_ray.runs.setting import cache_dir

_LOOK_EVERY_S = 0.2


# Finding one


@contextmanager
def connected(address: str, name: str, *, client: str = "") -> Iterator[Farm]:
    """The farm of this name on the cluster at `address`, for the length of the with statement.

    Raises InfrastructureError: no such cluster, or no such farm on it; says which there are.
    """
    with ray_session(address, num_cpus=0):
        yield find_farm(name, address=address, client=client)


def find_farm(name: str, *, address: str, client: str = "") -> Farm:
    """On the cluster that this process is connected to. Raises InfrastructureError."""
    try:
        return Farm.connect(name, namespace=NAMESPACE, client=client)
    except LeaseError:
        there = farms_here()
        farms = f"its farms are {', '.join(map(printable, there))}" if there else "it has no farm"
        hint = did_you_mean(name, there)
        raise InfrastructureError(
            f"no farm {shown(name)} runs on the Ray cluster at {where(address)}: {farms}{hint or '.'}"
            f"{_other_clusters()} `npas farm start FARM.yaml` starts one"
        ) from None


def farms_here() -> list[str]:
    """Names of the farms on the cluster that this process is connected to."""
    named = list_named_actors(all_namespaces=True)
    actors = [str(actor["name"]) for actor in named if actor["namespace"] == NAMESPACE]
    return sorted(name for name in actors if not name.startswith("trainer-"))


def where(address: str) -> str:
    """The cluster that this process is connected to, as an address that others can use."""
    with suppress(Exception):  # a client by ray:// does not tell
        return str(ray.get_runtime_context().gcs_address)
    return address


def _other_clusters() -> str:
    """A sentence for whoever was sent to another cluster than they meant."""
    others = [address for address in clusters_here() if address != where("")]
    if not others:
        return ""
    return f" This machine runs other Ray clusters, too: {', '.join(others)}; name the right one (address)."


# Starting one


def farm_config(file: FarmConfigFile) -> FarmConfig:
    """What the farm's actor is made of."""
    phones = [device for device in file.devices if isinstance(device, PhonesOfServer)]
    cores = [device for device in file.devices if isinstance(device, CoreOfNode)]
    workers = file.compilation.workers
    return FarmConfig(
        devices=tuple(map(_spec, cores)),
        hosts=tuple(PhoneHost(_phones(device), resource=device.host) for device in phones),
        journal=journal_of(file),
        sentinel=SENTINEL if phones else None,
        rules=file.measurement.rules() if phones else None,
        cache_dir=cache_dir(),
        compile_workers=1 if workers == "auto" else workers,
        protocol=file.measurement.protocol(),
        name=file.name,
        namespace=NAMESPACE,
    )


def journal_of(file: FarmConfigFile) -> Path:
    """Where what it measured is kept, also between its lives."""
    if file.journal is not None:
        return Path(file.journal).expanduser().absolute() / JOURNAL_NAME
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    return state / "npas" / "farms" / file.name / JOURNAL_NAME


def _spec(core: CoreOfNode) -> DeviceSpec:
    cpus = tuple(range(core.cpu, core.cpu + core.threads)) if core.threads > 1 else ()
    return LocalDevice(
        cpu=core.cpu, model=core.model, num_cpus=0, precision=core.precision, threads=core.threads, cpus=cpus
    )


def _phones(phones: PhonesOfServer) -> AdbPhones:
    named = phones.model is not None and phones.serials is not None
    return AdbPhones(
        server=phones.server,
        only=phones.serials,
        models=tuple((serial, str(phones.model)) for serial in phones.serials or ()) if named else (),
        cpu=None if phones.cpu == "auto" else int(phones.cpu),
        threads=phones.threads,
        precision=phones.precision,
    )


def wait_for_devices(farm: Farm, *, timeout_s: float) -> list[FarmDevice]:
    """All devices, when each was reached or has said why not; what there is by then after the timeout."""
    until = time.monotonic() + timeout_s
    quiet_since = time.monotonic()
    known: Sequence[str] = ()
    while True:
        devices = farm.devices()
        serials = [device.serial for device in devices]
        if serials != known:  # hosts are still telling what they have
            known, quiet_since = serials, time.monotonic()
        settled = devices and all(device.state.is_present or device.reason for device in devices)
        if (settled and time.monotonic() - quiet_since > 2.0) or time.monotonic() > until:
            return devices
        time.sleep(_LOOK_EVERY_S)


# Searching on one


def settled_by_farm(search: config.SearchConfig) -> config.SearchConfig:
    """The search with what its farm decides filled in: targets, and how a latency is taken.

    Raises InfrastructureError (cluster, farm, a device that is not reached), ConfigError (a model that the farm lacks,
    a measurement that the search wants otherwise).
    """
    assert search.farm is not None
    with connected(search.cluster.address, search.farm) as farm:
        devices = farm.devices()
        terms = farm.config()
    return search.model_copy(
        update={"devices": _with_targets(search, devices), "measurement": _measured_by(search, terms)}
    )


def _with_targets(search: config.SearchConfig, devices: Sequence[FarmDevice]) -> tuple[config.FarmDevice, ...]:
    settled = []
    targets = {device.facts.model: device.facts.target for device in devices if device.facts is not None}
    for index, wanted in enumerate(search.devices):
        assert isinstance(wanted, config.FarmDevice)
        place = f"devices[{index}]"
        target = targets.get(wanted.model)
        if target is None:
            there = f"it has {models_of(devices) or 'none'}{did_you_mean(wanted.model, targets)}"
            waiting = [device for device in devices if device.facts is None]
            if not waiting:
                raise ConfigError(f"{place}.model: the farm {wanted.farm!r} has no {shown(wanted.model)}: {there}")
            why = "; ".join(f"{device.serial}: {device.reason or 'not reached yet'}" for device in waiting[:3])
            raise InfrastructureError(
                f"{place}.model: the farm {wanted.farm!r} has no {shown(wanted.model)} yet: {there};"
                f" {len(waiting)} devices were not reached ({why}); `npas farm status {wanted.farm}` says more"
            )
        if wanted.target not in ("auto", target):
            raise ConfigError(
                f"{place}.target: the farm {wanted.farm!r} compiles for {target} there; got {wanted.target!r}."
                " Leave it out"
            )
        settled.append(wanted.model_copy(update={"target": target}))
    return tuple(settled)


def models_of(devices: Sequence[FarmDevice]) -> str:
    """3 of 'Pixel 8', 1 of 'local'"""
    counts = Counter(device.facts.model for device in devices if device.facts is not None)
    return ", ".join(f"{count} of {shown(model)}" for model, count in sorted(counts.items()))


def _measured_by(search: config.SearchConfig, terms: FarmConfig) -> MeasurementConfig:
    """As the farm measures. Raises ConfigError where the search says otherwise."""
    names = set(MeasurementConfig.model_fields) - {"admission", "finalists"}
    protocol = {name: getattr(terms.protocol, name) for name in names}
    of_farm = search.measurement.model_copy(update=protocol | {"admission": AdmissionConfig.of(terms.rules)})
    problems = []
    for name in sorted(search.measurement.model_fields_set - {"finalists"}):
        asked, farms = getattr(search.measurement, name), getattr(of_farm, name)
        if asked != farms:
            problems.append(
                f"measurement.{name}: the farm {search.farm!r} measures with {_told(farms)}; got {_told(asked)}"
            )
    if problems:
        raise ConfigError("\n".join(f"{problem}. Leave it out, or take another farm" for problem in problems))
    return of_farm


def _told(value: Any) -> str:
    return "other rules" if isinstance(value, AdmissionConfig) else shown(value)
