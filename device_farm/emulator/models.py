"""The models that can be emulated. Their figures resemble classes of phones, none of them is a phone that is sold."""

from __future__ import annotations

from device_farm.emulator.phone_model import Cluster, PhoneModel, Thermal

_ARMV8_0 = ("fp", "asimd", "evtstrm", "aes", "pmull", "sha1", "sha2", "crc32", "cpuid")
_ARMV8_2 = (*_ARMV8_0, "atomics", "fphp", "asimdhp", "asimdrdm", "lrcpc", "dcpop", "asimddp")
_ARMV9 = (*_ARMV8_2, "sha3", "sm3", "sm4", "sha512", "asimdfhm", "uscat", "flagm", "i8mm", "bf16", "bti")
_SSE = ("fpu", "cx8", "cmov", "mmx", "fxsr", "sse", "sse2", "ssse3", "sse4_1", "sse4_2", "popcnt", "aes", "pclmulqdq")
_AVX2 = (*_SSE, "xsave", "avx", "f16c", "rdrand", "lahf_lm", "abm", "fma", "movbe", "bmi1", "avx2", "bmi2")
_AVX512 = (*_AVX2, "avx512f", "avx512dq", "avx512bw", "avx512vl", "avx512cd", "avx512_vnni")


def _khz(lowest: int, highest: int, steps: int) -> tuple[int, ...]:
    """Evenly spaced, in steps of 100 kHz."""
    return tuple(int(round(lowest + (highest - lowest) * i / (steps - 1), -2)) for i in range(steps))


_ALL = (
    PhoneModel(
        name="emu-flagship",
        manufacturer="npas",
        soc="EMU9300",
        abi="arm64-v8a",
        android="15",
        sdk=35,
        kernel="6.1.75-android14-11",
        clusters=(
            Cluster((0, 1, 2), _khz(364_800, 2_016_000, 12), macs_per_cycle=3.2, part=0xD46),
            Cluster((3, 4, 5, 6), _khz(499_200, 2_803_200, 14), macs_per_cycle=7.2, part=0xD4D),
            Cluster((7,), _khz(595_200, 3_187_200, 16), macs_per_cycle=14.0, step_cycles=3000.0, part=0xD4E),
        ),
        features=_ARMV9,
        memory_mib=12_288,
        thermal=Thermal(heat_c=13.0, tau_s=70.0),
    ),
    PhoneModel(
        name="emu-midrange",
        manufacturer="npas",
        soc="EMU7050",
        abi="arm64-v8a",
        android="13",
        sdk=33,
        kernel="5.10.149-android12-9",
        clusters=(
            Cluster((0, 1, 2, 3, 4, 5), _khz(500_000, 2_000_000, 10), macs_per_cycle=2.8, part=0xD05),
            Cluster((6, 7), _khz(725_000, 2_600_000, 12), macs_per_cycle=6.6, part=0xD41),
        ),
        features=_ARMV8_2,
        memory_mib=8_192,
        thermal=Thermal(heat_c=10.0, tau_s=90.0),
    ),
    PhoneModel(
        name="emu-entry",
        manufacturer="npas",
        soc="EMU660",
        abi="arm64-v8a",
        android="11",
        sdk=30,
        kernel="4.19.191",
        clusters=(Cluster((0, 1, 2, 3, 4, 5, 6, 7), _khz(400_000, 1_800_000, 8), macs_per_cycle=2.4, part=0xD03),),
        features=_ARMV8_0,
        memory_mib=3_072,
        thermal=Thermal(heat_c=7.0, tau_s=120.0),
        sample_spread=0.006,
    ),
    PhoneModel(
        name="emu-x86-fast",
        manufacturer="npas",
        soc="EMUX9",
        abi="x86_64",
        android="14",
        sdk=34,
        kernel="6.1.43-android14-11",
        clusters=(
            Cluster((0, 1, 2, 3), _khz(800_000, 2_000_000, 8), macs_per_cycle=6.0),
            Cluster((4, 5), _khz(1_000_000, 3_000_000, 12), macs_per_cycle=20.0, step_cycles=3000.0),
        ),
        features=_AVX512,
        memory_mib=12_288,
        thermal=Thermal(heat_c=12.0, tau_s=80.0),
    ),
    PhoneModel(
        name="emu-x86-mid",
        manufacturer="npas",
        soc="EMUX5",
        abi="x86_64",
        android="13",
        sdk=33,
        kernel="5.15.104-android13-8",
        clusters=(
            Cluster((0, 1, 2, 3), _khz(600_000, 1_800_000, 8), macs_per_cycle=5.0),
            Cluster((4, 5), _khz(800_000, 2_400_000, 10), macs_per_cycle=12.0),
        ),
        features=_AVX2,
        memory_mib=8_192,
    ),
    PhoneModel(
        name="emu-x86-slow",
        manufacturer="npas",
        soc="EMUX1",
        abi="x86_64",
        android="11",
        sdk=30,
        kernel="4.19.191",
        clusters=(Cluster((0, 1, 2, 3), _khz(480_000, 1_440_000, 6), macs_per_cycle=6.0, step_cycles=6000.0),),
        features=_AVX2,
        memory_mib=3_072,
        thermal=Thermal(heat_c=7.0, tau_s=120.0),
        sample_spread=0.006,
    ),
)

MODELS = {model.name: model for model in _ALL}


def find_model(name: str) -> PhoneModel:
    """Raises ValueError, which names those that there are."""
    try:
        return MODELS[name]
    except KeyError:
        raise ValueError(f"no emulated phone is called {name!r}: there are {', '.join(MODELS)}") from None
