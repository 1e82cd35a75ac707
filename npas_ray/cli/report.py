"""`npas report RUN`: builds the tables and the page again, from the journal alone."""

from __future__ import annotations

import argparse
from typing import Any

from npas_ray.cli.output import find_run, print_json


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "report", parents=[common], help="build candidates.csv, pareto.csv and report.html again from the journal"
    )
    parser.add_argument("run_dir", metavar="RUN", help="a run's directory, or the name of one in runs/")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    run_dir = find_run(arguments.run_dir)
    from npas_ray.reports import read_run, text, write_reports

    data = read_run(run_dir)
    paths = write_reports(run_dir, data)
    if arguments.json:
        print_json(data.summary() | {"baselines": data.baselines.to_json(), "reports": paths.to_json()})
    else:
        print(text.results(data, paths))
    return 0
