"""`npas calibrate CONFIG`: measures what the layers of a search space cost on a device."""

from __future__ import annotations

import argparse
import contextlib
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from device_farm.errors import CalibrationError, FarmError
from npas_ray.cli.output import print_json
from npas_ray.errors import ConfigError, InfrastructureError


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "calibrate",
        parents=[common],
        help="measure what the layers of a search space cost on a device: a break-even map and a latency predictor",
    )
    parser.add_argument("config", metavar="CONFIG", type=Path, help="a YAML file, as for `npas search`")
    parser.add_argument("--device", metavar="MODEL", help="model of one of its devices (default: the first one)")
    parser.add_argument(
        "--out", metavar="FILE", type=Path, help="default: in ~/.cache/npas/calibrations, found by itself"
    )
    parser.add_argument("--candidates", metavar="N", type=int, help="measured ones (default: every choice three times)")
    parser.add_argument("--again", action="store_true", help="measure anew what is calibrated or begun already")
    parser.add_argument(
        "--set", metavar="KEY=VALUE", action="append", default=[], dest="overrides", help="as for `npas search`"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout at the end")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from npas_ray.calibration.run import journal_path, run_calibration
    from npas_ray.calibration.store import default_path, identity_of
    from npas_ray.cli.progress import make_progress
    from npas_ray.config import load_config
    from npas_ray.runs.devices import find_device, settled
    from npas_ray.runs.setting import cache_dir

    config = settled(load_config(arguments.config, arguments.overrides))
    model = find_device(arguments.device or config.models[0], devices=config.devices).model
    if arguments.candidates is not None and not 8 <= arguments.candidates <= 100_000:
        raise ConfigError(f"--candidates: expected a whole number in 8..100000; got {arguments.candidates}")
    path: Path = arguments.out or default_path(cache_dir() / "calibrations", identity_of(config, model))
    if path.is_dir():
        raise ConfigError(f"--out: expected a file; {path} is a directory")
    if arguments.again:
        journal_path(path).unlink(missing_ok=True)
    with contextlib.closing(make_progress()) as progress, _resumable(arguments):
        outcome = run_calibration(config, model, path, candidates=arguments.candidates, progress=progress)
    if arguments.json:
        print_json(outcome.to_json())
    else:
        print(outcome)
    return 0


@contextlib.contextmanager
def _resumable(arguments: argparse.Namespace) -> Iterator[None]:
    """Says how to go on after Ctrl-C or a failure of the infrastructure."""
    try:
        yield
    except (KeyboardInterrupt, InfrastructureError, FarmError) as error:
        if not isinstance(error, CalibrationError):
            command = ["npas", "calibrate", str(arguments.config)]
            for option in ("device", "out", "candidates"):
                value = getattr(arguments, option)
                command += [] if value is None else [f"--{option}", str(value)]
            for override in arguments.overrides:
                command += ["--set", override]
            print(f"npas: what was measured is kept; continue with: {shlex.join(command)}", file=sys.stderr)
        raise
