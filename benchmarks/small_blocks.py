"""Direct convolutions in blocks of 8, 16 and 32 filters: speed-up over our own dense direct ones, layer by layer.

    python benchmarks/small_blocks.py [--quick] [--json FILE] [--target x86_64-avx512] [--unit tap|quad]

Layers of MobileNetV2 and ResNet, each alone in an artifact, weights and taps from a seed. The dense peer is the direct
convolution with all taps but one a block, never by Winograd. Share of rate = speed-up / rate.
"""

from __future__ import annotations

import math
import statistics
import sys
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # run as a script: the packages lie beside this folder
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks._harness import Session, artifact_session, finish, interleave, parser, table
from device_farm.compiler import Graph, Target, compile_network, host_target
from device_farm.compiler.graph import Activation, BlockSparsity, Conv2d, Input, Padding, Shape, TapUnit
from device_farm.compiler.target import TARGETS

LayerShape = tuple[int, int, int, int]  # channels, filters, kernel, pixels
HEIGHTS = (8, 16, 32)
RATES = (2.0, 3.0, 5.0, 10.0)
BARS = {2.0: 0.9, 3.0: 0.9, 5.0: 0.9, 10.0: 0.8}  # least share of the rate, geometric mean over the layers
LAYERS: tuple[LayerShape, ...] = (
    (24, 144, 1, 56), (144, 24, 1, 56), (32, 192, 1, 28), (192, 64, 1, 14), (64, 384, 1, 14), (384, 64, 1, 14),
    (96, 576, 1, 14), (576, 160, 1, 7), (960, 320, 1, 7), (320, 1280, 1, 7),
    (64, 64, 3, 56), (128, 128, 3, 28), (256, 256, 3, 14), (512, 512, 3, 7),
    (64, 256, 1, 56), (256, 64, 1, 56), (512, 128, 1, 28), (256, 1024, 1, 14), (1024, 256, 1, 14), (512, 2048, 1, 7),
)  # fmt: skip


def layer_name(layer: LayerShape) -> str:
    channels, filters, kernel, pixels = layer
    return f"{kernel}x{kernel} {channels}->{filters} at {pixels}"


def graph(layer: LayerShape, rate: float, height: int, unit: TapUnit) -> Graph:
    channels, filters, kernel, pixels = layer
    taps = channels * kernel * kernel
    step = 4 if unit is TapUnit.QUAD else 1
    kept = taps - step if rate == 1 else max(step, round(taps / rate / step) * step)
    sparsity = BlockSparsity(height, (kept,) * math.ceil(filters / height), unit)
    return Graph(
        (
            Input("x", (), Shape(pixels, pixels, channels)),
            Conv2d(
                "conv", ("x",), filters=filters, kernel=(kernel, kernel), padding=Padding.same(kernel),
                activation=Activation.RELU, sparsity=sparsity,
            ),
        )
    )  # fmt: skip


def measure(
    target: Target, unit: TapUnit, heights: tuple[int, ...], *, rounds: int, seconds: float, cache: Path, part: slice
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    wanted = {"dense": (1.0, target.block_height, TapUnit.TAP)} | {
        f"{height} {rate:g}x": (rate, height, unit) for height in heights for rate in RATES
    }
    for layer in LAYERS[part]:
        artifacts = {
            label: compile_network(
                graph(layer, *how),
                target=target,
                out_dir=cache / "artifacts",
                cache_dir=cache,
                by_winograd=label != "dense",
            )
            for label, how in wanted.items()
        }
        sessions: dict[str, Session] = {label: artifact_session(made.path) for label, made in artifacts.items()}
        timings = interleave(sessions, rounds=rounds, seconds=seconds)
        dense = artifacts["dense"]
        for label, timing in timings.items():
            kept = artifacts[label].kept_macs
            rate = dense.kept_macs / kept
            rows.append(
                {
                    "layer": layer_name(layer), "variant": label, "ms": timing.ms, "kept_macs": kept,
                    "gflops": 2 * kept / timing.ms / 1e6, "share": timings["dense"].over(timing) / rate,
                }
            )  # fmt: skip
    return rows


def report(rows: list[dict[str, Any]], heights: tuple[int, ...]) -> dict[str, float]:
    labels = ["dense", *(f"{height} {rate:g}x" for height in heights for rate in RATES)]
    layers = list(dict.fromkeys(row["layer"] for row in rows))
    found = {(row["layer"], row["variant"]): row for row in rows}
    for title, key, form in (("GFLOP/s", "gflops", "{:.0f}"), ("share of rate", "share", "{:.2f}")):
        print("\n" + table((title, *labels), [(a, *(form.format(found[a, b][key]) for b in labels)) for a in layers]))
    means = {label: statistics.geometric_mean(found[layer, label]["share"] for layer in layers) for label in labels}
    for height in heights:
        for rate in RATES:
            mean = means[f"{height} {rate:g}x"]
            print(f"{'held  ' if mean >= BARS[rate] else 'MISSED'} blocks of {height} at {rate:g}x: {mean:.2f} of rate")
    return means


def main() -> int:
    options = parser(__doc__.partition("\n")[0])
    options.add_argument("--target", choices=sorted(TARGETS), default=host_target().name)
    options.add_argument("--unit", type=TapUnit, choices=list(TapUnit), default=TapUnit.TAP)
    options.add_argument("--heights", type=int, nargs="+", default=HEIGHTS)
    options.add_argument("--layers", default=":", help="a slice of the list, as in Python")
    options.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "npas", help="kernels and artifacts")
    arguments = options.parse_args()
    part = slice(*(int(text) if text else None for text in arguments.layers.split(":")))
    rounds, seconds = (2, 0.03) if arguments.quick else (5, 0.05)
    target, heights = TARGETS[arguments.target], tuple(arguments.heights)
    rows = measure(target, arguments.unit, heights, rounds=rounds, seconds=seconds, cache=arguments.cache, part=part)
    means = report(rows, heights)
    results = {"target": target.name, "unit": arguments.unit.value, "rows": rows, "mean_share_of_rate": means}
    finish("small_blocks", results, arguments.json)
    held = all(means[f"{height} {rate:g}x"] >= BARS[rate] for height in heights for rate in RATES)
    return 0 if held or arguments.quick else 1


if __name__ == "__main__":
    sys.exit(main())
