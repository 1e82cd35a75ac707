"""`python -m device_farm.compiler.warm_up`: what a machine's first link builds, built before anybody waits for it.

zig builds musl and its own runtime once for each target, which takes up to a minute.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from device_farm.compiler.compile import compile_network
from device_farm.compiler.graph import Conv2d, Graph, Input, Shape
from device_farm.compiler.target import Target, host_target


def warm_up(target: Target) -> float:
    """Compiles a network of one layer and throws it away; the seconds that it took. Raises CompileError."""
    graph = Graph((Input("image", (), Shape(1, 1, 1)), Conv2d("conv", ("image",), filters=1)))
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="npas-warm-up-") as folder:
        compile_network(graph, target=target, out_dir=Path(folder) / "out", cache_dir=Path(folder) / "cache")
    return time.perf_counter() - started


def main() -> None:
    target = host_target()
    print(f"linker and libc for {target.name}: {warm_up(target):.0f} s")


if __name__ == "__main__":
    main()
