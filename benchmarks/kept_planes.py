"""Networks in blocks of eight filters whose activations stay planes, beside the same ones turned back to NHWC.

    python benchmarks/kept_planes.py [--quick] [--json FILE] [--networks resnet50 mobilenet_v2] [--rates 2,3,5,10]

For AVX-512 (docs/neon.md). 224x224, weights and taps from a seed, stem and depthwise dense, each artifact as a search
times it, in turns with its twin whose layers all write NHWC. `unfused` is without fused inverted residuals, which read
and write NHWC. `kept` counts the activations that stay planes.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # run as a script: the packages lie beside this folder
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks._harness import artifact_session, finish, interleave, parser, table
from benchmarks.models import MODELS, initialised
from device_farm.compiler import AVX512, Graph, compile_network, planar
from device_farm.compiler.frontend import import_module
from device_farm.compiler.fusing import fused_blocks
from device_farm.compiler.graph import Shape
from device_farm.compiler.layout import plan_memory
from device_farm.compiler.living import living_blocks
from device_farm.compiler.passes import sparsify

HEIGHT = AVX512.tiles[-1].height


@contextlib.contextmanager
def turned_back() -> Iterator[None]:
    """What is compiled meanwhile keeps no planes, as the model says that this costs too much."""
    cost, planar.KEPT = planar.KEPT, 1e9
    try:
        yield
    finally:
        planar.KEPT = cost


def measure(
    graph: Graph, *, fuse: bool, rounds: int, seconds: float, scratch: Path, cache: Path
) -> tuple[int, dict[str, Any]]:
    """How many activations stay planes, and the timings."""
    with turned_back():
        nhwc = compile_network(graph, target=AVX512, out_dir=scratch / "nhwc", cache_dir=cache, fuse=fuse)
    planes = compile_network(graph, target=AVX512, out_dir=scratch / "planes", cache_dir=cache, fuse=fuse)
    living = living_blocks(graph, AVX512, weights=None, seed=0)
    kept = len(plan_memory(graph, AVX512, fused_blocks(graph) if fuse else (), living).tiled)
    sessions = {"planes": artifact_session(planes.path), "nhwc": artifact_session(nhwc.path)}
    timings = interleave(sessions, rounds=rounds, seconds=seconds)
    times = {label: timing.to_json() for label, timing in timings.items()}
    return kept, times | {"ratio": timings["nhwc"].over(timings["planes"])}


def main() -> None:
    options = parser(str(__doc__).partition("\n")[0])
    options.add_argument("--networks", nargs="+", choices=sorted(MODELS), default=["resnet50", "mobilenet_v2"])
    options.add_argument("--rates", default="2,3,5,10", help="comma-separated")
    options.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "npas", help="compiled kernels")
    arguments = options.parse_args()
    rounds, seconds = (4, 0.1) if arguments.quick else (8, 0.3)
    rows, results = [], []
    for name in arguments.networks:
        dense = import_module(initialised(name).eval(), Shape(224, 224, 3)).graph
        for rate in map(float, arguments.rates.split(",")):
            graph = sparsify(dense, rate, HEIGHT)
            for fuse in (True, False) if fused_blocks(graph) else (True,):
                with tempfile.TemporaryDirectory(prefix="planes-") as folder:
                    kept, times = measure(
                        graph, fuse=fuse, rounds=rounds, seconds=seconds, scratch=Path(folder), cache=arguments.cache
                    )
                label = f"{name} {rate:g}x" + ("" if fuse else " unfused")
                results.append({"network": name, "rate": rate, "fused": fuse, "kept": kept, **times})
                figures = (f"{times[way]['ms']:.2f}" for way in ("nhwc", "planes"))
                best = times["nhwc"]["ms"] / times["planes"]["ms"]
                rows.append((label, str(kept), *figures, f"{best:.3f}", f"{times['ratio']:.3f}"))
                print(f"{label}: measured", flush=True)
    print(table((f"blocks of {HEIGHT}", "kept", "NHWC ms", "planes ms", "ratio of best", "of rounds"), rows))
    finish("kept_planes", {"results": results}, arguments.json)


if __name__ == "__main__":
    main()
