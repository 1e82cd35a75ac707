"""`npas search CONFIG`: a search from a configuration to its report."""

from __future__ import annotations

import argparse
import contextlib
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from device_farm.errors import FarmError
from npas_ray.cli.output import RUNS, print_json
from npas_ray.errors import DamagedJournal, InfrastructureError, NoFeasibleCandidate, NpasError

if TYPE_CHECKING:
    from npas_ray.runs.progress import Progress


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "search", parents=[common], help="search as a configuration says; see examples/demo.yaml"
    )
    parser.add_argument("config", metavar="CONFIG", type=Path, help="a YAML file")
    parser.add_argument("--run-dir", metavar="DIR", type=Path, help="where the run lives (default: runs/NAME)")
    parser.add_argument("--resume", action="store_true", help="continue the run if there is one")
    parser.add_argument("--dry-run", action="store_true", help="check everything, say what would be done, do nothing")
    parser.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        dest="overrides",
        help="override a value of the configuration, such as training.epochs=3; can be repeated",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout at the end")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from npas_ray.config import load_config

    config = load_config(arguments.config, arguments.overrides)
    run_dir: Path = arguments.run_dir or RUNS / config.name
    if arguments.dry_run:
        from npas_ray.cli.dry_run import plan

        planned = plan(config, run_dir, resume=arguments.resume)
        if arguments.json:
            print_json(planned.to_json())
        else:
            print(planned)
        return 0

    from npas_ray.cli.progress import make_progress
    from npas_ray.runs.search_run import run_search

    infeasible = None
    with contextlib.closing(make_progress()) as progress, _resumable(arguments, run_dir):
        try:
            run_search(config, run_dir, resume=arguments.resume, progress=progress)
        except NoFeasibleCandidate as error:
            infeasible = error
        except DamagedJournal:
            raise  # a report of that would be wrong, or fail itself
        except (KeyboardInterrupt, NpasError, FarmError):
            _report_what_there_is(run_dir, progress)
            raise

    from npas_ray.reports import read_run, text, write_reports

    data = read_run(run_dir)
    paths = write_reports(run_dir, data)
    if arguments.json:
        print_json(data.summary() | {"baselines": data.baselines.to_json(), "reports": paths.to_json()})
    else:
        print(text.results(data, paths))
    if infeasible is not None:
        raise infeasible
    return 0


@contextlib.contextmanager
def _resumable(arguments: argparse.Namespace, run_dir: Path) -> Iterator[None]:
    """Says how to go on after Ctrl-C or a failure of the infrastructure."""
    try:
        yield
    except (KeyboardInterrupt, InfrastructureError, FarmError) as error:
        from npas_ray.runs.directory import RunDirectory

        if RunDirectory(run_dir).journal.is_file() and not isinstance(error, DamagedJournal):
            print(f"npas: nothing acknowledged is lost; continue with: {_again(arguments)}", file=sys.stderr)
        raise


def _again(arguments: argparse.Namespace) -> str:
    command = ["npas", "search", str(arguments.config)]
    command += ["--run-dir", str(arguments.run_dir)] if arguments.run_dir else []
    for override in arguments.overrides:
        command += ["--set", override]
    return shlex.join([*command, "--resume"])


def _report_what_there_is(run_dir: Path, progress: Progress) -> None:
    """Reports of an unfinished run, if it has come so far as to have a journal; never in the way of what went wrong."""
    from npas_ray.reports import write_reports
    from npas_ray.runs.directory import RunDirectory

    if not RunDirectory(run_dir).journal.is_file():
        return
    try:
        write_reports(run_dir)
    except (NpasError, OSError) as error:
        progress.log(f"no report of the unfinished run: {error}")
