"""A model, not a measurement: llvm-mca's share of peak of the gathered GEMM's inner loops on ARM cores.

    python benchmarks/neon.py [--json FILE] [--cores cortex-a55 cortex-a76 ...] [--target aarch64-neon]

For every register tile the kernel is generated as it would be for a phone, its innermost loop is taken from the
assembly text, and llvm-mca (Debian: llvm) counts the cycles of an endless run of it, all loads from the first-level
cache. Peak is what the same tool gives for as much arithmetic in independent vectors of full width. LLVM has no model
of its own for every core: up to LLVM 15 it takes Cortex-A57's for A76, A78 and X1, which do two or three loads a cycle
where that does one, and X1 twice the multiply-adds.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # run as a script: the packages lie beside this folder
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks._harness import finish, parser, table
from device_farm.compiler.assembly import InnerLoop, inner_loops, kernel_assembly
from device_farm.compiler.graph import Activation
from device_farm.compiler.kernels.spec import ConvKernel
from device_farm.compiler.target import TARGETS, Target

CORES = {
    "aarch64-neon": ("cortex-a53", "cortex-a55", "cortex-a76", "cortex-a78", "cortex-x1", "exynos-m5", "apple-a14"),
    "x86_64-avx512": ("znver4", "skylake-avx512", "sapphirerapids"),
    "x86_64-avx2": ("znver3", "haswell", "alderlake"),
}
TILES = {  # (vectors, lanes, channels of a tap, pixels)
    "aarch64-neon": (
        (2, 4, 1, 8), (2, 4, 1, 10), (2, 4, 1, 12), (2, 4, 4, 6), (2, 4, 4, 7), (2, 4, 4, 8), (2, 4, 4, 9),
        (2, 4, 4, 10), (1, 4, 1, 16), (1, 4, 1, 20), (1, 4, 4, 8), (1, 4, 4, 12), (1, 4, 4, 14),
    ),
    "x86_64-avx512": (
        (2, 16, 1, 7), (2, 16, 1, 14), (1, 16, 1, 14), (1, 16, 1, 28), (1, 8, 1, 14), (1, 8, 1, 28)
    ),
    "x86_64-avx2": ((2, 8, 1, 6), (1, 8, 1, 10), (1, 8, 1, 14), (2, 8, 4, 6)),
}  # fmt: skip
ITERATIONS = 200


def conv_loop(target: Target, vectors: int, lanes: int, tap_channels: int, pixels: int) -> InnerLoop:
    """The loop over taps of one tile, pixels 64 channels apart."""
    spec = ConvKernel(
        vectors=vectors, vector_lanes=lanes, tap_channels=tap_channels, tile_rows=1,
        tile_columns=pixels,
        pixel_stride=64, line_stride=0, tap_unroll=1, activation=Activation.RELU, residual=False,
    )  # fmt: skip
    return max(inner_loops(kernel_assembly(spec, target)), key=lambda loop: loop.multiply_adds)


def cycles(tool: str, target: Target, core: str, instructions: list[str]) -> float | None:
    """Of one iteration of an endless loop; None where the tool does not know the core."""
    command = [tool, f"-mtriple={target.triple}", f"-mcpu={core}", f"-iterations={ITERATIONS}", "--instruction-info=0"]
    text = "\n".join(line for line in instructions if not re.match(r"^(b|j)\S*\s+\.L", line))
    done = subprocess.run(command, input=text + "\n", capture_output=True, text=True, timeout=60)
    total = re.search(r"Total Cycles:\s+(\d+)", done.stdout)
    known = "is not a recognized processor" not in done.stderr
    return int(total[1]) / ITERATIONS if done.returncode == 0 and total and known else None


def peak_cycles(tool: str, target: Target, core: str, loop: InnerLoop, lanes: int) -> float | None:
    """Of the loop's multiply-adds in vectors of full width, if nothing else were to be done and none had to wait."""
    if target.triple.startswith("aarch64"):
        line, registers = "fmla v{}.4s, v30.4s, v31.s[0]", 28
    else:
        letter, registers = ("z", 28) if target.simd_lanes == 16 else ("y", 14)
        line = f"vfmadd231ps %{letter}mm14, %{letter}mm15, %{letter}mm{{}}".replace("mm14", f"mm{registers}")
    least = cycles(tool, target, core, [line.format(index % registers) for index in range(28)])
    return least and least * loop.multiply_adds * lanes / target.simd_lanes / 28


def main() -> int:
    options = parser(__doc__.partition("\n")[0])
    options.add_argument("--target", choices=sorted(TILES), default="aarch64-neon")
    options.add_argument("--cores", nargs="+")
    arguments = options.parse_args()
    tool = shutil.which("llvm-mca")
    if tool is None:
        print("llvm-mca is not installed: this table needs LLVM's tools (Debian and Ubuntu: apt install llvm)")
        return 1
    version = subprocess.run([tool, "--version"], capture_output=True, text=True).stdout
    release = re.search(r"LLVM version ([\d.]+)", version)
    target, cores = TARGETS[arguments.target], arguments.cores or CORES[arguments.target]
    rows: list[dict[str, Any]] = []
    for vectors, lanes, tap_channels, pixels in TILES[target.name]:
        loop = conv_loop(target, vectors, lanes, tap_channels, pixels)
        shares: dict[str, float | None] = {}
        for core in cores:
            least = peak_cycles(tool, target, core, loop, lanes)
            whole = cycles(tool, target, core, list(loop.instructions))
            shares[core] = least / whole if least and whole else None
        rows.append(
            {
                "filters": vectors * lanes,
                "tap_channels": tap_channels, "pixels": pixels,
                "multiply_adds": loop.multiply_adds, "vector_loads": loop.vector_loads,
                "stack_accesses": len(loop.stack_accesses), "share_of_peak": shares,
            }
        )  # fmt: skip
    print(f"MODEL: llvm-mca {release[1] if release else '?'}, {target.name}, share of peak of the inner loop")
    header = ("filters x channels x pixels", "FMA", "loads", "stack", *cores)
    body = [
        (
            f"{row['filters']} x {row['tap_channels']} x {row['pixels']}", row["multiply_adds"], row["vector_loads"],
            row["stack_accesses"], *(f"{s:.0%}" if (s := row["share_of_peak"][core]) else "-" for core in cores),
        )
        for row in rows
    ]  # fmt: skip
    print(table(header, body))
    results = {"model": True, "llvm": release[1] if release else None, "target": target.name, "tiles": rows}
    finish("neon", results, arguments.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
