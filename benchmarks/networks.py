"""Whole networks on one core: our artifacts, dense and block-pruned, beside the engines that a user would pick, dense.

    python benchmarks/networks.py [--quick] [--json FILE] [--networks mobilenet_v2 resnet18] [--rates 1,2,3,5,10]
                                  [--peers onnxruntime openvino]

All in the same run, in turns. `ours` is the benchmark artifact (weights and taps from a seed: what a search times);
`shipped` is the deployable one of the same shape with a pruned module's weights, whose answer is compared with the
module's own in torch. A rate applies to every convolution and the classifier, in whole columns of the target's blocks,
or, as `kernels`, in whole kernels of them; the stem is dense. `unfused` is the benchmark artifact without fused
inverted residuals, where the network has any. Ratios are given by the best rounds and as the median of the ratios of
every round; a bar must be held by both. A missed speed bar ends a full run with exit status 1; a wrong answer of ours
ends any run so. Peers that are not installed (pip install -e '.[bench]'), or that answer wrongly, are named and left
out.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # run as a script: the packages lie beside this folder
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch

from benchmarks._harness import bench_artifact, finish, interleave, parser
from benchmarks._network_builds import Build, build, case, units
from benchmarks._network_report import bars, print_network, slowest_steps
from benchmarks.models import MODELS
from benchmarks.peers import PEERS
from benchmarks.peers.process import open_peers
from device_farm.compiler import host_target


def measure(
    name: str, rates: Sequence[float], peers: Sequence[str], *, rounds: int, seconds: float, pixels: int, cache: Path
) -> dict[str, Any]:
    """Verify and time one network at every rate beside the peers."""
    target, subject = host_target(), case(name, pixels)
    with contextlib.ExitStack() as open_until_timed, tempfile.TemporaryDirectory(prefix="networks-") as scratch:
        builds = [
            build(subject, rate, unit, target=target, scratch=Path(scratch), cache=cache)
            for rate in rates
            for unit in units(subject.graph, rate)
        ]
        ready, absent, errors = open_peers(peers, subject.model, subject.image.numpy(), subject.expected)
        for process in ready.values():
            open_until_timed.enter_context(process)
        ours = {label: session for made in builds for label, session in made.sessions().items()}
        timings = interleave({**ready, **ours}, rounds=rounds, seconds=seconds)
        profiles = {made.label: _profile(made) for made in builds}
    return {
        "network": name, "pixels": pixels, "target": target.name, "rounds": rounds, "macs": subject.graph.macs,
        "kept_macs": {made.label: made.kept_macs for made in builds},
        "timings": {label: timing.to_json() for label, timing in timings.items()},
        "relative_errors": {**errors, **{made.label: made.error for made in builds}},
        "absent_peers": absent, "profiles": profiles,
    }  # fmt: skip


def _profile(made: Build) -> list[dict[str, Any]]:
    steps: list[dict[str, Any]] = bench_artifact(made.bench, seconds=0.2, profile=True)["profile"]["steps"]
    return steps


def main() -> int:
    arguments = _arguments()
    torch.set_num_threads(1)
    np.seterr(all="raise", under="ignore")
    rounds, seconds = (4, 0.1) if arguments.quick else (12, 0.3)
    results, failed = [], False
    for name in arguments.networks:
        result = measure(
            name, arguments.rates, arguments.peers, rounds=rounds, seconds=seconds, pixels=arguments.pixels,
            cache=arguments.cache,
        )  # fmt: skip
        results.append(result)
        print_network(result)
        for bar in bars(result):
            failed |= not bar.held and not (bar.timed and arguments.quick)
            print(f"{'held  ' if bar.held else 'MISSED'} {name}: {bar.text}")
        for label in result["profiles"] if arguments.profile else ():
            print("\n" + slowest_steps(result, label))
        peers = {peer: {"version": PEERS[peer].version(), "settings": PEERS[peer].settings} for peer in arguments.peers}
        finish(
            "networks", {"peers": peers, "results": results}, arguments.json
        )  # after each: a long run can be stopped
    return 1 if failed else 0


def _arguments() -> argparse.Namespace:
    options = parser(str(__doc__).partition("\n")[0])
    options.add_argument("--networks", nargs="+", choices=sorted(MODELS), default=sorted(MODELS))
    options.add_argument("--peers", nargs="*", choices=list(PEERS), default=list(PEERS))
    options.add_argument("--rates", type=_rates, default="1,2,3,5,10", help="comma-separated; 1 is dense")
    options.add_argument("--pixels", type=int, default=224)
    options.add_argument("--profile", action="store_true", help="print the slowest steps")
    options.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "npas", help="compiled kernels")
    return options.parse_args()


def _rates(text: str) -> list[float]:
    try:
        rates = [float(rate) for rate in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected numbers separated by commas, got {text!r}") from None
    if not all(1 <= rate < math.inf for rate in rates):
        raise argparse.ArgumentTypeError(f"a rate is weights before / weights kept, so 1 or more; got {text!r}")
    return rates


if __name__ == "__main__":
    sys.exit(main())
