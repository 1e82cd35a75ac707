"""What a doctor says of adb servers and of single phones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from npas_ray.config.words import did_you_mean, printable, shown
from npas_ray.errors import UserError

if TYPE_CHECKING:
    from device_farm.transport.adb.advice import Advice
    from device_farm.transport.adb.discovery import Finding, Survey
    from device_farm.transport.adb.server import AdbServer

PATIENCE_S = 5.0


def print_survey(seen: Survey) -> None:
    version = "does not answer" if seen.version is None else f"version {seen.version}"
    usable = sum(found.usable for found in seen.findings)
    print(f"adb server at {seen.server}: {version}, {usable} of {len(seen.findings)} phones can be used")
    for problem in seen.problems:
        _print_advice("", problem)
    for found in seen.findings:
        where = f" at {found.usb}" if found.usb else ""
        if found.advice is None:
            who = f"{printable(found.serial)} ({printable(found.model)}){where}"
            print(f"  ok  {who}: answers in {found.answered_ms:.0f} ms")
        else:
            _print_advice(f"{printable(found.serial)}{where}: ", found.advice)


def _print_advice(who: str, advice: Advice) -> None:
    print(f"  !!  {who}{printable(advice.problem)}")
    print(f"      -> {printable(advice.remedy)}")


def examined(serial: str, servers: list[AdbServer], surveys: list[Survey]) -> dict[str, str]:
    """What a look at one phone finds, the verdict last. Raises UserError for one that no server has."""
    from device_farm.errors import FarmError

    known = {
        found.serial: (server, found) for server, seen in zip(servers, surveys, strict=True) for found in seen.findings
    }
    if serial not in known:
        raise UserError(
            f"no adb server has a phone {shown(serial)}{did_you_mean(serial, known)};"
            f" there are {', '.join(map(printable, known)) or 'none'}"
        )
    server, found = known[serial]
    checks = {"serial": serial, "adb server": str(server), "state": found.state}
    if found.advice is not None:
        return checks | {"problem": found.advice.problem, "to do": found.advice.remedy, "verdict": "it cannot be used"}
    try:
        return checks | _looked_at(server, found)
    except FarmError as error:
        return checks | {"problem": f"{type(error).__name__}: {error}", "verdict": "it cannot be used"}


def _looked_at(server: AdbServer, found: Finding) -> dict[str, str]:
    from device_farm.measurement.admission import AdmissionRules, admit
    from device_farm.transport.adb.transport import AdbTransport

    transport = AdbTransport(server, found.serial)
    try:
        facts = transport.facts(timeout_s=PATIENCE_S)
        conditions = transport.conditions(timeout_s=PATIENCE_S)
    finally:
        transport.close()
    details = facts.details
    checks = {
        "model": facts.model + (" (EMULATED: its times are modelled)" if facts.emulated else ""),
        "system": f"{details.get('soc', '?')}, Android {details.get('android', '?')}, {details.get('abi', '?')}",
        "target": f"{facts.target}, measures on core {facts.cpu}",
        "answers in": f"{found.answered_ms:.0f} ms",
        "battery": "unknown" if conditions.battery_level is None else f"{conditions.battery_level:.0%}",
        "hottest": f"{max(conditions.temperature_c.values()):.1f} C" if conditions.temperature_c else "unknown",
    }
    unfit = admit(conditions, AdmissionRules(), cpus=() if facts.cpu is None else (facts.cpu,))
    if unfit is None:
        return checks | {"verdict": "it can measure"}
    return checks | {
        "problem": str(unfit),
        "to do": f"look again in {unfit.retry_after_s:.0f} s",
        "verdict": "it must rest",
    }


def print_checks(checks: Mapping[str, str]) -> None:
    """A line for each."""
    for what, answer in checks.items():
        print(f"{what:14}{printable(answer)}")
