"""`npas`: parses the command line, runs a sub-command, turns whatever it raises into a line and an exit code.

0 it went well; 1 a defect of npas, or `verify` found a difference; 2 the input is wrong; 3 nothing within the budgets;
4 Ray, a device or the disk failed; 130 Ctrl-C; 141 nobody reads the output any more.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import traceback
from collections.abc import Sequence

from device_farm.errors import FarmError, InvalidGraph, UnsupportedOperator
from npas_ray.cli import bench, calibrate, devices, farm, report, search, ship, status, verify, version
from npas_ray.errors import InfrastructureError, NpasError, UserError

_EXIT_CODES = """exit codes:
  0  it went well
  1  a defect of npas, or `verify` found a difference
  2  the input is wrong; nothing was changed
  3  the search ended and found nothing within the budgets
  4  Ray, a device or the disk failed; try again with --resume
  130  interrupted"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `npas` with these arguments (default: the process's); the exit code. Raises SystemExit for wrong usage."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a poor locale must not end a search
    try:
        try:
            arguments = _parser().parse_args(argv)
            code: int = arguments.run(arguments)
        finally:
            sys.stdout.flush()  # here, where a closed pipe can still be caught
    except BrokenPipeError:
        # the interpreter flushes once more when it ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        return _say("interrupted", code=130)
    except Exception as error:
        if _debugging(argv):
            traceback.print_exc()
        return _fail(error, argv)
    return code


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show tracebacks (or set NPAS_DEBUG=1)")
    parser = argparse.ArgumentParser(
        prog="npas",
        description="Finds the networks on the accuracy/latency front of the devices that you own.",
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"npas {version.of('npas') or 'not installed'}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in (search, bench, calibrate, devices, farm, status, report, ship, verify, version):
        module.add_parser(commands, common)
    return parser


def _debugging(argv: Sequence[str] | None) -> bool:
    return "--debug" in (sys.argv[1:] if argv is None else argv) or os.environ.get("NPAS_DEBUG", "0") not in ("", "0")


def _fail(error: Exception, argv: Sequence[str] | None) -> int:
    """One line on stderr for every line of the error, and the exit code that belongs to it."""
    if isinstance(error, NpasError):
        return _say(*(f"error: {line}" for line in str(error).splitlines()), code=error.exit_code)
    if isinstance(error, FarmError):
        fault = UserError if isinstance(error, InvalidGraph | UnsupportedOperator) else InfrastructureError
        return _say(f"error: {type(error).__name__}: {error}", code=fault.exit_code)
    if _debugging(argv):
        return _say(f"error: unexpected {type(error).__name__}: {error}", code=1)
    return _say(f"error: unexpected {type(error).__name__}: {error} ({_saved_traceback()})", code=1)


def _saved_traceback() -> str:
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="npas-", suffix=".traceback.txt", delete=False, encoding="utf-8", errors="backslashreplace"
        ) as file:
            file.write(f"{sys.argv}\nPython {sys.version}\n\n{traceback.format_exc()}")
    except OSError:
        return "a defect of npas; --debug shows the traceback"
    return f"a defect of npas; the traceback is in {file.name}"


def _say(*lines: str, code: int) -> int:
    from npas_ray.config.words import printable

    for line in lines:
        print(f"npas: {printable(line)}", file=sys.stderr)
    return code
