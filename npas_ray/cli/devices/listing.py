"""`npas devices list`: every phone of the adb servers, and what it is compiled for."""

from __future__ import annotations

import argparse
import dataclasses
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from npas_ray.cli.devices.servers import add_options, servers_of
from npas_ray.cli.farms import add_address, print_devices
from npas_ray.cli.output import print_json

if TYPE_CHECKING:
    from device_farm.measurement.types import DeviceConditions, DeviceFacts
    from device_farm.transport.adb.device_list import ListedDevice
    from device_farm.transport.adb.server import AdbServer

_SIDE_BY_SIDE = 32
_PATIENCE_S = 5.0


@dataclass(frozen=True)
class Row:
    """One phone. `problem` says why its facts are not known."""

    server: str
    serial: str
    state: str
    facts: DeviceFacts | None = None
    conditions: DeviceConditions | None = None
    problem: str = ""

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def columns(self) -> list[str]:
        facts, conditions = self.facts, self.conditions
        if facts is None:
            return [self.serial, self.state, "", "", "", self.problem]
        known = [facts.details.get("soc", ""), f"Android {facts.details.get('android', '?')}"]
        if facts.emulated:
            known.append("EMULATED")
        if conditions is not None and conditions.battery_level is not None:
            known.append(f"battery {conditions.battery_level:.0%}")
        if conditions is not None and conditions.temperature_c:
            known.append(f"{max(conditions.temperature_c.values()):.0f} C")
        cores = "/".join(str(len(cluster)) for cluster in facts.details.get("clusters", ()))
        return [self.serial, self.state, facts.model, facts.target, cores, ", ".join(filter(None, known))]


def add_parser(verbs: Any, common: argparse.ArgumentParser) -> None:
    parser = verbs.add_parser("list", parents=[common], help="every phone of the adb server, and what it is")
    add_options(parser)
    parser.add_argument("--farm", metavar="NAME", help="the devices of a farm instead, as it sees them")
    add_address(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    if arguments.farm is not None:
        return print_devices(arguments)
    rows = [row for server in servers_of(arguments) for row in rows_of(server)]
    if arguments.json:
        print_json({"devices": [row.to_json() for row in rows]})
    elif rows:
        from npas_ray.cli.devices.table import print_table

        print_table(["serial", "adb", "model", "target", "cores", ""], [row.columns() for row in rows])
    else:
        print("no phones; `npas devices doctor` says what to do, `npas devices emulate 2` makes two to try")
    return 0


def rows_of(server: AdbServer) -> list[Row]:
    """All devices of a server, each asked for its facts. Raises TransportError if the server does not answer."""
    with ThreadPoolExecutor(max_workers=_SIDE_BY_SIDE) as threads:
        return list(threads.map(lambda device: _row(server, device), server.devices(timeout_s=_PATIENCE_S)))


def _row(server: AdbServer, device: ListedDevice) -> Row:
    from device_farm.errors import TransportError
    from device_farm.transport.adb.advice import of_state
    from device_farm.transport.adb.transport import AdbTransport

    row = Row(str(server), device.serial, device.state)
    if device.state != "device":
        return dataclasses.replace(row, problem=str(of_state(device.state)))
    try:
        transport = AdbTransport(server, device.serial)
        try:
            facts = transport.facts(timeout_s=_PATIENCE_S)
            return dataclasses.replace(row, facts=facts, conditions=transport.conditions(timeout_s=_PATIENCE_S))
        finally:
            transport.close()
    except (TransportError, ValueError) as error:
        return dataclasses.replace(row, problem=str(error))
