"""The conditions of a Linux machine, from /proc and /sys."""

from __future__ import annotations

from pathlib import Path

from device_farm.measurement.types import DeviceConditions


def read_conditions(root: Path = Path("/")) -> DeviceConditions:
    """What the machine below `root` tells of itself; whatever cannot be read is left out."""
    cpu_khz: dict[int, int] = {}
    for path in (root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_cur_freq"):
        frequency = _number(path)
        if frequency is not None:
            cpu_khz[int(path.parts[-3].removeprefix("cpu"))] = frequency
    temperature_c: dict[str, float] = {}
    for zone in sorted((root / "sys/class/thermal").glob("thermal_zone*")):
        millicelsius, name = _number(zone / "temp"), _text(zone / "type")
        if millicelsius is not None and name:
            temperature_c.setdefault(name, millicelsius / 1000)
    load = _text(root / "proc/loadavg").split()
    return DeviceConditions(
        cpu_khz=dict(sorted(cpu_khz.items())),
        temperature_c=temperature_c,
        load_1min=float(load[0]) if load else None,
    )


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    try:
        return int(_text(path))
    except ValueError:
        return None
