"""`npas version`: of npas and of what it stands on. `npas --version` is the first line of it."""

from __future__ import annotations

import argparse
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from npas_ray.cli.output import print_json

_PARTS = ("npas", "ray", "torch", "apache-tvm", "apache-tvm-ffi", "optuna", "adbutils", "ziglang", "numpy", "pandas")


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = commands.add_parser("version", parents=[common], help="versions of npas and of what it stands on")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    found = {name: of(name) for name in _PARTS} | {"python": platform.python_version()}
    if arguments.json:
        print_json(found)
    else:
        for name, text in found.items():
            print(f"{name:16}{text or 'not installed'}")
    return 0


def of(name: str) -> str | None:
    """Of an installed distribution; None if it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None
