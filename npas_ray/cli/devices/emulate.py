"""`npas devices emulate N`: phones that are not there, for the real adb server; docs/emulated_phones.md."""

from __future__ import annotations

import argparse
from typing import Any


def add_parser(verbs: Any, common: argparse.ArgumentParser) -> None:
    parser = verbs.add_parser(
        "emulate", parents=[common], help="phones that are not there, to try everything; Ctrl-C ends them"
    )
    parser.add_argument("count", metavar="N", nargs="?", default="1", help="how many (default: 1)")
    parser.add_argument("--model", metavar="MODEL", action="append", default=[], help="taken in turn, may be repeated")
    parser.add_argument(
        "--faults", metavar="PHONE:FAULT", action="append", default=[], help="from the start; more by typing `inject`"
    )
    parser.add_argument("--clock", default="model", help="model (default: times of a seeded model) or host")
    parser.add_argument("--seed", default="0", help="of phones and noise (default: 0)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from device_farm.emulator.__main__ import main

    words = [arguments.count, "--clock", arguments.clock, "--seed", arguments.seed]
    words += [word for model in arguments.model for word in ("--model", model)]
    words += [word for fault in arguments.faults for word in ("--faults", fault)]
    return main(words)
