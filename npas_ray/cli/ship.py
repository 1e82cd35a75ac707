"""`npas ship RUN --candidate N`: another candidate of a run, such as one of its front, trained in full and compiled."""

from __future__ import annotations

import argparse
import contextlib
from typing import Any

from npas_ray.cli.output import find_run, print_json


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "ship", parents=[common], help="train another candidate of a run in full, and leave it in best/"
    )
    parser.add_argument("run_dir", metavar="RUN", help="a run's directory, or the name of one in runs/")
    parser.add_argument(
        "--candidate", metavar="N", type=int, help="its number (default: the one that the search ships by itself)"
    )
    parser.add_argument("--epochs", metavar="N", type=int, help="of the training (default: as the run was told)")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    run_dir = find_run(arguments.run_dir)
    from npas_ray.cli.progress import make_progress
    from npas_ray.runs.ship_run import ship_run

    with contextlib.closing(make_progress()) as progress:
        ship_run(run_dir, candidate=arguments.candidate, epochs=arguments.epochs, progress=progress)

    from npas_ray.reports import read_run, text, write_reports

    paths = write_reports(run_dir)
    data = read_run(run_dir)
    if arguments.json:
        print_json(data.summary() | {"reports": paths.to_json()})
    else:
        print(text.shipped(data))
        print(f"report: {paths.html}")
    return 0
