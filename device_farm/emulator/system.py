"""What a phone's system says of itself: properties, uname, dumpsys."""

from __future__ import annotations

from collections.abc import Mapping
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


ZONES = ("cpu-0-0", "cpu-1-0", "skin-therm", "battery")
_ZONE_KINDS = (0, 0, 3, 2)  # of Android's thermal service


def zone_c(thermal: ThermalState) -> tuple[float, ...]:
    """Degrees of each of ZONES."""
    return (thermal.soc_c - 1.5, thermal.soc_c, thermal.skin_c, thermal.battery_c)


def thermal_millicelsius(thermal: ThermalState) -> list[list[str | int]]:
    """As the runner reports them."""
    return [[name, round(celsius * 1000)] for name, celsius in zip(ZONES, zone_c(thermal), strict=True)]


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


def battery_words(phone: Phone) -> str:
    """As /sys says it."""
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
        for name, celsius, kind in zip(ZONES, zone_c(thermal), _ZONE_KINDS, strict=True)
    )
    return (
        f"IsStatusOverride: false\nThermal Status: {thermal.status}\nCached temperatures:\n{readings}"
        f"HAL Ready: true\nCurrent temperatures from HAL:\n{readings}"
    )
