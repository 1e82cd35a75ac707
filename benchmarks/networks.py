"""Whole networks on one core: our artifacts, dense and block-pruned, beside ONNX Runtime dense in the same run.

    python benchmarks/networks.py [--quick] [--json FILE] [--networks mobilenet_v2 resnet18] [--rates 1,2,3,5,10]

`ours` is the benchmark artifact (weights and taps from a seed: what a search times); `shipped` is the deployable one of
the same shape with a pruned module's weights, whose answer is compared with the module's own in torch: the last column.
A rate applies to every convolution and the classifier, in whole columns of the target's blocks; the stem is dense.
`unfused` is the benchmark artifact without fused inverted residuals, where the network has any.
`x best` divides the best rounds of ONNX Runtime and ours, `x paired` is the median of the ratios of every round; a bar
must be held by both. A missed speed bar ends a full run with exit status 1; a wrong answer ends any run so.
"""

from __future__ import annotations

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
from numpy.typing import NDArray
from torch import nn

from benchmarks._harness import (
    OnnxRuntime,
    Session,
    artifact_session,
    bench_artifact,
    finish,
    interleave,
    parser,
    relative_error,
    table,
)
from benchmarks._onnx import to_onnx
from benchmarks.models import MODELS, calibrate, initialised
from device_farm.compiler import Graph, compile_network, host_target
from device_farm.compiler.frontend import Imported, import_module
from device_farm.compiler.fusing import fused_blocks
from device_farm.compiler.graph import Shape
from device_farm.compiler.passes import find_sparsity, prune_weights, sparsify
from device_farm.compiler.testing import run_artifact

TOLERANCE = 1e-4
DENSE_BARS = {"mobilenet_v2": 1.0, "resnet18": 1.5}  # least speed-up over ONNX Runtime
PRUNED_BAR = 2.4  # the same of MobileNetV2 at 5x over ONNX Runtime dense
FUSED_BAR = 0.83  # most time of the fused MobileNetV2 at 5x over the unfused one


def measure(
    name: str, rates: Sequence[float], *, rounds: int, seconds: float, pixels: int, cache: Path
) -> dict[str, Any]:
    """Time and verify one network at every rate."""
    target = host_target()
    image = torch.randn(1, 3, pixels, pixels, generator=torch.Generator().manual_seed(2))
    nhwc = image.permute(0, 2, 3, 1).contiguous().numpy()

    dense = calibrate(initialised(name), pixels=pixels)
    graph, weights = (imported := _imported(dense, pixels)).graph, imported.weights
    runtime = OnnxRuntime(to_onnx(graph, weights).SerializeToString())
    sessions: dict[str, Session] = {"onnxruntime": runtime}
    errors = {"onnxruntime": relative_error(runtime.answer(image.numpy()), _answer(dense, image))}
    builds: dict[str, Path] = {}
    kept: dict[str, int] = {}
    with tempfile.TemporaryDirectory(prefix="networks-") as scratch_name:
        scratch = Path(scratch_name)
        for rate in rates:
            label = "dense" if rate == 1 else f"{rate:g}x"
            shape = sparsify(graph, rate, target.block_height)
            builds[label] = compile_network(shape, target=target, out_dir=scratch, cache_dir=cache).path
            if fused_blocks(shape):
                unfused = compile_network(shape, target=target, out_dir=scratch, cache_dir=cache, fuse=False)
                sessions[f"{label} unfused"] = artifact_session(unfused.path)
            kept[label] = shape.kept_macs

            # the way of a user: prune the module, recalibrate it, import it; its sparsity is found in its weights
            module = calibrate(_pruned(initialised(name), graph, rate, target.block_height), pixels=pixels)
            user = _imported(module, pixels)
            found = find_sparsity(user.graph, user.weights, target.block_height)
            if found != shape:
                raise RuntimeError(f"{name} {label}: the pruned module has another sparsity than the one that is timed")
            shipped = compile_network(found, target=target, out_dir=scratch, cache_dir=cache, weights=user.weights)
            errors[label] = relative_error(run_artifact(shipped, nhwc, scratch=scratch), _answer(module, image))
            sessions[label] = artifact_session(builds[label])
            sessions[f"{label} shipped"] = artifact_session(shipped.path)
        timings = interleave(sessions, rounds=rounds, seconds=seconds)
        profiles = {label: _profile(path) for label, path in builds.items()}

    peer = timings["onnxruntime"]
    print(f"\n{name} {pixels}x{pixels}, {graph.macs / 1e6:.0f} M MACs, {target.name}, one core, {rounds} rounds")
    header = (
        "",
        "kept M MACs",
        "best ms",
        "typical",
        "GFLOP/s",
        "x best",
        "x paired",
        "shipped ms",
        "rel. error",
        "of unfused",
    )
    rows: list[Sequence[object]] = [(
        "onnxruntime dense", f"{graph.macs / 1e6:.0f}", peer.ms, peer.typical_ms, _gflops(graph.macs, peer.ms),
        1.0, 1.0, "-", f"{errors['onnxruntime']:.1e}", "-",
    )]  # fmt: skip
    fused = {
        label: {
            "best": timings[label].ms / timings[f"{label} unfused"].ms,
            "paired": timings[label].over(timings[f"{label} unfused"]),
        }
        for label in builds
        if f"{label} unfused" in timings
    }
    for label in builds:
        ours, shipped_timing = timings[label], timings[f"{label} shipped"]
        rows.append((
            f"ours {label}", f"{kept[label] / 1e6:.0f}", ours.ms, ours.typical_ms, _gflops(kept[label], ours.ms),
            peer.ms / ours.ms, peer.over(ours), shipped_timing.ms, f"{errors[label]:.1e}",
            f"{fused[label]['paired']:.3f}" if label in fused else "-",
        ))  # fmt: skip
    print(table(header, rows))
    return {
        "network": name, "pixels": pixels, "target": target.name, "macs": graph.macs, "kept_macs": kept,
        "timings": {label: timing.to_json() for label, timing in timings.items()},
        "speedup_over_onnxruntime": {
            label: {"best": peer.ms / timings[label].ms, "paired": peer.over(timings[label])} for label in builds
        },
        "fused_over_unfused": fused, "relative_errors": errors, "profiles": profiles,
    }  # fmt: skip


def _profile(path: Path) -> list[dict[str, Any]]:
    steps: list[dict[str, Any]] = bench_artifact(path, seconds=0.2, profile=True)["profile"]["steps"]
    return steps


def _imported(module: nn.Module, pixels: int) -> Imported:
    return import_module(module, Shape(pixels, pixels, 3))


def _answer(module: nn.Module, image: torch.Tensor) -> NDArray[np.float32]:
    with torch.no_grad():
        answer: NDArray[np.float32] = module(image).numpy()
    return answer


def _pruned(module: nn.Module, graph: Graph, rate: float, block_height: int) -> nn.Module:
    """Zero the weakest taps of the module's weights; a convolution's name in the graph is its path in the module."""
    weights = {name: parameter.detach().numpy() for name, parameter in module.named_parameters()}
    _, pruned = prune_weights(graph, weights, rate, block_height)
    module.load_state_dict({name: torch.from_numpy(array) for name, array in pruned.items()}, strict=False)
    return module


def _gflops(macs: int, ms: float) -> str:
    return f"{2 * macs / ms / 1e6:.0f}"


def bars(result: dict[str, Any]) -> list[tuple[str, bool, bool]]:
    """What the project promises, whether this run shows it, and whether a quick look can tell."""
    speedups = {label: min(both.values()) for label, both in result["speedup_over_onnxruntime"].items()}
    errors = result["relative_errors"]
    checked = [(f"relative error at most {TOLERANCE:g}", max(errors.values()) <= TOLERANCE, True)]
    if result["network"] in DENSE_BARS and "dense" in speedups:
        held = speedups["dense"] >= DENSE_BARS[result["network"]]
        checked.append((f"dense: x{speedups['dense']:.2f} of ONNX Runtime", held, False))
    if result["network"] == "mobilenet_v2" and "5x" in speedups:
        checked.append((f"5x: x{speedups['5x']:.2f} of ONNX Runtime dense", speedups["5x"] >= PRUNED_BAR, False))
    if result["network"] == "mobilenet_v2" and "5x" in result["fused_over_unfused"]:
        ratio = max(result["fused_over_unfused"]["5x"].values())
        checked.append((f"5x: fused in {ratio:.2f} of the unfused time", ratio <= FUSED_BAR, False))
    return checked


def slowest_steps(result: dict[str, Any], label: str, count: int = 8) -> str:
    """Where the time of one artifact goes."""
    steps = sorted(result["profiles"][label], key=lambda step: -step["median_ns"])
    total = sum(step["median_ns"] for step in steps)
    rows = []
    for step in steps[:count]:
        ns = step["median_ns"]
        rows.append((step["name"], step["kind"], ns / 1e6, f"{ns / total:.1%}", _gflops(step["kept_macs"], ns / 1e6)))
    return table(("slowest steps, " + label, "kind", "ms", "share", "GFLOP/s"), rows)


def main() -> int:
    options = parser(__doc__.partition("\n")[0])
    options.add_argument("--networks", nargs="+", choices=sorted(MODELS), default=["mobilenet_v2", "resnet18"])
    options.add_argument("--rates", default="1,2,3,5,10", help="pruning rates, comma-separated; 1 is dense")
    options.add_argument("--pixels", type=int, default=224)
    options.add_argument("--profile", action="store_true", help="print the slowest steps")
    options.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "npas", help="compiled kernels")
    arguments = options.parse_args()
    try:
        rates = [float(rate) for rate in arguments.rates.split(",")]
    except ValueError:
        options.error(f"--rates: expected numbers separated by commas, got {arguments.rates!r}")
    if not all(1 <= rate < math.inf for rate in rates):
        options.error(f"--rates: a rate is weights before / weights kept, so 1 or more; got {arguments.rates!r}")
    torch.set_num_threads(1)
    np.seterr(all="raise", under="ignore")
    rounds, seconds = (4, 0.1) if arguments.quick else (12, 0.3)
    results = [
        measure(name, rates, rounds=rounds, seconds=seconds, pixels=arguments.pixels, cache=arguments.cache)
        for name in arguments.networks
    ]
    failed = False
    for result in results:
        if arguments.profile:
            for label in result["profiles"]:
                print("\n" + slowest_steps(result, label))
        for text, held, decides_quick in bars(result):
            failed |= not held and (decides_quick or not arguments.quick)
            print(f"{'held  ' if held else 'MISSED'} {result['network']}: {text}")
    finish("networks", {"results": results}, arguments.json)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
