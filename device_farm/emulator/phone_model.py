"""What there is to know of a model of phone: plain data."""

from __future__ import annotations

import functools
from dataclasses import dataclass


@dataclass(frozen=True)
class Cluster:
    """Cores of one kind. `macs_per_cycle` is what one of them does of a dense convolution, fp32."""

    cores: tuple[int, ...]
    khz: tuple[int, ...]  # steps of the clock, the lowest first
    macs_per_cycle: float
    step_cycles: float = 4000.0  # that each step of a network costs beside its multiplications
    part: int = 0  # of Arm's, as /proc/cpuinfo calls it

    @property
    def max_khz(self) -> int:
        return self.khz[-1]

    def step(self, factor: float) -> int:
        """The highest step that `factor` of the highest clock allows."""
        return max((khz for khz in self.khz if khz <= factor * self.max_khz * 1.001), default=self.khz[0])


@dataclass(frozen=True)
class Thermal:
    """One mass that running heats and the air cools: dT/dt = (ambient + heat_c * load - T) / tau_s."""

    ambient_c: float = 28.0
    heat_c: float = 10.0  # how much warmer each busy big core makes it in the end
    tau_s: float = 90.0
    throttle_c: tuple[float, ...] = (46.0, 50.0, 55.0, 60.0)  # each takes one more step off the clock
    steps: tuple[float, ...] = (1.0, 0.85, 0.7, 0.55, 0.4)  # of the highest clock, after so many


@dataclass(frozen=True)
class PhoneModel:
    """A kind of phone. Everything that its files, properties and times follow from."""

    name: str
    manufacturer: str
    soc: str
    abi: str  # "arm64-v8a" or "x86_64"
    android: str
    sdk: int
    kernel: str
    clusters: tuple[Cluster, ...]
    features: tuple[str, ...]  # of /proc/cpuinfo; on x86-64 what may be left of the host's own
    memory_mib: int
    thermal: Thermal = Thermal()
    spread: float = 0.008  # between phones of the model, standard deviation of the speed
    session_spread: float = 0.003  # between sessions of one phone
    sample_spread: float = 0.004  # between samples of one session

    @property
    def cores(self) -> int:
        return sum(len(cluster.cores) for cluster in self.clusters)

    @property
    def machine(self) -> str:
        return "x86_64" if self.abi == "x86_64" else "aarch64"

    @property
    def big_core(self) -> int:
        """Where the system puts a busy program."""
        return max(self.clusters, key=lambda cluster: cluster.max_khz).cores[0]

    def clocks(self, factor: float) -> tuple[int, ...]:
        """Of each core, in kHz, where `factor` of the highest clocks is allowed."""
        return _clocks(self.clusters, factor)

    def cluster_of(self, core: int) -> Cluster:
        """The biggest one for a core that is not there."""
        biggest = max(self.clusters, key=lambda cluster: cluster.max_khz)
        return next((cluster for cluster in self.clusters if core in cluster.cores), biggest)


@functools.lru_cache(maxsize=1024)
def _clocks(clusters: tuple[Cluster, ...], factor: float) -> tuple[int, ...]:
    return tuple(khz for cluster in clusters for khz in [cluster.step(factor)] * len(cluster.cores))
