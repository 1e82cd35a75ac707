"""How long a compilation takes on one core: of a new machine, of a new architecture, of a new pruning.

    python benchmarks/compile.py [--quick] [--json FILE] [--height 32]

cold              MobileNetV2 in a new process with an empty cache: TVM is imported, all kernels are generated, runner
                  and interpreter compiled, everything linked. Only musl is there, which `make install` builds.
new architecture  depths and expansions of MobileNetV2 at random, all kernels in the cache, the program of them not: it
                  is linked, and the plan written.
new pruning       another rate in every layer of a known architecture, in blocks of --height filters: the plan is
                  written, and what the set of kernels has not had so far is linked (or a kernel generated).

Each compilation includes the host's reference answer. Beside it, what the peers take to load the
dense MobileNetV2 from an ONNX file, optimisations included. At the end, several processes that share an empty cache
compile new architectures, on as many cores.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":  # run as a script: the packages lie beside this folder
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch

from benchmarks._harness import finish, parser, table
from benchmarks._onnx import to_onnx
from benchmarks.models.mobilenet_v2 import MobileNetV2
from benchmarks.peers import PEERS
from benchmarks.peers.process import PeerProcess
from device_farm.compiler import Graph, compile_network, host_target
from device_farm.compiler.frontend import import_module
from device_farm.compiler.graph import BlockSparsity, Conv2d, Shape
from device_farm.compiler.weights import seeded_weights, weight_shape

BARS_S = {"cold": 6.0, "new architecture": 0.5, "new pruning": 0.2}
_COLD = """
import json, sys, time
from pathlib import Path
from device_farm.compiler import Graph, compile_network, host_target
graphs = [Graph.from_json(graph) for graph in json.load(sys.stdin)]
folder = Path(sys.argv[1])
for graph in graphs:
    start = time.perf_counter()
    compile_network(graph, target=host_target(), out_dir=folder / "out", cache_dir=folder / "cache")
    print(time.perf_counter() - start, flush=True)
"""


def architecture(seed: int | None) -> Graph:
    """MobileNetV2 at 224x224, or one with depths and expansions of its own."""
    model: type[MobileNetV2] = MobileNetV2
    if seed is not None:
        draw = random.Random(seed)
        settings = tuple(
            (expansion if expansion == 1 else draw.choice((3, 4, 6)), channels, draw.randint(1, repeats + 1), stride)
            for expansion, channels, repeats, stride in MobileNetV2.SETTINGS
        )
        model = type("Varied", (MobileNetV2,), {"SETTINGS": settings})
    torch.manual_seed(0)
    return import_module(model().eval(), Shape(224, 224, 3)).graph


def pruned(graph: Graph, seed: int, *, height: int) -> Graph:
    """Another rate in every layer but the stem."""
    draw = random.Random(seed)
    ops = []
    for op in graph.ops:
        if isinstance(op, Conv2d) and graph.input.name not in op.inputs:
            _, channels, kh, kw = weight_shape(graph, op)
            kept = max(1, round(channels * kh * kw / draw.choice((1.5, 2, 2.5, 3, 5, 7, 10))))
            op = type(op)(**(vars(op) | {"sparsity": BlockSparsity(height, (kept,) * -(-op.filters // height))}))
        ops.append(op)
    return Graph(tuple(ops))


def cold(graphs: Sequence[Graph], *, cores: set[int], folder: Path) -> list[float]:
    """Seconds of each compilation in a new process, pinned, on a cache that is empty at first."""
    done = subprocess.run(
        [sys.executable, "-c", _COLD, str(folder)],
        input=json.dumps([graph.to_json() for graph in graphs]),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env=dict(os.environ) | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )
    return [float(line) for line in done.stdout.split()]


def timed(graphs: Sequence[Graph], *, cache: Path, out: Path, forget_programs: bool) -> list[float]:
    """Seconds of each compilation in this process; `forget_programs` before each, so that it is linked anew."""
    seconds = []
    for graph in graphs:
        if forget_programs:
            for entry in cache.glob("program-*.object"):
                entry.unlink()
        start = time.perf_counter()
        compile_network(graph, target=host_target(), out_dir=out, cache_dir=cache)
        seconds.append(time.perf_counter() - start)
    return seconds


def parallel(graphs: Sequence[Graph], *, workers: int, folder: Path) -> float:
    """Seconds until all graphs are compiled by `workers` processes that share an empty cache."""
    shares = [graphs[worker::workers] for worker in range(workers)]
    cores = sorted(os.sched_getaffinity(0))
    start = time.perf_counter()
    children = []
    for worker, share in enumerate(shares):
        child = subprocess.Popen(
            ["taskset", "-c", str(cores[worker % len(cores)]), sys.executable, "-c", _COLD, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            env=dict(os.environ) | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
        )
        assert child.stdin is not None
        child.stdin.write(json.dumps([graph.to_json() for graph in share]))
        child.stdin.close()
        children.append(child)
    if sum(child.wait() for child in children):
        raise RuntimeError("a worker failed")
    return time.perf_counter() - start


def loads(model: bytes, count: int) -> dict[str, list[float]]:
    """Seconds that the peers which read ONNX themselves take to load a model, once they have loaded it before."""
    seconds = {}
    for name in ("onnxruntime", "openvino"):
        peer = PEERS[name]
        if missing := peer.missing():
            print(f"{peer.title} is left out: not installed: {', '.join(missing)}")
            continue
        with PeerProcess(name, model) as process:
            seconds[f"{peer.title} loads it"] = process.loads(count)
    return seconds


def main() -> int:
    options = parser(__doc__.partition("\n")[0])
    options.add_argument("--height", type=int, default=host_target().block_height, help="filters of a block")
    arguments = options.parse_args()
    torch.set_num_threads(1)
    np.seterr(all="raise", under="ignore")
    count, repeats = (4, 1) if arguments.quick else (20, 3)
    core = max(os.sched_getaffinity(0))
    everywhere = os.sched_getaffinity(0)
    base, varied = architecture(None), [architecture(seed) for seed in range(count)]
    seconds: dict[str, list[float]] = {"cold": []}
    with tempfile.TemporaryDirectory(prefix="compile-") as name:
        scratch = Path(name)
        for repeat in range(repeats):
            seconds["cold"] += cold([base], cores={core}, folder=scratch / f"cold-{repeat}")
        os.sched_setaffinity(0, {core})
        cache = scratch / "cold-0" / "cache"
        timed(varied, cache=cache, out=scratch / "first", forget_programs=False)  # all kernels become known
        seconds["new architecture"] = timed(varied, cache=cache, out=scratch / "again", forget_programs=True)
        prunings = [pruned(base, seed, height=arguments.height) for seed in range(count + 1)]
        timed(prunings[:1], cache=cache, out=scratch / "pruned", forget_programs=False)
        seconds["new pruning"] = timed(prunings[1:], cache=cache, out=scratch / "pruned", forget_programs=False)
        model = to_onnx(base, seeded_weights(base, seed=0)).SerializeToString()
        seconds |= loads(model, count)
        os.sched_setaffinity(0, everywhere)
        workers = len(everywhere)
        ways = {
            f"{count} new architectures, empty cache, {number} at once": parallel(
                varied, workers=number, folder=scratch / f"parallel-{number}"
            )
            for number in sorted({1, workers})
        }
    rows = [
        (label, len(times), min(times), float(np.median(times)), max(times), BARS_S.get(label, "-"))
        for label, times in seconds.items()
    ]
    print(f"\nMobileNetV2 224x224, {host_target().name}, one core")
    print(table(("seconds", "times", "best", "median", "worst", "bar"), rows))
    for label, total in ways.items():
        print(f"{label}: {total:.1f} s")
    failed = False
    for label, bar in BARS_S.items():
        held = float(np.median(seconds[label])) <= bar
        failed |= not held
        print(f"{'held  ' if held else 'MISSED'} {label}: {np.median(seconds[label]):.3f} s of {bar} s")
    finish("compile", {"seconds": seconds, "parallel_s": ways, "bars_s": BARS_S}, arguments.json)
    return 1 if failed and not arguments.quick else 0


if __name__ == "__main__":
    sys.exit(main())
