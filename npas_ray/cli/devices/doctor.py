"""`npas devices doctor [SERIAL]`: what is wrong with adb, a hub, a key, a phone, and what to do. One screen."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

from npas_ray.cli.devices.servers import add_options, servers_of
from npas_ray.cli.output import print_json


def add_parser(verbs: Any, common: argparse.ArgumentParser) -> None:
    parser = verbs.add_parser(
        "doctor", parents=[common], help="what is wrong with adb, a hub, a key, a phone, and what to do"
    )
    parser.add_argument("serial", metavar="SERIAL", nargs="?", help="one phone, and whether it may measure now")
    add_options(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """0 if all is well, 4 if something is not."""
    from device_farm.transport.adb.discovery import survey
    from npas_ray.cli.devices.examination import PATIENCE_S, examined, print_checks, print_survey

    servers = servers_of(arguments)
    surveys = [survey(server, timeout_s=PATIENCE_S) for server in servers]
    checks = None if arguments.serial is None else examined(arguments.serial, servers, surveys)
    if arguments.json:
        print_json({"servers": [dataclasses.asdict(seen) for seen in surveys], "phone": checks})
    elif checks is None:
        for seen in surveys:
            print_survey(seen)
    else:
        print_checks(checks)
    problems = any(seen.problems or any(not found.usable for found in seen.findings) for seen in surveys)
    return 4 if (problems if checks is None else checks["verdict"] != "it can measure") else 0
