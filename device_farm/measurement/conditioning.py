"""What changed on a device while it was measured. Pure: two snapshots and a report's own clocks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from device_farm.measurement.admission import AdmissionRules
from device_farm.measurement.types import DeviceConditions, Measurement


def changed(before: DeviceConditions, after: DeviceConditions) -> str | None:
    """What became of the device between two moments that makes a session between them worthless; None: nothing."""
    if (after.thermal_status or 0) > (before.thermal_status or 0):
        return f"its thermal status rose from {before.thermal_status or 0} to {after.thermal_status}"
    if None not in (before.screen_on, after.screen_on) and before.screen_on != after.screen_on:
        return f"its screen went {'on' if after.screen_on else 'off'}: somebody uses it"
    return None


def shared(measurement: Measurement, rules: AdmissionRules) -> str | None:
    """Whether something else had a part of the core all the time; None: it had not, or nobody minds."""
    if not rules.need_quiet or measurement.conditions.get("quiet", True):
        return None
    return "something shared its core all the time"


def clock_changed(measurement: Measurement, rules: AdmissionRules) -> str | None:
    """Whether the measuring cores' clock fell, or rose, within the session; None: it did not.

    The runner reads both ends under load: what cpufreq says, and `spin_ns`, the time of a fixed chain of instructions,
    which is the clock also where cpufreq cannot be read, or lies.
    """
    ends = [measurement.conditions.get(end) for end in ("before", "after")]
    if not all(isinstance(end, Mapping) for end in ends):
        return None
    before, after = ends
    for what, ratio in _clock_ratios(before, after, measurement.conditions):
        if abs(ratio - 1) > rules.max_clock_change:
            word = "fell" if ratio < 1 else "rose"
            return f"{what} {word} by {abs(ratio - 1):.1%} (at most {rules.max_clock_change:.1%} is allowed)"
    return None


def clock_between(measurement: Measurement, reading: Measurement, rules: AdmissionRules) -> str | None:
    """Whether the clock of a session was another than that of a sentinel's reading beside it; None: it was not.

    It finds what begins after one reading and is over before the next.
    """
    beside, within = best_spin_ns(reading), best_spin_ns(measurement)
    if not beside or not within:
        return None
    ratio = beside / within
    if abs(ratio - 1) <= rules.max_clock_change:
        return None
    word = "slower" if ratio < 1 else "faster"
    return f"the core's clock was {abs(ratio - 1):.1%} {word} than beside it (at most {rules.max_clock_change:.1%})"


def _clock_ratios(before: Any, after: Any, conditions: Mapping[str, Any]) -> list[tuple[str, float]]:
    """(what, later clock / earlier clock) of each clock that both ends tell."""
    ratios: list[tuple[str, float]] = []
    if before.get("spin_ns") and after.get("spin_ns"):
        ratios.append(("the core's clock", before["spin_ns"] / after["spin_ns"]))
    obtained = conditions.get("affinity", {}).get("obtained", [])
    asked = conditions.get("affinity", {}).get("asked")
    if asked is not None:  # else it ran on any of many cores, most of them idle
        for cpu in map(str, obtained):
            khz = before.get("cpu_khz", {}).get(cpu), after.get("cpu_khz", {}).get(cpu)
            if all(khz):
                ratios.append((f"the frequency of core {cpu}", khz[1] / khz[0]))
    return ratios


def best_spin_ns(measurement: Measurement) -> float | None:
    """The core's clock in a session, as the time of a fixed chain of instructions; None if it does not tell."""
    spins = [(measurement.conditions.get(end) or {}).get("spin_ns") for end in ("before", "after")]
    found = [float(spin) for spin in spins if spin]
    return min(found) if found else None
