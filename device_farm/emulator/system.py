"""What a phone's system says of itself: properties, /proc, /sys, dumpsys."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from device_farm.emulator.phone_model import PhoneModel
from device_farm.emulator.thermal import ThermalState

if TYPE_CHECKING:
    from device_farm.emulator.phone import Phone


def properties(phone: Phone) -> dict[str, str]:
    """Those that `getprop` lists."""
    model = phone.model
    return {
        "ro.product.model": model.name,
        "ro.product.name": model.name,
        "ro.product.device": model.name,
        "ro.product.manufacturer": model.manufacturer,
        "ro.product.brand": model.manufacturer,
        "ro.product.cpu.abi": model.abi,
        "ro.product.cpu.abilist": model.abi,
        "ro.soc.model": model.soc,
        "ro.soc.manufacturer": model.manufacturer,
        "ro.hardware": model.soc.lower(),
        "ro.board.platform": model.soc.lower(),
        "ro.build.version.release": model.android,
        "ro.build.version.sdk": str(model.sdk),
        "ro.build.fingerprint": f"npas/{model.name}/{model.name}:{model.android}/EMULATED/1:user/release-keys",
        "ro.build.type": "user",
        "ro.serialno": phone.serial,
        "ro.boot.serialno": phone.serial,
        "ro.debuggable": "0",
        "ro.npas.emulated": "1",
        "sys.boot_completed": "1",
    }


def uname(model: PhoneModel) -> Mapping[str, str]:
    """By the letter of the option."""
    return {
        "s": "Linux",
        "n": "localhost",
        "r": model.kernel,
        "v": "#1 SMP PREEMPT",
        "m": model.machine,
        "o": "Android",
    }


def virtual_files(phone: Phone) -> Mapping[str, Callable[[], bytes]]:
    """Path to what it says at the moment."""
    model = phone.model
    files: dict[str, Callable[[], bytes]] = {
        "/proc/cpuinfo": lambda: cpuinfo(model).encode(),
        "/proc/meminfo": lambda: _meminfo(model),
        "/proc/loadavg": lambda: f"{phone.load():.2f} 0.10 0.10 1/900 3000\n".encode(),
        "/proc/uptime": lambda: f"{phone.uptime_s():.2f} 0.00\n".encode(),
        "/proc/version": lambda: f"Linux version {model.kernel} (emulated by npas)\n".encode(),
        "/proc/sys/kernel/random/boot_id": lambda: f"{phone.boot_id}\n".encode(),
        "/system/build.prop": lambda: "".join(f"{k}={v}\n" for k, v in properties(phone).items()).encode(),
    }
    for name in ("present", "possible", "online"):
        files[f"/sys/devices/system/cpu/{name}"] = lambda: f"0-{model.cores - 1}\n".encode()
    for cluster in model.clusters:
        for core in cluster.cores:
            base = f"/sys/devices/system/cpu/cpu{core}"
            fixed = {
                "online": "1",
                "cpufreq/cpuinfo_max_freq": cluster.max_khz,
                "cpufreq/cpuinfo_min_freq": cluster.khz[0],
                "cpufreq/scaling_min_freq": cluster.khz[0],
                "cpufreq/scaling_governor": "schedutil",
                "cpufreq/scaling_available_frequencies": " ".join(map(str, cluster.khz)),
                "cpufreq/related_cpus": " ".join(map(str, cluster.cores)),
                "cpufreq/affected_cpus": " ".join(map(str, cluster.cores)),
                "topology/physical_package_id": 0,
                "cpu_capacity": round(
                    1024
                    * cluster.max_khz
                    * cluster.macs_per_cycle
                    / max(c.max_khz * c.macs_per_cycle for c in model.clusters)
                ),
            }
            for name, value in fixed.items():
                files[f"{base}/{name}"] = functools.partial(_line, value)
            for name in ("scaling_max_freq", "scaling_cur_freq"):
                files[f"{base}/cpufreq/{name}"] = functools.partial(_khz, phone, core)
    for number, name in enumerate(_ZONES):
        base = f"/sys/class/thermal/thermal_zone{number}"
        files[f"{base}/type"] = functools.partial(_line, name)
        files[f"{base}/temp"] = functools.partial(_millicelsius, phone, number)
    files["/sys/class/power_supply/battery/capacity"] = lambda: f"{phone.battery.level_percent}\n".encode()
    files["/sys/class/power_supply/battery/temp"] = lambda: f"{round(phone.warmth().battery_c * 10)}\n".encode()
    files["/sys/class/power_supply/battery/status"] = lambda: f"{_battery_words(phone)}\n".encode()
    return files


def _khz(phone: Phone, core: int) -> bytes:
    return _line(phone.cpu_khz(core))


def _millicelsius(phone: Phone, zone: int) -> bytes:
    return _line(round(_zone_c(phone.warmth())[zone] * 1000))


def _line(value: object) -> bytes:
    return f"{value}\n".encode()


_ZONES = ("cpu-0-0", "cpu-1-0", "skin-therm", "battery")
_ZONE_KINDS = (0, 0, 3, 2)  # of Android's thermal service


def _zone_c(thermal: ThermalState) -> tuple[float, ...]:
    return (thermal.soc_c - 1.5, thermal.soc_c, thermal.skin_c, thermal.battery_c)


def thermal_millicelsius(thermal: ThermalState) -> list[list[str | int]]:
    """As the runner reports them."""
    return [[name, round(celsius * 1000)] for name, celsius in zip(_ZONES, _zone_c(thermal), strict=True)]


def _meminfo(model: PhoneModel) -> bytes:
    total = model.memory_mib * 1024
    return f"MemTotal:       {total} kB\nMemFree:        {total // 3} kB\nMemAvailable:   {total // 2} kB\n".encode()


def cpuinfo(model: PhoneModel) -> str:
    """Of an x86-64 model only what the host has, too: its programs run natively."""
    if model.abi == "x86_64":
        host = _host_flags()
        flags = " ".join(flag for flag in model.features if flag in host)
        block = (
            "processor\t: {core}\nvendor_id\t: npas\nmodel name\t: " + f"{model.soc} (emulated)\nflags\t\t: {flags}\n"
        )
        return "".join(block.format(core=core) + "\n" for core in range(model.cores))
    parts = {core: cluster.part for cluster in model.clusters for core in cluster.cores}
    features = " ".join(model.features)
    return (
        "".join(
            f"processor\t: {core}\nBogoMIPS\t: 38.40\nFeatures\t: {features}\nCPU implementer\t: 0x41\n"
            f"CPU architecture: 8\nCPU variant\t: 0x1\nCPU part\t: {parts[core]:#05x}\nCPU revision\t: 0\n\n"
            for core in range(model.cores)
        )
        + f"Hardware\t: {model.soc} (emulated)\n"
    )


@functools.cache
def _host_flags() -> frozenset[str]:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("flags"):
            return frozenset(line.partition(":")[2].split())
    return frozenset()


def dumpsys(phone: Phone, service: str) -> str | None:
    """None for a service that is not emulated."""
    if service == "battery":
        return _battery(phone)
    if service == "thermalservice":
        return _thermalservice(phone)
    if service == "power":
        state = "Awake" if phone.screen_on else "Asleep"
        return (
            f"POWER MANAGER (dumpsys power)\n\nPower Manager State:\n  mWakefulness={state}\n"
            f"  mIsPowered={str(phone.battery.charging).lower()}\n"
            f"Display Power: state={'ON' if phone.screen_on else 'OFF'}\n"
        )
    return None


def _battery_words(phone: Phone) -> str:
    return "Charging" if phone.battery.charging else "Discharging"


def _battery(phone: Phone) -> str:
    return (
        "Current Battery Service state:\n"
        "  AC powered: false\n"
        f"  USB powered: {str(phone.battery.charging).lower()}\n"
        "  Wireless powered: false\n"
        f"  status: {2 if phone.battery.charging else 3}\n"
        "  health: 2\n"
        "  present: true\n"
        f"  level: {phone.battery.level_percent}\n"
        "  scale: 100\n"
        "  voltage: 4100\n"
        f"  temperature: {round(phone.warmth().battery_c * 10)}\n"
        "  technology: Li-ion\n"
    )


def _thermalservice(phone: Phone) -> str:
    thermal = phone.warmth()
    readings = "".join(
        f"\tTemperature{{mValue={celsius:.1f}, mType={kind}, mName={name}, mStatus={thermal.status}}}\n"
        for name, celsius, kind in zip(_ZONES, _zone_c(thermal), _ZONE_KINDS, strict=True)
    )
    return (
        f"IsStatusOverride: false\nThermal Status: {thermal.status}\nCached temperatures:\n{readings}"
        f"HAL Ready: true\nCurrent temperatures from HAL:\n{readings}"
    )
