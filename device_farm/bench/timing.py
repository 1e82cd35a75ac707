"""Compiles the variants and times them in turns on one device, with the measurement that searches use."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from device_farm.bench.variants import Variant
from device_farm.compiler import Artifact, Target, compile_network
from device_farm.compiler.peak import compile_peak
from device_farm.errors import FarmError, Unstable
from device_farm.files import write_atomically
from device_farm.measurement.session import Meter, remote_name
from device_farm.measurement.types import DeviceFacts, Measurement, Protocol
from device_farm.transport.base import Transport

ROUNDS = 3
_SECOND_CHANCES = 3  # rounds for what was unstable in all others; their intervals may be as wide as they are
Tell = Callable[[str], None]
_PEAKS = "peaks.json"


@dataclass(frozen=True)
class Timed:
    """A variant with its measurements, one a round, each beside those of the other variants.

    A round may lack one (None): its samples varied too much to be believed. Some round has one.
    """

    variant: Variant
    rounds: tuple[Measurement | None, ...]

    @property
    def measurements(self) -> tuple[Measurement, ...]:
        return tuple(measurement for measurement in self.rounds if measurement is not None)

    @property
    def best(self) -> Measurement:
        """The fastest: whatever disturbs a round makes it slower, and a quiet core may still share its caches."""
        return min(self.measurements, key=lambda m: m.latency_ms)

    @property
    def steps_ms(self) -> tuple[tuple[str, float], ...]:
        """Every layer's time in the round that disturbed it least."""
        by_name: dict[str, float] = {}
        for measurement in self.measurements:
            for name, ms in measurement.steps_ms:
                by_name[name] = min(ms, by_name.get(name, ms))
        return tuple(by_name.items())


@dataclass(frozen=True)
class Peak:
    """GFLOP/s of nothing but multiply-adds: now, and the most that was ever seen of this device and target."""

    now_gflops: float
    known_gflops: float

    @property
    def gflops(self) -> float:
        """What shares are taken of: a core that is disturbed now still has its peak."""
        return max(self.now_gflops, self.known_gflops)


@dataclass(frozen=True)
class Timings:
    device: DeviceFacts
    target: str
    peak: Peak
    timed: tuple[Timed, ...]


def time_variants(
    variants: Sequence[Variant],
    *,
    device: Transport,
    target: Target,
    work_dir: Path,
    cache_dir: Path,
    rounds: int = ROUNDS,
    protocol: Protocol | None = None,
    tell: Tell = lambda _: None,
) -> Timings:
    """Compiles every variant with seeded weights (the device makes them) and measures all of them `rounds` times.

    Every answer is compared with the host's reference. What is unstable in one round is left to the others. Raises
    FarmError as compile_network and Meter.measure do.
    """
    facts = device.facts()
    artifacts: list[Artifact] = []
    for index, variant in enumerate(variants):
        tell(f"compiling {variant.label} ({index + 1}/{len(variants)})")
        artifacts.append(
            compile_network(variant.graph, target=target, out_dir=work_dir, cache_dir=cache_dir, threads=facts.threads)
        )
    tell("compiling the kernel that measures the peak")
    peak_artifact = compile_peak(target, out_dir=work_dir, cache_dir=cache_dir)
    meter, strict = Meter(device), protocol or Protocol()
    lenient = dataclasses.replace(strict, max_relative_ci=1.0)
    taken: list[list[Measurement | None]] = [[] for _ in (*variants, peak_artifact)]
    everything = (*((variant.label, artifact) for variant, artifact in zip(variants, artifacts, strict=True)),
                  ("the peak of the core", peak_artifact))  # fmt: skip
    unstable: Unstable | None = None
    try:
        for turn in range(rounds + _SECOND_CHANCES):
            wanted = [index for index in _rotated(len(everything), turn) if turn < rounds or not any(taken[index])]
            for index in wanted:
                label, artifact = everything[index]
                tell(f"round {turn + 1}/{rounds}: {label}" if turn < rounds else f"again: {label}")
                measurement = None
                try:
                    measurement = meter.measure(artifact, strict if turn < rounds else lenient)
                except Unstable as error:
                    unstable = error
                taken[index].append(measurement)
    finally:
        for artifact in (*artifacts, peak_artifact):
            with contextlib.suppress(FarmError, OSError):  # a device that is gone keeps nothing for us
                device.remove(remote_name(artifact.path))
    if unstable is not None and not all(any(measurements) for measurements in taken):
        raise unstable
    *networks, peaks = taken
    now = max(2 * peak_artifact.macs / m.latency_ms / 1e6 for m in peaks if m is not None)
    timed = tuple(Timed(variant, tuple(ms)) for variant, ms in zip(variants, networks, strict=True))
    known = _best_known(cache_dir, facts, target, now)  # of one core, like `now`
    return Timings(facts, target.name, Peak(facts.threads * now, facts.threads * known), timed)


def _rotated(count: int, turn: int) -> list[int]:
    """0..count-1 beginning elsewhere every turn: nobody is always behind the same neighbour."""
    return [(index + turn) % count for index in range(count)]


def _best_known(cache_dir: Path, facts: DeviceFacts, target: Target, now_gflops: float) -> float:
    """The highest peak that was ever measured on this device, remembered in the cache."""
    path = cache_dir / _PEAKS
    key = " ".join([facts.serial, str(facts.details.get("processor", facts.model)), target.name])
    try:
        peaks = {str(name): float(value) for name, value in json.loads(path.read_text()).items()}
    except (OSError, ValueError, AttributeError, TypeError):
        peaks = {}
    if peaks.get(key, 0.0) < now_gflops:
        peaks[key] = now_gflops
        with contextlib.suppress(OSError):  # a cache that cannot be written costs the memory only
            write_atomically(path, json.dumps(peaks, indent=1).encode())
    return peaks[key]


def without_details(facts: DeviceFacts) -> DeviceFacts:
    """The facts without what every JSON would repeat."""
    return dataclasses.replace(facts, details={k: v for k, v in facts.details.items() if k != "features"})
