"""What commands share that are about a farm on a Ray cluster: its address, its devices as a table."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from npas_ray.cli.output import print_json
from npas_ray.errors import InfrastructureError, UserError

if TYPE_CHECKING:
    from device_farm.fleet.farm import Farm
    from device_farm.fleet.views import FarmDevice


def add_address(parser: argparse.ArgumentParser, *, default: str | None = "auto") -> None:
    parser.add_argument(
        "--address",
        metavar="HOST:PORT",
        default=default,
        help="of the Ray cluster; auto is $RAY_ADDRESS, else the one that `ray start` started last on this machine",
    )


@contextmanager
def farm_of(arguments: argparse.Namespace) -> Iterator[Farm]:
    """The farm that a command is about. Raises InfrastructureError, LeaseError."""
    with on_ray(arguments.address):
        from npas_ray.runs.shared_farm import connected

        with connected(arguments.address, arguments.farm) as farm:
            yield farm


@contextmanager
def on_ray(address: str) -> Iterator[None]:
    """Ray is imported as it should be, and what it raises is said in a line. Raises InfrastructureError, UserError."""
    from npas_ray.runs.ray_session import LOCAL, in_a_line, prepare_ray

    if address == LOCAL:
        raise UserError("--address: a cluster of this command's own would have no farm; name a running one, HOST:PORT")
    prepare_ray()
    from ray.exceptions import RayError

    try:
        yield
    except RayError as error:
        raise InfrastructureError(f"Ray failed: {in_a_line(error)}") from error


def print_devices(arguments: argparse.Namespace) -> int:
    """`npas devices list --farm NAME`."""
    with farm_of(arguments) as farm:
        devices = farm.devices()
    if arguments.json:
        print_json({"farm": arguments.farm, "devices": [device_to_json(device) for device in devices]})
    elif devices:
        print_table_of(devices)
    else:
        print(f"the farm {arguments.farm} has no devices; `npas farm status {arguments.farm}` says why")
    return 0


def print_table_of(devices: Sequence[FarmDevice]) -> None:
    from npas_ray.cli.devices.table import print_table

    heads = ["serial", "model", "target", "state", "done", "failed", ""]
    print_table(heads, [_columns(device) for device in devices])


def device_to_json(device: FarmDevice) -> dict[str, Any]:
    return dataclasses.asdict(device) | {"state": str(device.state)}


def _columns(device: FarmDevice) -> list[str]:
    facts = device.facts
    known = [] if device.state.serves else [device.reason]
    if device.ends_in_s is not None:
        known.append(f"for another {device.ends_in_s:.0f} s")
    if facts is not None and facts.emulated:
        known.append("EMULATED")
    if device.job_key is not None:
        known.append("measuring")
    model, target = ("", "") if facts is None else (facts.model, facts.target)
    counts = [str(device.completed), str(device.failed)]
    return [device.serial, model, target, str(device.state), *counts, ", ".join(filter(None, known))]
