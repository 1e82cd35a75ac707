"""`npas devices ...`: the phones that there are, what is wrong with them, and those that are only emulated."""

from __future__ import annotations

import argparse
from typing import Any

from npas_ray.cli.devices import doctor, emulate, farm, listing


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "devices", parents=[common], help="the phones that there are, what is wrong with them, emulated ones"
    )
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in (listing, doctor, emulate, farm):
        module.add_parser(verbs, common)
