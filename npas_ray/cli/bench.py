"""`npas bench NETWORK`: what a network costs on a device, layer by layer, dense and pruned."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from npas_ray.errors import UserError

if TYPE_CHECKING:
    from device_farm.bench.report import Report
    from device_farm.bench.variants import Scheme
    from device_farm.compiler import Target
    from device_farm.compiler.graph import Shape
    from npas_ray.runs.devices import SingleDevice
    from npas_ray.runs.progress import Progress

_EPILOG = """\
NETWORK is an ONNX file, a .pt2 file of torch.export.save, or a function that returns a torch module:
  npas bench model.onnx
  npas bench model.pt2 --rates 1,3,10
  npas bench torchvision.models:resnet18 --input 224x224x3 --scheme filter
  npas bench my/nets.py:small --input 32x32x3 --json small.json

The device makes weights from a seed, and every answer is compared with the host's. docs/bench.md explains the table."""
_MAX_EXTENT = 65_535
_MAX_RATES = 16


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "bench",
        parents=[common],
        help="time a network of yours layer by layer, dense and pruned",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "network", metavar="NETWORK", help="FILE.onnx, FILE.pt2, package.module:function, FILE.py:function"
    )
    parser.add_argument(
        "--scheme", default="block-punched", help="block-punched, block-based, kernel-block, pattern or filter"
    )
    parser.add_argument("--rates", metavar="R,R,...", help="weights before / weights kept (default: 1,2,3,5)")
    parser.add_argument(
        "--device",
        metavar="SERIAL",
        default="local",
        help="a phone, as `npas devices list` shows it (default: local, this machine)",
    )
    parser.add_argument(
        "--server", metavar="HOST:PORT", help="the adb server that has it (default: that of this machine)"
    )
    parser.add_argument("--threads", metavar="N", default="1", help="of the network, each on a core (default: 1)")
    parser.add_argument("--target", metavar="NAME", help="what to compile for (default: the device's own)")
    parser.add_argument("--input", metavar="HxWxC", help="the image, where the network does not say: 224x224x3")
    parser.add_argument("--top", metavar="N", help="print the N slowest rows only; all are in the JSON")
    parser.add_argument("--rounds", metavar="N", default="3", help="how often everything is measured (default: 3)")
    parser.add_argument("--json", metavar="FILE", help="write everything as JSON; - is stdout, without the table")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from device_farm.bench.variants import Scheme, check_rates
    from device_farm.compiler.frontend.reference import Reference
    from npas_ray.cli.progress import make_progress
    from npas_ray.runs.devices import single_device

    scheme = _member(arguments.scheme, [scheme.value for scheme in Scheme], "--scheme")
    rates = _rates(arguments.rates, scheme)
    check_rates(Scheme(scheme), rates)
    shape = _shape(arguments.input)
    top = None if arguments.top is None else _whole(arguments.top, "--top", 1, 1_000_000)
    rounds = _whole(arguments.rounds, "--rounds", 1, 100)
    target = _target(arguments.target)
    threads = _whole(arguments.threads, "--threads", 1, 64)
    device = single_device(arguments.device, server=arguments.server, threads=threads)
    _check_output(arguments.json)
    Reference.parse(arguments.network)
    with contextlib.closing(make_progress()) as progress:
        report = _bench(
            arguments.network, Scheme(scheme), rates,
            shape=shape, device=device, target=target, rounds=rounds, progress=progress,
        )  # fmt: skip
    if arguments.json == "-":
        from npas_ray.cli.output import print_json

        print_json(report.to_json())
        return 0
    from npas_ray.cli.bench_table import print_report

    print_report(report, top=top)
    if arguments.json:
        from device_farm.files import write_atomically

        try:
            text = json.dumps(report.to_json(), indent=1, allow_nan=False) + "\n"
            write_atomically(Path(arguments.json), text.encode())
        except OSError as error:
            raise UserError(f"--json: {arguments.json} cannot be written: {error.strerror}") from error
    return 0


def _bench(
    network: str,
    scheme: Scheme,
    rates: list[float],
    *,
    shape: Shape | None,
    device: SingleDevice,
    target: Target | None,
    rounds: int,
    progress: Progress,
) -> Report:
    """Loads, compiles, measures. Raises FarmError, UserError."""
    from device_farm.bench.report import make_report
    from device_farm.bench.timing import time_variants
    from device_farm.bench.variants import make_variants
    from device_farm.compiler import TARGETS
    from device_farm.compiler.frontend.loading import load_network
    from npas_ray.runs.setting import cache_dir

    progress.phase(f"loading {network}")
    loaded = load_network(network, shape)
    with (
        tempfile.TemporaryDirectory(prefix="npas-bench-") as name,
        _reserved_cores(device, progress) as reserved,
        contextlib.closing(device.spec(reserved).open(Path(name) / "device")) as transport,
    ):
        facts = transport.facts()
        chosen = target or TARGETS[facts.target]
        if chosen.name not in (runnable := _runnable(facts.target)):
            raise UserError(f"--target: {device.serial} runs {', '.join(runnable)}; got {chosen.name!r}")
        variants = make_variants(loaded.imported, scheme, rates, target=chosen)
        timings = time_variants(
            variants,
            device=transport,
            target=chosen,
            work_dir=Path(name) / "artifacts",
            cache_dir=cache_dir(),
            rounds=rounds,
            tell=progress.phase,
        )
    return make_report(
        timings,
        network=network,
        scheme=scheme.value,
        source_error=loaded.source_error,
        checked_with=loaded.checked_with,
    )


@contextlib.contextmanager
def _reserved_cores(device: SingleDevice, progress: Progress) -> Iterator[tuple[int, ...]]:
    """The cores of this machine that measure, which this process and its compilers leave alone meanwhile."""
    from device_farm.transport import cores

    if not device.is_local:
        yield ()
        return
    plan = cores.reserve(device.threads)
    if len(plan.measuring) < device.threads and device.threads > 1:
        cores.release(plan)
        raise UserError(f"--threads: this machine has cores for {len(plan.measuring)}; got {device.threads}")
    try:
        progress.log(plan.describe())
        yield plan.measuring
    finally:
        cores.release(plan)


def _runnable(native: str) -> tuple[str, ...]:
    """Targets that a device of this one runs: AVX-512 cores run AVX2 code, too."""
    from device_farm.compiler import AVX2, AVX512

    return (AVX512.name, AVX2.name) if native == AVX512.name else (native,)


def _member(text: str, choices: list[str], option: str) -> str:
    from npas_ray.config.words import did_you_mean, shown

    if text not in choices:
        hint = did_you_mean(text, choices)
        raise UserError(f"{option}: expected one of {', '.join(choices)}; got {shown(text)}{hint}")
    return text


def _target(text: str | None) -> Target | None:
    from device_farm.compiler import TARGETS

    return None if text is None else TARGETS[_member(text, list(TARGETS), "--target")]


def _rates(text: str | None, scheme: str) -> list[float]:
    from npas_ray.config.words import shown

    if text is None:
        return [1, 2.25, 3, 5] if scheme == "pattern" else [1, 2, 3, 5]
    try:
        rates = [float(part) for part in text.split(",")]
    except ValueError:
        rates = []
    if not rates or len(rates) > _MAX_RATES or not all(math.isfinite(rate) and 1 <= rate <= 1e6 for rate in rates):
        raise UserError(
            f"--rates: expected up to {_MAX_RATES} numbers of 1 or more, separated by commas: weights before / weights "
            f"kept; got {shown(text)}"
        )
    return rates


def _shape(text: str | None) -> Shape | None:
    from device_farm.compiler.graph import Shape
    from npas_ray.config.words import shown

    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,5})[xX](\d{1,5})[xX](\d{1,5})", text, re.ASCII)
    extents = [int(part) for part in match.groups()] if match else []
    if not extents or not all(1 <= extent <= _MAX_EXTENT for extent in extents):
        raise UserError(f"--input: expected height x width x channels, such as 224x224x3; got {shown(text)}")
    return Shape(*extents)


def _whole(text: str, option: str, low: int, high: int) -> int:
    from npas_ray.config.words import shown

    if not re.fullmatch(r"\d{1,9}", text, re.ASCII) or not low <= int(text) <= high:
        raise UserError(f"{option}: expected a whole number in {low}..{high}; got {shown(text)}")
    return int(text)


def _check_output(text: str | None) -> None:
    """Before minutes are spent: can the JSON be written? Raises UserError."""
    if text is None or text == "-":
        return
    path = Path(text)
    if path.is_dir() or not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        reason = "it is a directory" if path.is_dir() else f"there is no folder {path.parent} to write to"
        raise UserError(f"--json: expected a file to write; {text}: {reason}")
