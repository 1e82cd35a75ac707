"""Commands to a running host of phones, one line each, and their answers, one JSON object each.

inject PHONE FAULT [VALUE [TIMES]]     PHONE is a number from 0, or `all`; VALUE `-` is the fault's own
heal PHONE [FAULT]
set PHONE battery PERCENT | charging yes|no | screen on|off | heat CELSIUS
status [PHONE]
quit
"""

from __future__ import annotations

import dataclasses
from typing import Any

from device_farm.emulator.faults import PhoneFault
from device_farm.emulator.host import PhoneHost
from device_farm.emulator.phone import Phone


class Quit(Exception):
    """The host shall end."""


def execute(host: PhoneHost, line: str) -> dict[str, Any]:
    """The answer: `ok` and, if that is False, `error`. Raises Quit."""
    try:
        return {"ok": True} | _execute(host, line.split())
    except (ValueError, IndexError) as error:
        return {"ok": False, "error": f"{line.strip()[:200]}: {error}"}


def _execute(host: PhoneHost, words: list[str]) -> dict[str, Any]:
    if not words:
        return {}
    if words[0] == "quit":
        raise Quit
    if words[0] == "status":
        return {"phones": [dataclasses.asdict(phone.status()) for phone in _phones(host, words[1:2])]}
    for phone in _phones(host, words[1:2] or ["nobody"]):
        if words[0] == "inject":
            value = float(words[3]) if words[3:4] not in ([], ["-"]) else None
            phone.inject(_fault(words[2]), value=value, times=int(words[4]) if len(words) > 4 else None)
        elif words[0] == "heal":
            phone.heal(_fault(words[2]) if len(words) > 2 else None)
        elif words[0] == "set":
            _set(phone, words[2], words[3])
        else:
            raise ValueError("expected inject, heal, set, status or quit")
    return {}


def _fault(name: str) -> PhoneFault:
    try:
        return PhoneFault(name)
    except ValueError:
        raise ValueError(f"no fault is called {name!r}: there are {', '.join(PhoneFault)}") from None


def _phones(host: PhoneHost, names: list[str]) -> list[Phone]:
    if names in ([], ["all"]):
        return host.phones
    if not names[0].isdigit() or int(names[0]) >= len(host.phones):
        raise ValueError(f"expected a phone from 0 to {len(host.phones) - 1}, or all, got {names[0]!r}")
    return [host.phones[int(names[0])]]


def _set(phone: Phone, what: str, value: str) -> None:
    if what == "battery":
        phone.battery.level_percent = min(max(int(value), 0), 100)
    elif what == "charging":
        phone.battery.charging = value == "yes"
    elif what == "screen":
        phone.screen_on = value == "on"
    elif what == "heat":
        phone.heat_to(float(value))
    else:
        raise ValueError(f"expected battery, charging, screen or heat, got {what!r}")
