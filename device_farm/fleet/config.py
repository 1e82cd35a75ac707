"""What a farm is made of."""

from __future__ import annotations

import importlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from device_farm.fleet.devices import DeviceSpec
from device_farm.fleet.host_watcher import PhoneHost
from device_farm.fleet.words import Policy
from device_farm.measurement.admission import AdmissionRules
from device_farm.measurement.types import Protocol

SENTINEL = "device_farm.measurement.sentinel:sentinel_graph"


@dataclass(frozen=True)
class FarmConfig:
    """A farm: its devices, its compilers, how it measures, how patient it is. Raises ValueError.

    `devices` are there from the start; more come and go by `Farm.attach` and `detach`, and as `hosts` list them.
    `journal` is a file on a local disk of the broker's node: a farm that is started with the journal of an earlier one
    answers from it what that one measured. None keeps a journal for as long as this farm lives: the broker may die
    and come back, and the next farm begins with nothing.
    What a client asked for that has died is dropped after `grace_s`.
    `cache_dir` is a path on every node (it need not be shared): compiled kernels and what is being worked on.
    `lease_timeout_s` must exceed the longest measurement that the protocol allows, `protocol.deadline_s`: it is there
    for the device that hangs in spite of every deadline below it. None leaves 15 s for transfer and start.
    `sentinel` names, as "module:name", what makes the network that runs beside every measurement (SENTINEL is the usual
    one), and `rules` say when a device may measure; without them a latency is believed as it is. `compile_with` names
    what compile actors call; `measure_with` a class that is made on a device's transport and measures there.
    """

    devices: tuple[DeviceSpec, ...]
    cache_dir: Path
    hosts: tuple[PhoneHost, ...] = ()
    journal: Path | None = None
    grace_s: float = 30.0
    compile_workers: int = 1
    compile_cpus: float = 0.0  # set aside in Ray for each
    compile_timeout_s: float = 300.0
    protocol: Protocol = field(default_factory=Protocol)
    lease_timeout_s: float | None = None
    start_timeout_s: float = 60.0
    connect_timeout_s: float = 60.0  # for a device's actor to start and reach it; longer is tried anew
    sentinel: str | None = None
    rules: AdmissionRules | None = None
    policy: Policy = field(default_factory=Policy)  # of the devices; its lease_s is lease_timeout_s
    name: str = "farm"
    namespace: str = "npas"
    compile_with: str = "device_farm.compiler.compile:compile_network"
    measure_with: str = "device_farm.measurement.session:Meter"

    def __post_init__(self) -> None:
        if not self.devices and not self.hosts:
            raise ValueError("a farm needs at least one device, or a host that lists some")
        twice = [serial for serial, count in Counter(d.serial for d in self.devices).items() if count > 1]
        if twice:
            raise ValueError(f"two devices are called {twice[0]!r}; give one of them another name")
        if not self.connect_timeout_s > 0:
            raise ValueError(f"connect_timeout_s must be above 0 seconds, got {self.connect_timeout_s}")
        if self.compile_workers < 1:
            raise ValueError(f"compile_workers must be at least 1, got {self.compile_workers}")
        if self.lease_timeout_s is not None and self.lease_timeout_s <= self.protocol.deadline_s:
            raise ValueError(
                f"lease_timeout_s ({self.lease_timeout_s:g}) must exceed protocol.deadline_s "
                f"({self.protocol.deadline_s:g}): else leases expire under measurements that are well"
            )

    @property
    def protocol_key(self) -> str:
        """Of all that decides how a latency is taken: with a sentinel it is another than without."""
        parts = ["sentinel"] * (self.sentinel is not None)
        parts += [] if self.rules is None else [self.rules.key]
        return "+".join([self.protocol.key, *parts])

    @property
    def lease_s(self) -> float:
        return self.protocol.deadline_s + 15.0 if self.lease_timeout_s is None else self.lease_timeout_s


def imported(name: str) -> Any:
    """The object that "module:name" names. Raises ImportError."""
    module, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except AttributeError as error:
        raise ImportError(f"{module} has no {attribute!r}") from error
