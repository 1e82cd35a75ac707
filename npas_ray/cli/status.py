"""`npas status RUN`: how far a run is, from its journal, whether it runs or has ended."""

from __future__ import annotations

import argparse
from typing import Any

from npas_ray.cli.output import find_run, print_json


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = commands.add_parser("status", parents=[common], help="how far a run is, whether it runs or has ended")
    parser.add_argument("run_dir", metavar="RUN", help="a run's directory, or the name of one in runs/")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    run_dir = find_run(arguments.run_dir)
    from npas_ray.reports import text
    from npas_ray.reports.run_data import read_run

    data = read_run(run_dir)
    if arguments.json:
        print_json(data.summary())
    else:
        print(text.status(data))
    return 0
