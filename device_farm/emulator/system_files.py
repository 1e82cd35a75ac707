"""/proc and /sys of a phone."""

from __future__ import annotations

import functools
import posixpath
import re
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from device_farm.emulator import system
from device_farm.emulator.phone_model import PhoneModel
from device_farm.emulator.processes import Process

if TYPE_CHECKING:
    from device_farm.emulator.phone import Phone

_PROCESS = re.compile(r"/proc/([0-9]{1,9})(?:/(.*))?")
_PROCESS_FILES = ("cmdline", "comm", "environ", "status")


class SystemFiles:
    """See files.VirtualFiles."""

    def __init__(self, phone: Phone) -> None:
        self._processes = phone.processes
        self._files = _fixed_files(phone)
        self._folders: dict[str, set[str]] = defaultdict(set)
        for path in self._files:
            while path != "/":
                folder, name = posixpath.split(path)
                self._folders[folder].add(name)
                path = folder

    def find(self, path: str) -> Callable[[], bytes] | None:
        """What gives the content of a file."""
        match = _PROCESS.fullmatch(path)
        if match is None:
            return self._files.get(path)
        process = self._processes.find(int(match[1]))
        if process is None or match[2] not in _PROCESS_FILES:
            return None
        return functools.partial(_process_file, process, match[2])

    def names(self, path: str) -> set[str]:
        """Of files and folders in a folder."""
        if path == "/proc":
            return self._folders[path] | {str(process.pid) for process in self._processes.discover()}
        match = _PROCESS.fullmatch(path)
        if match is not None and match[2] is None and self._processes.find(int(match[1])) is not None:
            return set(_PROCESS_FILES)
        return set(self._folders.get(path, ()))


def _process_file(process: Process, name: str) -> bytes:
    if name == "cmdline":
        text = "".join(f"{argument}\0" for argument in process.arguments)
    elif name == "environ":
        text = "".join(f"{key}={value}\0" for key, value in process.environment.items())
    elif name == "comm":
        text = posixpath.basename(process.name)[:15] + "\n"
    else:
        text = f"Name:\t{posixpath.basename(process.name)[:15]}\nPid:\t{process.pid}\nUid:\t2000\t2000\t2000\t2000\n"
    return text.encode(errors="surrogateescape")


def _fixed_files(phone: Phone) -> dict[str, Callable[[], bytes]]:
    model = phone.model
    files: dict[str, Callable[[], bytes]] = {
        "/proc/cpuinfo": lambda: cpuinfo(model).encode(),
        "/proc/meminfo": lambda: _meminfo(model),
        "/proc/loadavg": lambda: f"{phone.load():.2f} 0.10 0.10 1/900 3000\n".encode(),
        "/proc/uptime": lambda: f"{phone.uptime_s():.2f} 0.00\n".encode(),
        "/proc/self/status": lambda: f"Name:\tsh\nCpus_allowed_list:\t0-{model.cores - 1}\n".encode(),
        "/proc/version": lambda: f"Linux version {model.kernel} (emulated by npas)\n".encode(),
        "/proc/sys/kernel/random/boot_id": lambda: f"{phone.boot_id}\n".encode(),
        "/system/build.prop": lambda: "".join(f"{k}={v}\n" for k, v in system.properties(phone).items()).encode(),
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
    for number, name in enumerate(system.ZONES):
        base = f"/sys/class/thermal/thermal_zone{number}"
        files[f"{base}/type"] = functools.partial(_line, name)
        files[f"{base}/temp"] = functools.partial(_millicelsius, phone, number)
    files["/sys/class/power_supply/battery/capacity"] = lambda: f"{phone.battery.level_percent}\n".encode()
    files["/sys/class/power_supply/battery/temp"] = lambda: f"{round(phone.warmth().battery_c * 10)}\n".encode()
    files["/sys/class/power_supply/battery/status"] = lambda: f"{system.battery_words(phone)}\n".encode()
    return files


def _khz(phone: Phone, core: int) -> bytes:
    return _line(phone.cpu_khz(core))


def _millicelsius(phone: Phone, zone: int) -> bytes:
    return _line(round(system.zone_c(phone.warmth())[zone] * 1000))


def _line(value: object) -> bytes:
    return f"{value}\n".encode()


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
