"""Which adb servers a command asks: that of --server, those of a configuration, else the one of this machine."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from npas_ray.errors import UserError

if TYPE_CHECKING:
    from device_farm.transport.adb.server import AdbServer


def add_options(parser: Any) -> None:
    parser.add_argument(
        "--server", metavar="HOST:PORT", help="an adb server (default: $ANDROID_ADB_SERVER_PORT of this machine, 5037)"
    )
    parser.add_argument("--config", metavar="FILE", type=Path, help="the adb servers of a search's configuration")


def servers_of(arguments: argparse.Namespace) -> list[AdbServer]:
    """Each once. Raises ConfigError, UserError."""
    from device_farm.transport.adb.server import AdbServer

    addresses = [arguments.server] if arguments.server is not None else _configured(arguments.config)
    try:
        return [AdbServer.at(address) for address in dict.fromkeys(addresses)]
    except ValueError as error:
        raise UserError(f"--server: {error}") from None


def _configured(path: Path | None) -> list[str]:
    if path is None:
        return [f"127.0.0.1:{os.environ.get('ANDROID_ADB_SERVER_PORT', '5037')}"]
    from npas_ray.config import AdbDevice, load_config

    addresses = [device.server for device in load_config(path).devices if isinstance(device, AdbDevice)]
    if not addresses:
        raise UserError(f"--config: {path} has no phones (devices of kind adb)")
    return addresses
