"""`npas devices emulate N`: phones that are not there, for the real adb server; docs/emulated_phones.md."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from npas_ray.errors import UserError

if TYPE_CHECKING:
    from device_farm.testing.phones import EmulatedPhones
    from device_farm.transport.adb.server import AdbServer

_MOST_PHONES = 256
_EPILOG = """\
Alone, it says how to connect your own adb to the phones. With --adb it starts an adb server that has them already:
  npas devices emulate 8 --model emu-x86-fast --model emu-x86-slow --adb 5137
  npas devices list --server 127.0.0.1:5137

With --run everything after it is run beside the phones, which end with it:
  npas devices emulate 8 --adb 5137 --run npas search examples/phones.yaml"""


def add_parser(verbs: Any, common: argparse.ArgumentParser) -> None:
    parser = verbs.add_parser(
        "emulate",
        parents=[common],
        help="phones that are not there, to try everything; Ctrl-C ends them",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("count", metavar="N", nargs="?", default="1", help="how many (default: 1)")
    parser.add_argument("--model", metavar="MODEL", action="append", default=[], help="taken in turn, may be repeated")
    parser.add_argument(
        "--faults", metavar="PHONE:FAULT", action="append", default=[], help="from the start, such as 0:mute"
    )
    parser.add_argument("--clock", default="model", help="model (default: times of a seeded model) or host")
    parser.add_argument("--pace", default="1", metavar="S", help="host seconds of a modelled second; 0 does not wait")
    parser.add_argument("--seed", default="0", help="of phones and noise (default: 0)")
    parser.add_argument(
        "--adb", metavar="PORT", help="an adb server on this port of the loopback, the phones connected"
    )
    parser.add_argument(
        "--run", metavar="COMMAND", nargs=argparse.REMAINDER, default=[], dest="command", help="see below"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    if arguments.adb is None and not arguments.command:
        return _alone(arguments)
    from device_farm.emulator.faults import PhoneFault
    from device_farm.emulator.models import find_model
    from device_farm.testing.phones import EmulatedPhones
    from device_farm.transport.adb.server import AdbServer

    count = _whole(arguments.count, "N", 1, _MOST_PHONES)
    port = 0 if arguments.adb is None else _whole(arguments.adb, "--adb", 1024, 65_535)
    seed = _whole(arguments.seed, "--seed", 0, 9999)
    pace = _pace(arguments.pace)
    if arguments.clock not in ("model", "host"):
        raise UserError(f"--clock: expected model or host; got {arguments.clock!r}")
    names = arguments.model or ["emu-x86-mid"]
    try:
        for name in names:
            find_model(name)
        faults = [_fault(text, count, list(PhoneFault)) for text in arguments.faults]
    except ValueError as error:
        raise UserError(str(error)) from None
    models = [names[number % len(names)] for number in range(count)]
    signal.signal(signal.SIGTERM, _end)  # else the adb server would stay
    with (
        tempfile.TemporaryDirectory(prefix="npas-adb-") as home,
        EmulatedPhones(models, seed=seed, clock=arguments.clock, pace=pace) as phones,
        AdbServer.start_private(port, home=Path(home)) as server,
    ):
        for phone, model in zip(phones, models, strict=True):
            server.connect(phone.address)
            print(f"{model:14} {phone.address}", flush=True)
        for number, fault in faults:
            phones[number].inject(fault)
        print(f"Emulated phones (their times are modelled), on the adb server at {server}", flush=True)
        return _beside(phones, server, arguments.command)


def _alone(arguments: argparse.Namespace) -> int:
    from device_farm.emulator.__main__ import main

    words = [arguments.count, "--clock", arguments.clock, "--seed", arguments.seed]
    words += ["--pace", f"{_pace(arguments.pace):g}"]
    words += [word for model in arguments.model for word in ("--model", model)]
    words += [word for fault in arguments.faults for word in ("--faults", fault)]
    return main(words)


def _beside(phones: EmulatedPhones, server: AdbServer, command: Sequence[str]) -> int:
    """The exit status of the command; without one, waits for Ctrl-C."""
    if not command:
        print("Ctrl-C ends them.", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()
        return 0
    environment = {**os.environ, "ANDROID_ADB_SERVER_PORT": str(server.port)}
    try:
        process = subprocess.Popen(command, env=environment)
    except OSError as error:
        raise UserError(f"--run: {command[0]} cannot be started: {error.strerror}") from error
    with process:
        while True:
            try:
                status = process.wait()
                return status if status >= 0 else 128 - status
            except KeyboardInterrupt:
                continue  # the terminal tells the command, too; it says how it ends
            except SystemExit:
                process.terminate()
                raise


def _end(number: int, _: object) -> None:
    raise SystemExit(128 + number)


def _fault(text: str, count: int, faults: Sequence[Any]) -> tuple[int, Any]:
    phone, _, name = text.partition(":")
    if not phone.isdecimal() or not phone.isascii() or int(phone) >= count or name not in faults:
        raise ValueError(
            f"--faults: expected PHONE:FAULT, a phone in 0..{count - 1} and one of {', '.join(faults)}; got {text!r}"
        )
    return int(phone), next(fault for fault in faults if fault == name)


def _pace(text: str) -> float:
    try:
        pace = float(text)
    except ValueError:
        pace = -1.0
    if not 0 <= pace <= 100:  # NaN, too
        raise UserError(f"--pace: expected a number in 0..100; got {text!r}")
    return pace


def _whole(text: str, option: str, least: int, most: int) -> int:
    if text.isascii() and text.isdecimal() and len(text) < 7 and least <= int(text) <= most:
        return int(text)
    raise UserError(f"{option}: expected a whole number in {least}..{most}; got {text!r}")
