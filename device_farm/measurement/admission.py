"""May this device measure now? Rules over its conditions; no device, no clock in here.

Defaults follow two practices, and where neither has a number, physics; docs/measurement.md has each with its source.

    androidx   androidx.benchmark: no thermal status above "none", a battery of 25 % at least, 90 s to cool
    mlperf     MLPerf Mobile, run conditions: a room of 20 to 25 degrees C, ten minutes between runs, no other load
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, fields
from fnmatch import fnmatch

from device_farm.errors import Unfit
from device_farm.measurement.types import DeviceConditions

THERMAL_STATUS = ("none", "light", "moderate", "severe", "critical", "emergency", "shutdown")  # as Android counts

# Zones that are no temperatures: battery current, voltage and level, and trip points of Qualcomm's limits hardware.
NO_TEMPERATURES = ("*ibat*", "*vbat*", "*bcl*", "soc", "*lmh*", "*-step", "*lowf*", "*virt*trip*")

_POSSIBLE_C = (-20.0, 150.0)

_PATIENCE = ("ambient_c", "cool_s", "max_cool_s", "zone_cooling_s", "battery_cooling_s", "charge_per_hour")


@dataclass(frozen=True)
class AdmissionRules:
    """Limits beyond which a device does not measure. None switches a rule off; what a device does not tell passes.

    Raises ValueError for limits that no device could keep.
    """

    max_thermal_status: int | None = 0  # androidx: even "light" changed its times by 30 %
    max_temperature_c: float | None = 60.0  # of the hottest zone, before a session
    max_battery_temperature_c: float | None = 40.0  # the phone's body: it throttles by skin temperature
    min_battery_level: float | None = 0.25  # androidx: below, phones switch big cores off, also when plugged in
    charging: bool | None = None  # mlperf: False. A phone on USB charges, so both are admitted
    screen_on: bool | None = None  # it must not change during a session, whichever it is
    max_load_1min: float | None = None  # Android counts sleeping drivers as load: 5 to 15 on idle phones
    ignored_zones: tuple[str, ...] = NO_TEMPERATURES  # patterns of names, in lower case
    need_quiet: bool = True  # a session in which something shared the core all the time is measured again
    max_clock_change: float = 0.03  # of the measuring core within a session, by its own clock; more is measured again

    ambient_c: float = 25.0  # mlperf: 20 to 25
    cool_s: float = 90.0  # androidx: after a thermal status, or when the clock fell
    max_cool_s: float = 600.0  # mlperf: ten minutes between runs
    zone_cooling_s: float = 60.0  # time constant of a chip's zone
    battery_cooling_s: float = 600.0  # time constant of a phone's body
    charge_per_hour: float = 0.15  # of the whole battery, from a USB 2 port

    def __post_init__(self) -> None:
        for name in ("cool_s", "max_cool_s", "zone_cooling_s", "battery_cooling_s", "charge_per_hour"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        for name in ("max_temperature_c", "max_battery_temperature_c"):
            limit = getattr(self, name)
            if limit is not None and limit <= self.ambient_c:
                raise ValueError(
                    f"{name} must be above ambient_c ({self.ambient_c:g}), got {limit}: no device cools below"
                )
        if self.min_battery_level is not None and not 0 <= self.min_battery_level <= 1:
            raise ValueError(f"min_battery_level must lie in 0..1, got {self.min_battery_level}")
        if not self.max_clock_change > 0:
            raise ValueError(f"max_clock_change must be above 0, got {self.max_clock_change}")

    @property
    def key(self) -> str:
        """Of what may change a latency; how long a device rests does not. "rules" for the defaults, as ever."""
        changed = {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if field.name not in _PATIENCE and getattr(self, field.name) != field.default
        }
        return "rules" + (f"-{hashlib.sha256(repr(changed).encode()).hexdigest()[:12]}" if changed else "")

    def hottest(self, conditions: DeviceConditions) -> tuple[str, float] | None:
        """Name and temperature of the hottest zone that is one."""
        zones = [
            (name, celsius)
            for name, celsius in conditions.temperature_c.items()
            if _POSSIBLE_C[0] < celsius < _POSSIBLE_C[1]
            and not any(fnmatch(name.lower(), pattern) for pattern in self.ignored_zones)
        ]
        return max(zones, key=lambda zone: zone[1], default=None)

    def _until_cool_s(self, celsius: float, limit_c: float, time_constant_s: float) -> float:
        """Newton's law of cooling, to a little below the limit."""
        target_c = limit_c - 0.1 * (limit_c - self.ambient_c)
        wait_s = time_constant_s * math.log((celsius - self.ambient_c) / (target_c - self.ambient_c))
        return min(max(wait_s, 1.0), self.max_cool_s)


@dataclass(frozen=True)
class _Objection:
    reason: str
    wait_s: float


def admit(conditions: DeviceConditions, rules: AdmissionRules, *, cpus: tuple[int, ...] = ()) -> Unfit | None:
    """None if the device may measure; else all that speaks against it, and when it is worth looking again.

    `cpus` are the cores that measurements pin themselves to: one that is missing among the clocks is switched off.
    """
    objections = [
        objection
        for objection in (
            _thermal_status(conditions, rules),
            _zone(conditions, rules),
            _battery_temperature(conditions, rules),
            _battery_level(conditions, rules),
            _switch(conditions.charging, rules.charging, ("it charges", "it is not on a charger"), rules),
            _switch(conditions.screen_on, rules.screen_on, ("its screen is on", "its screen is off"), rules),
            _load(conditions, rules),
            _cores(conditions, rules, cpus),
        )
        if objection is not None
    ]
    if not objections:
        return None
    return Unfit(
        "; ".join(objection.reason for objection in objections),
        retry_after_s=max(objection.wait_s for objection in objections),
    )


def _thermal_status(conditions: DeviceConditions, rules: AdmissionRules) -> _Objection | None:
    status, limit = conditions.thermal_status, rules.max_thermal_status
    if status is None or limit is None or status <= limit:
        return None
    # Each step up the ladder is several degrees of the whole body.
    return _Objection(
        f"thermal status {_status(status)}, at most {_status(limit)} is allowed",
        min(rules.cool_s * (status - limit), rules.max_cool_s),
    )


def _zone(conditions: DeviceConditions, rules: AdmissionRules) -> _Objection | None:
    hottest, limit = rules.hottest(conditions), rules.max_temperature_c
    if hottest is None or limit is None or hottest[1] <= limit:
        return None
    wait_s = rules._until_cool_s(hottest[1], limit, rules.zone_cooling_s)
    return _Objection(f"{hottest[0]} has {hottest[1]:.1f} C, at most {limit:g} C is allowed", wait_s)


def _battery_temperature(conditions: DeviceConditions, rules: AdmissionRules) -> _Objection | None:
    celsius, limit = conditions.battery_temperature_c, rules.max_battery_temperature_c
    if celsius is None or limit is None or celsius <= limit:
        return None
    wait_s = rules._until_cool_s(celsius, limit, rules.battery_cooling_s)
    return _Objection(f"the battery has {celsius:.1f} C, at most {limit:g} C is allowed", wait_s)


def _battery_level(conditions: DeviceConditions, rules: AdmissionRules) -> _Objection | None:
    level, limit = conditions.battery_level, rules.min_battery_level
    if level is None or limit is None or level >= limit:
        return None
    reason = f"the battery holds {100 * level:.0f} %, at least {100 * limit:.0f} % is needed"
    if conditions.charging is False:
        return _Objection(f"{reason}: connect a charger", rules.max_cool_s)
    wait_s = 3600 * (limit - level) / rules.charge_per_hour
    return _Objection(reason, min(max(wait_s, 60.0), rules.max_cool_s))


def _switch(
    is_on: bool | None, must_be: bool | None, words: tuple[str, str], rules: AdmissionRules
) -> _Objection | None:
    if is_on is None or must_be is None or is_on == must_be:
        return None
    return _Objection(f"{words[not is_on]}, and the rules want the opposite", rules.cool_s)


def _load(conditions: DeviceConditions, rules: AdmissionRules) -> _Objection | None:
    load, limit = conditions.load_1min, rules.max_load_1min
    if load is None or limit is None or load <= limit:
        return None
    return _Objection(f"its load is {load:.1f}, at most {limit:g} is allowed", min(60.0, rules.max_cool_s))


def _cores(conditions: DeviceConditions, rules: AdmissionRules, cpus: tuple[int, ...]) -> _Objection | None:
    if not conditions.cpu_khz or not (missing := [cpu for cpu in cpus if cpu not in conditions.cpu_khz]):
        return None
    return _Objection(f"core {', '.join(map(str, missing))} is switched off", rules.cool_s)


def _status(status: int) -> str:
    name = THERMAL_STATUS[status] if 0 <= status < len(THERMAL_STATUS) else "unknown"
    return f"{status} ({name})"
