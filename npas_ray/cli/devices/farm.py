"""`npas devices calibrate | quarantine | release | history`: of a farm that runs on a Ray cluster."""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from npas_ray.cli.farms import add_address, farm_of
from npas_ray.cli.output import find_run, print_json
from npas_ray.errors import UserError

if TYPE_CHECKING:
    from device_farm.fleet.entries import Entry
    from device_farm.fleet.farm import Farm
    from npas_ray.runs.directory import RunDirectory

_LEAST_LINES, _MOST_LINES = 1, 100_000


def add_parser(verbs: Any, common: argparse.ArgumentParser) -> None:
    farm = argparse.ArgumentParser(add_help=False, parents=[common])
    farm.add_argument("serial", metavar="SERIAL", help="as `npas devices list` shows it")
    add_address(farm)
    farm.add_argument("--farm", metavar="NAME", default="farm", help="its name on the cluster (default: farm)")
    calibrate = verbs.add_parser("calibrate", parents=[farm], help="take a phone's baseline of the sentinel anew")
    quarantine = verbs.add_parser("quarantine", parents=[farm], help="take a phone out of service until it is released")
    quarantine.add_argument("--reason", default="by hand", help="for the others")
    release = verbs.add_parser("release", parents=[farm], help="forget a phone's strikes, rest and quarantine")
    history = verbs.add_parser("history", parents=[farm], help="what happened to a phone, and what it measured")
    history.add_argument("--lines", metavar="N", default="40", help="the last N (default: 40)")
    history.add_argument("--run", metavar="RUN", dest="of_run", help="of the phones of a search that has ended")
    history.add_argument("--json", action="store_true", help="one JSON object on stdout")
    for parser, run in ((calibrate, _calibrate), (quarantine, _quarantine), (release, _release), (history, _history)):
        parser.set_defaults(run=run)


def _calibrate(arguments: argparse.Namespace) -> int:
    with farm_of(arguments) as farm:
        baseline_ms = farm.calibrate(arguments.serial)
    print(f"{arguments.serial}: its sentinel takes {baseline_ms:.4g} ms")
    return 0


def _quarantine(arguments: argparse.Namespace) -> int:
    return _on_farm(arguments, lambda farm: farm.quarantine(arguments.serial, reason=arguments.reason))


def _release(arguments: argparse.Namespace) -> int:
    return _on_farm(arguments, lambda farm: farm.release(arguments.serial))


def _on_farm(arguments: argparse.Namespace, change: Callable[[Farm], None]) -> int:
    with farm_of(arguments) as farm:
        change(farm)
        device = next(device for device in farm.devices() if device.serial == arguments.serial)
        print(f"{device.serial}: {device.state}" + (f" ({device.reason})" if device.reason else ""))
    return 0


def _history(arguments: argparse.Namespace) -> int:
    from npas_ray.config.words import printable

    if not arguments.lines.isascii() or not arguments.lines.isdecimal() or len(arguments.lines) > 6:
        raise UserError(f"--lines: expected a whole number in {_LEAST_LINES}..{_MOST_LINES}; got {arguments.lines!r}")
    limit = min(max(int(arguments.lines), _LEAST_LINES), _MOST_LINES)
    if arguments.of_run is not None:
        entries = _of_run(arguments.of_run, arguments.serial, limit)
    else:
        with farm_of(arguments) as farm:
            entries = farm.history(arguments.serial, limit=limit)
    if arguments.json:
        rows = [{"at": e.at_s, "kind": str(e.kind), "key": e.key, "serial": e.serial, "data": e.data} for e in entries]
        print_json({"serial": arguments.serial, "history": rows})
        return 0
    for entry in entries:
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(entry.at_s))
        print(printable(f"{at}  {entry.kind:12}{_told(entry.data)}"))
    if not entries:
        print(f"the farm's journal has nothing of {printable(arguments.serial)}")
    return 0


def _of_run(run: str, serial: str, limit: int) -> list[Entry]:
    """From the journal that a search has left. Raises RunError, JournalError while it still runs."""
    from device_farm.fleet.journal import Journal
    from npas_ray.runs.directory import RunDirectory

    directory = RunDirectory(find_run(run))
    path = directory.farm_journal
    if not path.is_file():
        raise UserError(
            f"--run: {run} had no phones of its own: {_whose_phones(directory) or f'it has no {path.name}'}"
        )
    with contextlib.closing(Journal.open(path)) as journal:
        return journal.history(serial, limit=limit)


def _whose_phones(run: RunDirectory) -> str | None:
    """The farm that measured for a run, if it shared one."""
    from npas_ray.config import SearchConfig
    from npas_ray.journal import Journal

    with Journal.open(run.journal, read_only=True) as journal:
        config = SearchConfig.from_json(journal.config, name=str(run.journal))
    if config.farm is None:
        return None
    return f"they are those of the farm {config.farm}: --farm {config.farm} --address {config.cluster.address}"


def _told(data: Mapping[str, Any]) -> str:
    """The part of an entry that says most."""
    if "latency_ms" in data:
        return f"{data['latency_ms']:.4g} ms (artifact {str(data.get('artifact_key', ''))[:12]})"
    for name in ("reason", "message", "baseline_ms"):
        if name in data:
            return f"{name}: {data[name]}" if name == "baseline_ms" else str(data[name])
    return ", ".join(f"{name} {value}" for name, value in data.items() if isinstance(value, str | int | float))[:200]
