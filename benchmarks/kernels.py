"""Single layers of well-known networks on one core: our kernels at every rate beside ONNX Runtime dense, in one run.

    python benchmarks/kernels.py [--quick] [--json FILE] [--layers TEXT ...] [--rates 1,2,2.5,3,5,7,10]
                                 [--heights 8,16,32]

What is timed is the layer's kernel alone: ours by the runner's profile, ONNX Runtime's by its own (no call overhead,
no turning of layouts; _nodes.py). `dense` is what a network gets (Winograd where it is chosen), `direct` the gathered
GEMM with all taps but one, to which the speed-ups of pruning relate. A rate's `efficiency` is speed-up over direct
divided by the rate that was really reached (whole taps survive). `share` is the share of the peak that a loop of
multiply-adds reached in the same run; those of the plain convolution are counted, so Winograd may exceed it.

Schemes: `block h` keeps whole taps of blocks of h filters (block-punched, block-based), `kernel h` all positions of the
channels that it keeps, `pattern` 4 of 9 positions of every channel of a block, shared by its filters. `chained h` is
`block h` of a 1x1 layer between two other such layers, where input and output stay planes (docs/neon.md): what it takes
within a network, not alone; layers that would not keep them have no figure. References that are not for speed, compiled
as they are (the union of the taps of a block survives): `pattern per kernel` and `unstructured 5x`.

Layers are timed one after the other, so --layers can cut a run into pieces; --json adds to what the file has.
A missed bar ends a full run over all layers with exit status 1, a wrong answer any run.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # run as a script: the packages lie beside this folder
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch

from benchmarks._harness import bench_artifact, finish, idlest_cpu, parser, relative_error, table
from benchmarks._layers import LAYERS, NAME, Layer
from benchmarks._nodes import OnnxRuntimeNodes, build_peak, peak_gflops
from benchmarks._onnx import to_onnx
from device_farm.compiler import Artifact, Graph, Target, compile_network, host_target
from device_farm.compiler.graph import BlockSparsity, Conv2d
from device_farm.compiler.layout import plan_memory
from device_farm.compiler.passes import sparsify
from device_farm.compiler.sparsity import TapUnit
from device_farm.compiler.weights import seeded_weights
from npas_ray.pruning.schemes import make_mask
from npas_ray.space.choices import Scheme

TOLERANCE = 1e-4
DENSE_BARS = {"1x1": 1.05, "3x3": 1.8}  # least speed-up over ONNX Runtime, geometric mean of a class
WORST_BAR = 0.95  # of any layer
EFFICIENCY_BARS = ((5.0, 0.9), (10.0, 0.8))  # up to that rate, at least that share of it
PATTERN_BAR, PATTERN_RATE = 1.8, 2.25
UNSTRUCTURED_RATE = 5.0


class Bench:
    """Builds and times the artifacts of one layer."""

    def __init__(self, layer: Layer, target: Target, *, cache: Path, scratch: Path) -> None:
        self.layer, self.target, self.cache, self.scratch = layer, target, cache, scratch
        self.graph = layer.graph()
        self.weights = seeded_weights(self.graph, seed=0)
        self.artifacts: dict[str, Artifact] = {}
        self.kept_macs: dict[str, int] = {}  # of the layer
        self.rates: dict[str, float] = {}  # really reached

    def build(self, rates: Sequence[float], heights: Sequence[int]) -> None:
        self._compile("dense", self.graph)
        if not self.layer.prunable:
            return
        self._compile(
            "direct", self._sparse(BlockSparsity(self.layer.filters, (self.layer.taps - 1,))), by_winograd=False
        )
        rates, tall = [rate for rate in rates if rate > 1], self.target.block_height
        schemes = [("block", height, TapUnit.TAP) for height in heights]
        if self.layer.kernel == 3:
            schemes.append(("kernel", tall, TapUnit.KERNEL))
            self._masked(f"pattern {PATTERN_RATE}x", Scheme.PATTERN, PATTERN_RATE, tall)
            self._masked("pattern per kernel", Scheme.PATTERN, PATTERN_RATE, 1)
        if self.layer.kind != "fc":  # what is unstructured has the taps of a dense layer: an executable of that size
            self._masked(f"unstructured {UNSTRUCTURED_RATE:g}x", Scheme.UNSTRUCTURED, UNSTRUCTURED_RATE, 1)
        for name, height, unit in schemes:
            for rate in rates:
                pruned = sparsify(self.graph, rate, height, layers=[NAME], unit=unit)
                self._compile(f"{name} {height} {rate:g}x", pruned)
        if self.layer.kind == "1x1" and (low := self.target.tiles[-1].height) in heights:
            for rate in rates:
                chained = self.layer.chained(rate, low)
                if {"before", NAME} <= plan_memory(chained, self.target).tiled.keys():
                    self._compile(f"chained {low} {rate:g}x", chained)

    def measure(self, *, rounds: int, seconds: float) -> tuple[dict[str, list[float]], list[float]]:
        """us of every round of ours and of ONNX Runtime's, in turns on the core that is idlest in a round."""
        runtime = OnnxRuntimeNodes(to_onnx(self.graph, self.weights).SerializeToString(), self.scratch)
        ours: dict[str, list[float]] = {label: [] for label in self.artifacts}
        allowed = os.sched_getaffinity(0)
        try:
            for _ in range(rounds):
                cpu = idlest_cpu(allowed, window_s=0.02)
                os.sched_setaffinity(0, {cpu})
                runtime.run(seconds)
                for label, artifact in self.artifacts.items():
                    ours[label].append(self._run(label, artifact, seconds=seconds, cpu=cpu))
                os.sched_setaffinity(0, allowed)
        finally:
            os.sched_setaffinity(0, allowed)
        return ours, runtime.rounds_us()

    def _run(self, label: str, artifact: Artifact, *, seconds: float, cpu: int) -> float:
        report = bench_artifact(artifact.path, seconds=seconds, cpu=cpu, profile=True, warmup_s=seconds / 2)
        error = relative_error(np.array(report["output"], np.float32), np.array(artifact.expected_output))
        if error > TOLERANCE:
            raise RuntimeError(f"{self.layer.name}, {label}: relative error {error:.1e}, allowed {TOLERANCE:g}")
        (step,) = [step for step in report["profile"]["steps"] if step["name"] == NAME]
        return float(step["median_ns"] / 1e3)

    def _sparse(self, sparsity: BlockSparsity) -> Graph:
        op = self.graph.ops[1]
        assert isinstance(op, Conv2d)
        pruned = Conv2d(**(vars(op) | {"sparsity": sparsity}))
        return Graph((self.graph.ops[0], pruned, *self.graph.ops[2:]))

    def _masked(self, label: str, scheme: Scheme, rate: float, height: int) -> None:
        """As a user's pruned weights: the taps are those that the scheme chooses."""
        weight = self.weights[f"{NAME}.weight"]
        mask = make_mask(torch.from_numpy(weight), scheme=scheme, rate=rate, block_height=height).numpy()
        self._compile(label, self.graph, self.weights | {f"{NAME}.weight": weight * mask})

    def _compile(
        self, label: str, graph: Graph, weights: Mapping[str, Any] | None = None, *, by_winograd: bool = True
    ) -> None:
        artifact = compile_network(
            graph,
            target=self.target,
            out_dir=self.cache / "layers",
            cache_dir=self.cache,
            weights=weights,
            by_winograd=by_winograd,
        )
        others = sum(op.kept_macs(*graph.input_shapes(op)) for op in graph.ops if op.name != NAME)
        (macs,) = [op.macs(*graph.input_shapes(op)) for op in graph.ops if op.name == NAME]
        self.artifacts[label], self.kept_macs[label] = artifact, artifact.kept_macs - others
        self.rates[label] = macs / self.kept_macs[label]


def result(bench: Bench, ours: Mapping[str, list[float]], peer: list[float], peak: float) -> dict[str, Any]:
    """The figures of one layer."""
    layer, macs = bench.layer, bench.artifacts["dense"].macs
    variants = {
        label: {
            "us": min(times),
            "rate": bench.rates[label],
            "share_of_peak": 2e-3 * bench.kept_macs[label] / min(times) / peak,
        }
        for label, times in ours.items()
    }
    return with_ratios({
        "layer": layer.name, "class": layer.kind, "network": layer.network, "macs": macs, "peak_gflops": peak,
        "onnxruntime_us": min(peer), "onnxruntime_share_of_peak": 2e-3 * macs / min(peer) / peak, "variants": variants,
        "rounds_us": {"onnxruntime": peer, **ours},
    })  # fmt: skip


def with_ratios(one: dict[str, Any]) -> dict[str, Any]:
    """The same with what follows from its rounds."""
    rounds, variants = one["rounds_us"], one["variants"]
    for label, figures in variants.items():
        figures["over_onnxruntime"] = times_faster(rounds[label], rounds["onnxruntime"])
        if "direct" in variants and label not in ("dense", "direct"):
            figures["over_direct"] = times_faster(rounds[label], rounds["direct"])
            figures["efficiency"] = figures["over_direct"] / (figures["rate"] / variants["direct"]["rate"])
    return one


def times_faster(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Of the best rounds, and the median of the rounds' ratios: the lower one, as noise may hit either side of both."""
    return min(min(theirs) / min(ours), statistics.median(b / a for a, b in zip(ours, theirs, strict=True)))


def geometric_mean(values: Iterable[float]) -> float:
    return statistics.geometric_mean(list(values) or [math.nan])


def by_class(results: Sequence[dict[str, Any]], value: Callable[[dict[str, Any]], float | None]) -> dict[str, float]:
    """Geometric means of the layers that have the value."""
    classes: dict[str, list[float]] = defaultdict(list)
    for one in results:
        if (figure := value(one)) is not None:
            classes[one["class"]].append(figure)
            classes["all"].append(figure)
    return {kind: geometric_mean(values) for kind, values in classes.items()}


def _field(label: str, field: str) -> Callable[[dict[str, Any]], float | None]:
    return lambda one: one["variants"].get(label, {}).get(field)


def _first_field(choices: Sequence[str], field: str) -> Callable[[dict[str, Any]], float | None]:
    """Of the first of several variants that a layer has."""
    return lambda one: next((one["variants"][label][field] for label in choices if label in one["variants"]), None)


def labels(results: Sequence[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(label for one in results for label in one["variants"]))


def show(results: Sequence[dict[str, Any]]) -> None:
    """One table of dense layers, one a scheme, one of means."""
    rows = []
    for one in results:
        dense, direct = one["variants"]["dense"], one["variants"].get("direct", one["variants"]["dense"])
        rows.append((
            one["layer"], f"{one['onnxruntime_us']:.1f}", f"{one['onnxruntime_share_of_peak']:.0%}",
            f"{dense['us']:.1f}", f"{dense['share_of_peak']:.0%}", f"{dense['over_onnxruntime']:.2f}",
            f"{direct['us']:.1f}", f"{direct['share_of_peak']:.0%}", f"{direct['over_onnxruntime']:.2f}",
        ))  # fmt: skip
    header = ("dense", "ORT us", "share", "dense us", "share", "x ORT", "direct us", "share", "x ORT")
    print("\n" + table(header, rows))
    pruned = [label for label in labels(results) if label not in ("dense", "direct")]
    for scheme in dict.fromkeys(_scheme(label) for label in pruned):
        columns = [label for label in pruned if _scheme(label) == scheme]
        rows = []
        for one in results:
            figures = [one["variants"].get(label) for label in columns]
            if any(figures):
                cells = [f"{f['over_direct']:.2f} {f['share_of_peak']:.0%}" if f else "-" for f in figures]
                rows.append((one["layer"], *cells))
        print("\n" + table((f"{scheme}: x direct, share", *[label.split()[-1] for label in columns]), rows))
    kinds = [*dict.fromkeys(one["class"] for one in results), "all"]
    lines: list[tuple[str, dict[str, float]]] = [
        (f"{label} x ORT", by_class(results, _field(label, "over_onnxruntime"))) for label in ("dense", "direct")
    ]
    lines += [(f"{label} x direct / rate", by_class(results, _field(label, "efficiency"))) for label in pruned]
    means_by_kind = [[f"{means[kind]:.2f}" if kind in means else "-" for kind in kinds] for _, means in lines]
    named = [(name, *cells) for (name, _), cells in zip(lines, means_by_kind, strict=True)]
    print("\n" + table(("geometric means", *kinds), named))


def _scheme(label: str) -> str:
    return label.rpartition(" ")[0] if label.endswith("x") else label


def bars(results: Sequence[dict[str, Any]]) -> list[tuple[str, bool]]:
    """What the project promises and whether this run shows it."""
    checked = []
    dense = by_class(results, _field("dense", "over_onnxruntime"))
    for kind, bar in DENSE_BARS.items():
        if kind in dense:
            checked.append((f"dense {kind}: x{dense[kind]:.2f} of ONNX Runtime, bar {bar}", dense[kind] >= bar))
    worst = min(results, key=lambda one: one["variants"]["dense"]["over_onnxruntime"])
    figure = worst["variants"]["dense"]["over_onnxruntime"]
    checked.append((f"dense at worst: x{figure:.2f} ({worst['layer']}), bar {WORST_BAR}", figure >= WORST_BAR))
    for label in labels(results):
        if label.startswith(("block", "kernel")):
            rate = float(label.split()[-1].rstrip("x"))
            bar = next(share for limit, share in EFFICIENCY_BARS if rate <= limit)
            mean = by_class(results, _field(label, "efficiency"))["all"]
            checked.append((f"{label}: {mean:.0%} of the rate over direct, bar {bar:.0%}", mean >= bar))
            chained = label.replace("block", "chained")
            if chained != label and chained in labels(results):
                mean = by_class(results, _first_field((chained, label), "efficiency"))["all"]
                text = f"{label}, 1x1 layers chained: {mean:.0%} of the rate over direct, bar {bar:.0%}"
                checked.append((text, mean >= bar))
        elif label == f"pattern {PATTERN_RATE}x":
            mean = by_class(results, _field(label, "over_direct"))["all"]
            checked.append((f"{label}: x{mean:.2f} of direct, bar {PATTERN_BAR}", mean >= PATTERN_BAR))
    return checked


def chosen_layers(texts: Sequence[str] | None) -> list[Layer]:
    """Those whose name contains one of the texts."""
    return [layer for layer in LAYERS if not texts or any(text in layer.name for text in texts)]


def known_results(path: Path | None) -> dict[str, dict[str, Any]]:
    if path is None or not path.exists():
        return {}
    return {one["layer"]: with_ratios(one) for one in json.loads(path.read_text())["results"]}


def main() -> int:
    options = parser(__doc__.partition("\n")[0])
    target = host_target()
    height = target.block_height
    options.add_argument("--layers", nargs="+", metavar="TEXT", help="only layers whose name contains one of these")
    options.add_argument("--rates", default="1,2,2.5,3,5,7,10", help="pruning rates, comma-separated; 1 is dense")
    options.add_argument("--heights", default=f"{height},{height // 2},{height // 4}", help="filters of a block")
    options.add_argument("--build", action="store_true", help="compile only; a later run finds everything built")
    options.add_argument("--show", action="store_true", help="measure nothing, print what the JSON has")
    options.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "npas", help="kernels and artifacts")
    arguments = options.parse_args()
    try:
        rates = [float(rate) for rate in arguments.rates.split(",")]
        heights = [int(text) for text in arguments.heights.split(",")]
    except ValueError as error:
        options.error(f"--rates and --heights: expected numbers separated by commas: {error}")
    torch.set_num_threads(1)
    rounds, seconds = (2, 0.02) if arguments.quick else (3, 0.02)
    layers = [] if arguments.show else chosen_layers(arguments.layers)
    known = known_results(arguments.json)
    with tempfile.TemporaryDirectory(prefix="kernels-") as folder:
        program = build_peak(Path(folder), target.simd_lanes)
        for layer in layers:
            bench = Bench(layer, target, cache=arguments.cache, scratch=Path(folder))
            bench.build(rates, heights)
            if not arguments.build:
                times = bench.measure(rounds=rounds, seconds=seconds)
                known[layer.name] = result(bench, *times, peak_gflops(program))
                print(f"{layer.name}: measured", flush=True)
    results = [known[layer.name] for layer in LAYERS if layer.name in known]
    if arguments.build or not results:
        return 0
    print(f"{target.name}, one core, peak {max(one['peak_gflops'] for one in results):.0f} GFLOP/s")
    show(results)
    missed = False
    for text, held in bars(results):
        missed |= not held
        print(f"{'held  ' if held else 'MISSED'} {text}")
    if not arguments.show:
        finish("kernels", {"results": results}, arguments.json)
    return 1 if missed and not arguments.quick and len(results) == len(LAYERS) else 0


if __name__ == "__main__":
    sys.exit(main())
