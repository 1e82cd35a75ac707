"""`python -m device_farm.emulator 8`: phones to try `adb` on. Ctrl-C ends them and all that runs on them."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import Sequence

from device_farm.emulator.control import Quit, execute
from device_farm.emulator.faults import PhoneFault
from device_farm.emulator.host import PhoneHost
from device_farm.emulator.models import MODELS, find_model

_MOST_PHONES = 256


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs until it is interrupted, or told to quit."""
    options = _parser().parse_args(arguments)
    try:
        for name in options.model:
            find_model(name)
        faults = [_starting_fault(text, options.count) for text in options.faults]
    except ValueError as error:
        print(f"emulator: {error}", file=sys.stderr)
        return 2
    try:
        asyncio.run(_serve(options, faults))
    except KeyboardInterrupt:
        pass
    except OSError as error:
        print(f"emulator: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m device_farm.emulator", description=__doc__)
    parser.add_argument("count", type=int, nargs="?", default=1, help="how many phones (1)")
    parser.add_argument(
        "--model", action="append", default=[], help=f"in turn, may be repeated: {', '.join(MODELS)} (emu-x86-mid)"
    )
    parser.add_argument(
        "--faults", action="append", default=[], metavar="PHONE:FAULT", help=f"from the start: {', '.join(PhoneFault)}"
    )
    parser.add_argument("--clock", choices=("model", "host"), default="model", help="where times come from (model)")
    parser.add_argument("--pace", type=float, default=1.0, help="host seconds that a modelled second takes (1)")
    parser.add_argument("--seed", type=int, default=0, help="of phones and noise (0)")
    parser.add_argument("--control", action="store_true", help="JSON only; ends when stdin does")
    return parser


def _starting_fault(text: str, count: int) -> tuple[int, PhoneFault]:
    phone, _, name = text.partition(":")
    if not phone.isdigit() or int(phone) >= count:
        raise ValueError(f"--faults {text}: expected PHONE:FAULT with a phone from 0 to {count - 1}")
    try:
        return int(phone), PhoneFault(name)
    except ValueError:
        raise ValueError(f"--faults {text}: there are {', '.join(PhoneFault)}") from None


async def _serve(options: argparse.Namespace, faults: list[tuple[int, PhoneFault]]) -> None:
    if not 1 <= options.count <= _MOST_PHONES:
        raise OSError(f"1 to {_MOST_PHONES} phones can be emulated, not {options.count}")
    names = options.model or ["emu-x86-mid"]
    models = [names[i % len(names)] for i in range(options.count)]
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    for end in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(end, ended.set)
    async with PhoneHost(models, seed=options.seed, clock=options.clock, pace=options.pace) as host:
        for number, fault in faults:
            host.phones[number].inject(fault)
        if options.control:
            print(json.dumps({"addresses": [phone.address for phone in host.phones]}), flush=True)
        else:
            for phone in host.phones:
                print(f"{phone.model.name:14} {phone.serial}  adb connect {phone.address}")
            print("Emulated phones. Commands: inject, heal, set, status, quit. Ctrl-C ends them.", flush=True)
        obeying = asyncio.ensure_future(_obey(host, ended, ends_with_stdin=options.control))
        await ended.wait()
        obeying.cancel()


async def _obey(host: PhoneHost, ended: asyncio.Event, *, ends_with_stdin: bool) -> None:
    reader = asyncio.StreamReader()
    try:
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    except ValueError:  # a file or /dev/null: there is nothing to read
        return
    with contextlib.suppress(Quit):
        while line := await reader.readline():
            print(json.dumps(execute(host, line.decode(errors="replace"))), flush=True)
        if not ends_with_stdin:
            return
    ended.set()


if __name__ == "__main__":
    sys.exit(main())
