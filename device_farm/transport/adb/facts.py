"""A phone's own words -> DeviceFacts: its target, so that no artifact meets an instruction it lacks, and its cores."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

from device_farm.compiler.target import AVX2, AVX512, NEON, Precision, Target, at_precision
from device_farm.errors import CompileError, Refused
from device_farm.measurement.types import DeviceFacts
from device_farm.transport.adb.properties import clean, parse_cpu_features, parse_properties
from device_farm.transport.adb.scripts import BOOT_ID
from device_farm.transport.cores import parse_cpu_list

_MAX_CORES = 1024
# All of x86-64-v3 and v4 that /proc/cpuinfo names: the code generator may use any of it.
_V3 = frozenset({"avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave"})
_V4 = _V3 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
_VALUE = re.compile(r"/sys/devices/system/cpu/(?:cpu([0-9]+)/cpufreq/)?(\w+) (.*)")


def choose_target(abis: Collection[str], features: Collection[str], precision: Precision) -> Target:
    """The target of artifacts for a phone. Raises Refused where there is none that it can run."""
    have = frozenset(features)
    if "arm64-v8a" in abis:
        if "asimd" not in have:
            raise Refused(
                "this phone's processor says that it has no NEON (asimd in /proc/cpuinfo): there is no target for it"
            )
        target = NEON
    elif "x86_64" in abis:
        if have >= _V4:
            target = AVX512
        elif have >= _V3:
            target = AVX2
        else:
            lacking = ", ".join(sorted(_V3 - have))
            raise Refused(f"this phone's processor lacks {lacking}: x86-64 targets need AVX2 (x86-64-v3)")
    else:
        named = ", ".join(clean(abi) for abi in abis) or "none at all"
        raise Refused(f"this phone runs no 64-bit programs (its ABIs: {named}): it cannot be used")
    try:
        return at_precision(target, precision, have)
    except CompileError as error:
        raise Refused(f"this phone: {error}") from error


def parse_clusters(values: str) -> tuple[tuple[int, ...], ...]:
    """Cores that share clock and design, the fastest cluster first; cores that are offline are left out.

    `values` are lines "PATH VALUE" of /sys/devices/system/cpu. Empty if it tells nothing.
    """
    online: frozenset[int] | None = None
    max_khz: dict[int, int] = {}
    related: dict[int, str] = {}
    for line in values.splitlines():
        match = _VALUE.fullmatch(line)
        if match is None:
            continue
        core, name, value = match.groups()
        if name == "online" and core is None:
            online = _cores(value)
        elif core is not None and len(core) < 5 and int(core) < _MAX_CORES:
            if name == "cpuinfo_max_freq" and value.strip().isdecimal():
                max_khz[int(core)] = int(value[:12])
            elif name == "related_cpus":
                related[int(core)] = " ".join(value.split())
    groups: dict[tuple[int, str], list[int]] = {}
    for core, khz in sorted(max_khz.items()):
        if online is None or core in online:
            groups.setdefault((khz, related.get(core, "")), []).append(core)
    fastest_first = sorted(groups, key=lambda group: (-group[0], groups[group][0]))
    return tuple(tuple(groups[group]) for group in fastest_first)


def parse_boot_id(parts: Mapping[str, str]) -> str:
    """From the answers to scripts.prepare: another one after every restart, "" if the phone does not tell."""
    for line in parts.get("clusters", "").splitlines():
        path, _, value = line.partition(" ")
        if path == BOOT_ID and re.fullmatch(r"[0-9a-f-]{8,64}", value.strip()):
            return value.strip()
    return ""


def make_facts(
    parts: Mapping[str, str],
    *,
    serial: str,
    model: str | None,
    precision: Precision,
    cpu: int | None,
    threads: int,
) -> DeviceFacts:
    """From the answers to scripts.prepare. `cpu` None is the first core of the fastest cluster.

    Raises Refused where the phone cannot be used, or has no such core.
    """
    properties = parse_properties(parts.get("properties", ""))
    if not properties:
        raise Refused(f"{serial!r} answers getprop with nothing that could be read: is it an Android phone?")
    features = parse_cpu_features(parts.get("cpuinfo", ""))
    abis = (properties.get("ro.product.cpu.abilist") or properties.get("ro.product.cpu.abi", "")).split(",")
    target = choose_target(abis, features, precision)
    allowed = _cores(parts.get("allowed", "").partition(":")[2])
    clusters = parse_clusters(parts.get("clusters", ""))
    usable = [core for cluster in clusters for core in cluster if allowed is None or core in allowed]
    cores = _place(usable, cpu=cpu, threads=threads)
    return DeviceFacts(
        serial=serial,
        model=model or clean(properties.get("ro.product.model", "")) or "unknown",
        target=target.name,
        emulated=properties.get("ro.npas.emulated") == "1",
        cpu=cores[0] if cores else cpu,
        threads=threads,
        cpus=tuple(cores) if threads > 1 else (),
        details={
            "serial": clean(properties.get("ro.serialno", "")),
            "manufacturer": clean(properties.get("ro.product.manufacturer", "")),
            "model": clean(properties.get("ro.product.model", "")),
            "processor": _processor(properties),
            "soc": clean(properties.get("ro.soc.model", "") or properties.get("ro.board.platform", "")),
            "abi": clean(abis[0]),
            "features": sorted(features),
            "clusters": [list(cluster) for cluster in clusters],
            "android": clean(properties.get("ro.build.version.release", "")),
            "sdk": clean(properties.get("ro.build.version.sdk", "")),
        },
    )


def _place(usable: Sequence[int], *, cpu: int | None, threads: int) -> list[int]:
    """A core for each thread, beginning with `cpu`; the fastest ones. Empty if the phone does not tell its cores."""
    if not usable:
        return []
    if cpu is not None and cpu not in usable:
        raise Refused(f"core {cpu} is asked for, and this phone's cores are {', '.join(map(str, sorted(usable)))}")
    first = usable[0] if cpu is None else cpu
    cores = [first, *(core for core in usable if core != first)]
    if threads > len(cores):
        raise Refused(f"{threads} threads are asked for, and this phone has {len(cores)} cores")
    return cores[:threads]


def _processor(properties: Mapping[str, str]) -> str:
    names = ("ro.soc.manufacturer", "ro.soc.model")
    return clean(" ".join(properties.get(name, "") for name in names)) or clean(properties.get("ro.hardware", ""))


def _cores(text: str) -> frozenset[int] | None:
    """None where the kernel's list cannot be read."""
    if re.fullmatch(r"\s*\d{1,4}(-\d{1,4})?(,\d{1,4}(-\d{1,4})?)*\s*", text) is None:
        return None
    return parse_cpu_list(text)
