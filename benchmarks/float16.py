"""Half precision on Arm: how far whole networks are from float32 under qemu, and what llvm-mca says of the inner loops.

    python benchmarks/float16.py [--quick] [--json FILE] [--networks mobilenet_v2 ...] [--pixels N] [--rates 1,5]

`error` is the largest difference from float32 (torch), relative to the largest expected magnitude; `stored` the same of
exact arithmetic on weights and activations that are rounded to float16: what no kernel can be better than. Two sets of
weights: `seed` are those of benchmark artifacts, `random` are kaiming weights with batch norms calibrated on noise.

The last part is a model, not a measurement: no Arm processor was at hand. It gives llvm-mca's cycles for each vector
multiply-add of an inner loop, of eight products in float16 and four in float32. LLVM 14 describes A76 and X1 by its
model of Cortex-A57; TSV110 (ARMv8.2, two multiply-adds a cycle like A76) has a model of its own. A missed bar ends the
run with status 1.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # run as a script: the packages lie beside this folder
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks._harness import finish, parser, relative_error, table
from benchmarks.models import MODELS, calibrate, initialised
from device_farm.compiler import NEON, NEON_FP16, Graph, Target, compile_network, reference_output, seeded_weights
from device_farm.compiler.assembly import InnerLoop, inner_loops, kernel_assembly
from device_farm.compiler.element import Element
from device_farm.compiler.frontend import import_module
from device_farm.compiler.graph import Activation, Shape
from device_farm.compiler.kernels.spec import ConvKernel, KernelSpec, WinogradProduct
from device_farm.compiler.passes import prune_weights, sparsify
from device_farm.compiler.seeded import INPUT_STREAM, uniform
from device_farm.compiler.testing import run_artifact
from device_farm.compiler.tiling import PART_PRODUCTS

BAR = 5e-3  # of networks with weights from a seed
CORES = ("cortex-a55", "cortex-a76", "cortex-x1", "tsv110")
SEED = 1
ROUNDS = 200


def measure(name: str, rate: float, *, pixels: int, folder: Path, cache: Path) -> list[dict[str, Any]]:
    """Errors of one network at one rate."""
    torch.set_num_threads(1)
    shape, height = Shape(pixels, pixels, 3), NEON_FP16.block_height
    dense = import_module(initialised(name).eval(), shape).graph
    seeded = dense if rate == 1 else sparsify(dense, rate, height)
    image = uniform(SEED, INPUT_STREAM, shape.elements)
    rows = [_row(seeded, None, image, folder=folder, cache=cache) | {"weights": "seed"}]

    module = initialised(name)
    parameters = {key: parameter.detach().numpy() for key, parameter in module.named_parameters()}
    if rate != 1:
        parameters = prune_weights(dense, parameters, rate, height)[1]
        module.load_state_dict({key: torch.from_numpy(array) for key, array in parameters.items()}, strict=False)
    imported = import_module(calibrate(module, pixels=pixels), shape)
    noise = torch.randn(pixels, pixels, 3, generator=torch.Generator().manual_seed(2)).numpy()
    given = _row(imported.graph, imported.weights, noise, folder=folder, cache=cache)
    rows.append(given | {"weights": "random"})
    return [{"network": name, "rate": rate, "pixels": pixels} | row for row in rows]


def _row(
    graph: Graph, weights: Mapping[str, NDArray[Any]] | None, image: NDArray[np.float32], *, folder: Path, cache: Path
) -> dict[str, Any]:
    artifact = compile_network(graph, target=NEON_FP16, out_dir=folder, cache_dir=cache, weights=weights, seed=SEED)
    known = seeded_weights(graph, seed=SEED) if weights is None else weights
    expected = reference_output(graph, known, image).reshape(-1)
    rounded = reference_output(graph, known, image, double=True, stored=Element.FLOAT16).reshape(-1)
    got = run_artifact(artifact, image[None], scratch=folder, timeout_s=900)[0]
    return {"error": relative_error(got, expected), "stored": relative_error(rounded, expected)}


def kernels(target: Target) -> dict[str, KernelSpec]:
    """Kernels as whole layers use them."""
    half = target.element is Element.FLOAT16

    def conv(rows: int, columns: int, channels: int) -> ConvKernel:
        return ConvKernel(
            vectors=2, vector_lanes=target.simd_lanes, tap_channels=channels, tile_rows=rows, tile_columns=columns,
            pixel_stride=64, line_stride=64 * 58 if rows > 1 else 0, tap_unroll=1, activation=Activation.RELU,
            residual=False, part_taps=PART_PRODUCTS // channels if half else 0,
        )  # fmt: skip

    return {
        f"free taps, 1x{target.tile_pixels} pixels": conv(1, target.tile_pixels, 1),
        f"free taps, 2x{target.tile_pixels // 2} pixels": conv(2, target.tile_pixels // 2, 1),
        "quads of channels, 1x8 pixels": conv(1, 8, 4),
        "Winograd's products, 8 tiles": WinogradProduct(2, 8, PART_PRODUCTS if half else 0),
    }


def modelled(target: Target) -> list[dict[str, Any]]:
    rows = []
    for name, spec in kernels(target).items():
        loop = max(inner_loops(kernel_assembly(spec, target)), key=lambda loop: loop.multiply_adds)
        row: dict[str, Any] = {"kernel": name, "target": target.name, "fmla": loop.multiply_adds}
        row["instructions"] = len(loop.instructions)
        for core in CORES:
            row[core] = cycles(loop, target, core) / loop.multiply_adds
        rows.append(row)
    return rows


def cycles(loop: InnerLoop, target: Target, core: str) -> float:
    """Of one round of an endless loop, by llvm-mca (Debian: llvm). Raises OSError, CalledProcessError."""
    text = "\n".join(line for line in loop.instructions if not re.match(r"(b|cb|tb)\S*\s.*\.L", line))
    features = ["-mattr=+fullfp16"] if target.element is Element.FLOAT16 else []
    command = ["llvm-mca", f"-mtriple={target.triple}", f"-mcpu={core}", f"-iterations={ROUNDS}", *features]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=True)
    found = re.search(r"Total Cycles:\s+(\d+)", done.stdout)
    assert found is not None, done.stdout
    return int(found[1]) / ROUNDS


def main(argv: Sequence[str] | None = None) -> int:
    options = parser(__doc__.splitlines()[0] if __doc__ else "")
    options.add_argument("--networks", nargs="+", choices=sorted(MODELS), default=sorted(MODELS))
    options.add_argument("--pixels", type=int, default=224)
    options.add_argument("--rates", default="1,5")
    arguments = options.parse_args(argv)
    pixels = 64 if arguments.quick else arguments.pixels
    rates = [float(rate) for rate in arguments.rates.split(",")]
    rows = []
    with tempfile.TemporaryDirectory(prefix="float16-") as scratch:
        folder, cache = Path(scratch), Path(scratch) / "cache"
        for name in arguments.networks:
            for rate in rates:
                rows += measure(name, rate, pixels=pixels, folder=folder, cache=cache)
                print(*rows[-2:], sep="\n", file=sys.stderr, flush=True)
    columns: tuple[str, ...] = ("network", "pixels", "rate", "weights", "error", "stored")
    print(table(columns, [[f"{row[c]:.2e}" if c in columns[4:] else row[c] for c in columns] for row in rows]))
    models = [row for target in (NEON, NEON_FP16) for row in modelled(target)]
    print("\nA model (llvm-mca): cycles a multiply-add")
    columns = ("kernel", "target", "fmla", "instructions", *CORES)
    print(table(columns, [[row[column] for column in columns] for row in models]))
    missed = [row for row in rows if row["weights"] == "seed" and row["error"] > BAR]
    finish("float16", {"errors": rows, "model": models, "bar": BAR, "missed": missed}, arguments.json)
    return 1 if missed and not arguments.quick else 0


if __name__ == "__main__":
    sys.exit(main())
