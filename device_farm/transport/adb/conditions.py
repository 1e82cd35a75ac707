"""A phone's words on its state -> DeviceConditions. Numbers that no phone can have are left out."""

from __future__ import annotations

import re
from collections.abc import Mapping

from device_farm.measurement.types import DeviceConditions
from device_farm.transport.adb.properties import clean

_MAX_ZONES = 256
_FREQUENCY = re.compile(r"/sys/devices/system/cpu/cpu([0-9]{1,4})/cpufreq/scaling_cur_freq ([0-9]{1,9})\s*")
_ZONE = re.compile(r"/sys/class/thermal/thermal_zone([0-9]{1,4})/(type|temp) (.*)")
_HAL_TEMPERATURE = re.compile(r"Temperature\{mValue=(-?[0-9.]+), mType=-?[0-9]+, mName=([^,}]+), mStatus=[0-9]+\}")
_LOAD = re.compile(r"/proc/loadavg ([0-9.]+) ")
_CHARGING = 2  # BatteryManager.BATTERY_STATUS_CHARGING


def make_conditions(parts: Mapping[str, str]) -> DeviceConditions:
    """From the answers to scripts.conditions."""
    values = parts.get("values", "")
    thermal = parts.get("thermal", "")
    battery = _fields(parts.get("battery", ""))
    load = _LOAD.search(values)
    level, scale = _number(battery.get("level")), _number(battery.get("scale")) or 100
    tenths = _number(battery.get("temperature"))
    return DeviceConditions(
        cpu_khz=parse_frequencies(values),
        temperature_c=parse_zones(values) or parse_hal_temperatures(thermal),
        thermal_status=parse_thermal_status(thermal),
        battery_level=None if level is None or not 0 <= level <= scale else level / scale,
        battery_temperature_c=None if tenths is None or not -600 < tenths < 1500 else tenths / 10,
        charging=_charging(battery),
        screen_on=parse_screen(parts.get("power", "")),
        load_1min=_load(load[1]) if load else None,
    )


def parse_frequencies(values: str) -> dict[int, int]:
    """kHz by core."""
    matches = (_FREQUENCY.fullmatch(line) for line in values.splitlines())
    found = {int(match[1]): int(match[2]) for match in matches if match is not None}
    return {core: khz for core, khz in sorted(found.items()) if khz > 0}


def parse_zones(values: str) -> dict[str, float]:
    """Degrees by zone. Some kernels tell degrees, some their tenths, most thousandths; of equal names the first."""
    types: dict[int, str] = {}
    degrees: dict[int, float] = {}
    for line in values.splitlines():
        match = _ZONE.fullmatch(line)
        if match is None:
            continue
        zone, value = int(match[1]), match[3].strip()
        if match[2] == "type":
            types[zone] = clean(value)
        elif re.fullmatch(r"-?[0-9]{1,7}", value):
            number = int(value)
            degrees[zone] = number if abs(number) < 150 else number / 10 if abs(number) < 1500 else number / 1000
    found: dict[str, float] = {}
    for zone in sorted(types.keys() & degrees.keys())[:_MAX_ZONES]:
        if -60 < degrees[zone] < 150:
            found.setdefault(types[zone], degrees[zone])
    return found


def parse_hal_temperatures(text: str) -> dict[str, float]:
    """`dumpsys thermalservice`, for phones that hide /sys/class/thermal: current ones, where it says which they are."""
    current = text.partition("Current temperatures from HAL:")[2] or text
    found: dict[str, float] = {}
    for value, name in _HAL_TEMPERATURE.findall(current)[:_MAX_ZONES]:
        celsius = _load(value)
        if celsius is not None and -60 < celsius < 150:
            found.setdefault(clean(name), celsius)
    return found


def parse_thermal_status(text: str) -> int | None:
    """`dumpsys thermalservice`: Android's status, 0 to 6."""
    match = re.search(r"Thermal Status: ([0-6])\s*$", text, re.MULTILINE)
    return int(match[1]) if match else None


def parse_screen(text: str) -> bool | None:
    """`dumpsys power`: whether the display is on; a phone that is awake shows something."""
    display = re.search(r"Display Power: state=(\w+)", text)
    if display:
        return display[1] not in ("OFF", "DOZE", "DOZE_SUSPEND")
    awake = re.search(r"mWakefulness=(\w+)", text)
    return awake[1] in ("Awake", "Dreaming") if awake else None


def _charging(battery: Mapping[str, str]) -> bool | None:
    status = _number(battery.get("status"))
    if status is not None:
        return status == _CHARGING
    powered = [battery[name] for name in battery if name.endswith(" powered")]
    return "true" in powered if powered else None


def _fields(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in text.splitlines():
        name, colon, value = line.partition(":")
        if colon:
            found.setdefault(name.strip(), value.strip())
    return found


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and re.fullmatch(r"-?[0-9]{1,9}", text) else None


def _load(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
