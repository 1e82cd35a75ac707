"""What is asked of a device and what it answers. A latency is never a bare float."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Protocol:
    """How a latency is taken. Part of a measurement's identity: another protocol is another measurement."""

    warmup_s: float = 0.05
    min_time_s: float = 0.2  # of quiet sampling, see docs/measurement.md
    max_time_s: float = 1.0  # of sampling in all, while the core is shared with something else
    min_samples: int = 20
    max_samples: int = 20_000
    max_relative_ci: float = 0.05  # half width of the samples' own interval / latency; wider is measured again
    attempts: int = 3
    require_quiet: bool = False  # refuse (Unstable) what was taken on a core that was shared all the time
    deadline_s: float = 60.0  # one whole session: push, run, pull; the sentinel's runs beside it included
    # With a sentinel (drift.py). They are in the key only where they are not what they were when keys had none.
    sentinel_every_s: float = 10.0  # so long a reading counts as taken before a session; after each there is one
    max_correction: float = 0.05  # a larger drift from the baseline is not corrected but refused
    max_unexplained: float = 0.01  # so is one that the clock does not explain, and a smaller one is left as it is
    max_drift: float = 0.10  # a larger one means that the device is not itself; also of a phone from its model

    @property
    def key(self) -> str:
        key = (
            f"{self.warmup_s}-{self.min_time_s}-{self.max_time_s}-{self.min_samples}-{self.max_samples}"
            f"-{self.max_relative_ci}-{self.require_quiet}"
        )
        drift = (self.max_correction, self.max_unexplained, self.max_drift)
        if drift != (Protocol.max_correction, Protocol.max_unexplained, Protocol.max_drift):
            key += "-drift" + "-".join(map(str, drift))
        return key


@dataclass(frozen=True)
class DeviceFacts:
    """What a transport found out about its device."""

    serial: str
    model: str
    target: str  # name of a compiler target
    emulated: bool = False
    cpu: int | None = None  # the core that measurements pin themselves to; None = wherever the kernel likes
    threads: int = 1  # that its latencies are of: artifacts are compiled for so many
    cpus: tuple[int, ...] = ()  # a core for each of several threads, the first one `cpu`; empty = as the kernel likes
    details: dict[str, Any] = field(default_factory=dict)  # SoC, cores, features, OS version


@dataclass(frozen=True)
class DeviceConditions:
    """How a device is at one moment. None or empty where it does not say."""

    cpu_khz: Mapping[int, int] = field(default_factory=dict)  # current frequency, by core
    temperature_c: Mapping[str, float] = field(default_factory=dict)  # by thermal zone
    thermal_status: int | None = None  # Android's: 0 none, 1 light, 2 moderate, 3 severe, ... 6 shutdown
    battery_level: float | None = None  # 0 to 1
    battery_temperature_c: float | None = None
    charging: bool | None = None
    screen_on: bool | None = None
    load_1min: float | None = None


@dataclass(frozen=True)
class Measurement:
    """A believed latency: the answer was right and the samples agree. All times in milliseconds."""

    artifact_key: str
    device: DeviceFacts
    protocol_key: str
    latency_ms: float  # the protocol's statistic of the samples
    ci_low_ms: float  # 95 % interval of it, between sessions
    ci_high_ms: float
    samples: int
    percentiles_ms: dict[str, float]  # p1, p10, p50, p90, p99
    max_relative_error: float  # of the output against the host's reference
    steps_ms: tuple[tuple[str, float], ...]  # profile: layer and its time
    conditions: dict[str, Any]  # affinity, frequency, thermal state before and after, load, time taken at, sentinel


@dataclass(frozen=True)
class LeftOut:
    """A measurement, or a whole phone, that an estimate does without, and why."""

    serial: str
    latency_ms: float
    reason: str


@dataclass(frozen=True)
class ReplicatedLatency:
    """A latency of one artifact, of several sessions and phones of one model. Made by replicates.py.

    Its `scope` is what the interval is of: of the model's mean phone ("model"), or of these phones only ("phones").
    """

    artifact_key: str
    model: str
    protocol_key: str
    latency_ms: float
    ci_low_ms: float  # 95 % interval
    ci_high_ms: float
    scope: str
    phones: int
    sessions: int  # on all of them
    between_sessions: float  # standard deviation of one phone's sessions / latency
    between_phones: float  # standard deviation of phones' means / latency
    assumed: tuple[str, ...] = ()  # of these two, which are experience rather than measured, as there was only one
    left_out: tuple[LeftOut, ...] = ()

    @property
    def half_width(self) -> float:
        """Of the interval, relative to the latency."""
        return (self.ci_high_ms - self.ci_low_ms) / 2 / self.latency_ms
