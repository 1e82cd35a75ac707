"""`npas farm start | status | stop`: a farm that outlives searches, on a Ray cluster that runs already."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from npas_ray.cli.farms import add_address, device_to_json, farm_of, on_ray, print_table_of
from npas_ray.cli.output import print_json
from npas_ray.errors import InfrastructureError, UserError

if TYPE_CHECKING:
    from device_farm.fleet.farm import Farm
    from device_farm.fleet.views import FarmDevice, FarmStatus

_EPILOG = """\
On a machine that stays, once:
  ray get-auth-token --generate
  RAY_AUTH_MODE=token ray start --head --node-ip-address=127.0.0.2 --port=6379
  npas farm start examples/farm.yaml
In every search's configuration, from then on:
  cluster: {address: "127.0.0.2:6379"}
  devices: [{kind: farm, farm: lab, model: Pixel 8}]"""
_REACHED_S = 60.0


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "farm", parents=[common], help="a farm that several searches share, on a running Ray cluster",
        epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    start = verbs.add_parser(
        "start", parents=[common], help="start the farm of a file; it lives on without this command"
    )
    start.add_argument("file", metavar="FARM.yaml", type=Path, help="devices, journal, how to measure")
    add_address(start, default=None)
    start.set_defaults(run=_start)
    status = verbs.add_parser("status", parents=[common], help="its devices, what waits, who asks, its journal")
    stop = verbs.add_parser("stop", parents=[common], help="end it; its journal is kept for the next start")
    for verb, run in ((status, _status), (stop, _stop)):
        verb.add_argument("farm", metavar="NAME", help="its name, as in its file")
        add_address(verb)
        verb.set_defaults(run=run)
    status.add_argument("--json", action="store_true", help="one JSON object on stdout")
    stop.add_argument("--force", action="store_true", help="even if searches are using it; they will fail")


def _start(arguments: argparse.Namespace) -> int:
    from npas_ray.config.farms import load_farm

    file = load_farm(arguments.file)
    address = file.cluster.address if arguments.address is None else arguments.address
    with on_ray(address):
        from device_farm.errors import LeaseError
        from device_farm.fleet.farm import Farm
        from npas_ray.runs.ray_session import ray_session
        from npas_ray.runs.shared_farm import farm_config, farms_here, journal_of, wait_for_devices, where

        with ray_session(address, num_cpus=0):
            ran = file.name in farms_here()
            try:
                farm = Farm.start(farm_config(file))
            except LeaseError as error:
                raise InfrastructureError(_why_not(file.name, ran, error)) from error
            for client, share in file.shares.items():
                farm.set_share(client, share)
            devices = wait_for_devices(farm, timeout_s=_REACHED_S)
            here = where(address)
            print(f"the farm {file.name} {'runs already' if ran else 'runs'} on the Ray cluster at {here}")
            print(f"its journal is {journal_of(file)}")
            _print_devices(farm, devices)
            print(_how_to_use(file.name, here, devices))
    return 0


def _why_not(name: str, ran: bool, error: Exception) -> str:
    if ran and "another configuration" in str(error):
        return (
            f"a farm {name!r} with another configuration runs already: `npas farm stop {name}` first, or rename yours"
        )
    return str(error)


def _status(arguments: argparse.Namespace) -> int:
    with farm_of(arguments) as farm:
        status, devices = farm.status(), farm.devices()
        from npas_ray.runs.shared_farm import where

        here = where(arguments.address)
        if arguments.json:
            print_json(_json(farm, status, devices, here))
            return 0
        print(f"the farm {farm.name} on the Ray cluster at {here}; its broker is process {status.pid} on {status.node}")
        print(f"journal   {status.journal}: {status.answers} answers")
        print(f"clients   {status.clients} processes have asked for something and live")
        for line in _waiting(status):
            print(line)
        _print_devices(farm, devices)
    return 0


def _waiting(status: FarmStatus) -> list[str]:
    lines = [f"compiling {status.compiling} networks"] if status.compiling else []
    for model, load in sorted(status.load.items()):
        lines.append(f"{model}: {load.waiting} jobs wait, {load.leased} devices measure, {load.idle} are idle")
    return lines


def _json(farm: Farm, status: FarmStatus, devices: list[FarmDevice], address: str) -> dict[str, Any]:
    load: Mapping[str, Any] = {model: dataclasses.asdict(load) for model, load in status.load.items()}
    return {
        "farm": farm.name,
        "address": address,
        **dataclasses.asdict(status),
        "load": load,
        "devices": [device_to_json(device) for device in devices],
    }


def _stop(arguments: argparse.Namespace) -> int:
    with farm_of(arguments) as farm:
        status = farm.status()
        if status.clients and not arguments.force:
            raise UserError(
                f"{status.clients} processes use the farm {farm.name}: wait for them, or --force: their searches will"
                " fail, and can be resumed when it runs again"
            )
        farm.stop()
        print(f"the farm {farm.name} has ended; what it measured is kept in {status.journal}")
    return 0


def _print_devices(farm: Farm, devices: list[FarmDevice]) -> None:
    from npas_ray.config.words import printable

    if devices:
        print_table_of(devices)
    else:
        print("no devices: the adb servers list none")
    for host, complaint in farm.status().complaints.items():
        print(printable(f"!!  {host}: {complaint}"))


def _how_to_use(name: str, address: str, devices: list[FarmDevice]) -> str:
    """Lines for a search's configuration."""
    from npas_ray.config.words import printable

    models = sorted({device.facts.model for device in devices if device.facts is not None})
    if not models:
        return f"no device was reached yet; `npas farm status {name}` tells more"
    wanted = ", ".join(f'{{kind: farm, farm: {name}, model: "{printable(model)}"}}' for model in models)
    return f'in a search: cluster: {{address: "{address}"}}\n             devices: [{wanted}]'
