"""`npas verify RUN`: does the artifact that ships say what torch says, and is it as fast on its phone as was said?"""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

from npas_ray.cli.output import find_run, print_json


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "verify",
        parents=[common],
        help="run what ships over the test set, on its phone if that is here, and compare with torch",
    )
    parser.add_argument("run_dir", metavar="RUN", help="a run's directory, or the name of one in runs/")
    parser.add_argument("--device", metavar="MODEL", help="one of its device models (default: every one)")
    parser.add_argument(
        "--server",
        metavar="HOST:PORT",
        help="the adb server with phones of it (default: as in the run's configuration)",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    run_dir = find_run(arguments.run_dir)
    from npas_ray.runs.verification import verify_run

    found = verify_run(run_dir, model=arguments.device, server=arguments.server)
    passed = all(verification.passed for verification in found)
    if arguments.json:
        each = [dataclasses.asdict(verification) | {"passed": verification.passed} for verification in found]
        print_json(each[0] | {"passed": passed, "devices": each})
    else:
        print("\n\n".join(map(str, found)))
    return 0 if passed else 1
