"""`npas verify RUN`: does the artifact that ships say what torch says, over the whole test set?"""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

from npas_ray.cli.output import find_run, print_json


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "verify",
        parents=[common],
        help="run the shipped artifact of the best candidate over the test set and compare with torch",
    )
    parser.add_argument("run_dir", metavar="RUN", help="a run's directory, or the name of one in runs/")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    run_dir = find_run(arguments.run_dir)
    from npas_ray.runs.verify import verify_run

    verification = verify_run(run_dir)
    if arguments.json:
        print_json(dataclasses.asdict(verification) | {"passed": verification.passed})
    else:
        print(verification)
    return 0 if verification.passed else 1
