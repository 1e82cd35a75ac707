"""Hand-written AVX-512 loops: what broadcasts and stores cost beside multiply-adds. No TVM, no network.

    python benchmarks/microkernels.py [--quick] [--json FILE]

The first table is how many times the multiply-adds alone a loop takes in which every multiply-add gets a number of its
own, by the form of the broadcast. The second is the tile of our kernels (7 pixels x 32 filters, 14 sums) over few
taps: what it costs beyond its multiply-adds, in times of one of 512 bits (on Zen 4: in cycles), by how a number
reaches the two vectors of a pixel and by where the stores go. Every loop's answer is checked first.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":  # run as a script: the packages lie beside this folder
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from numpy.typing import NDArray

from benchmarks._harness import Session, Timing, finish, interleave, parser, relative_error, table
from benchmarks._loops import BROADCASTS, TILES, Broadcasts, Loop, Taps
from benchmarks._loops import source as assembly_of
from benchmarks._loops import table as c_table_of
from device_farm.compiler import AVX512
from device_farm.compiler.target import host_targets
from device_farm.testing.build import build

PROGRAM = Path(__file__).resolve().parent / "plans" / "microkernels.c"
TAPS = (3, 4, 5, 8, 16)
STORES = {  # where y lies behind x modulo 4 KiB
    "none": None, "at the same place": 0, "at the next tile's input": 896, "half a page away": 2048,
}  # fmt: skip
BROADCAST_LOOPS = {form: Broadcasts(form) for form in BROADCASTS}
TAP_LOOPS = {
    (taps, from_memory, place): Taps(taps, from_memory, store)
    for taps in TAPS for from_memory in (False, True) for place, store in STORES.items()
}  # fmt: skip
LOOPS: list[Loop] = [*BROADCAST_LOOPS.values(), *TAP_LOOPS.values()]
TOLERANCE = 1e-4
CHECK_ROUNDS = 100


def build_program(folder: Path) -> Path:
    """Assembler and C -> one static executable. Raises CompileError."""
    (folder / "loops.S").write_text(assembly_of(LOOPS))
    (folder / "loops.h").write_text(c_table_of(LOOPS))
    parts: list[str | Path] = [PROGRAM, folder / "loops.S", "-I", folder, "-static"]
    return build(parts, triple=AVX512.triple, output=folder / "microkernels")


def numbers(program: Path, *arguments: str) -> NDArray[np.float64]:
    done = subprocess.run([str(program), *arguments], capture_output=True, text=True, check=True, timeout=60)
    return np.array(done.stdout.split(), np.float64)


def error(program: Path, loop: Loop) -> float:
    """Relative error of what the loop leaves behind."""
    count = np.arange(8192)
    x, w = (0.5 + count % 61 / 128).astype(np.float32), ((count % 29 - 14) / 128).astype(np.float32)
    expected = loop.expected(x, w, CHECK_ROUNDS)
    return relative_error(numbers(program, loop.symbol, "check", str(CHECK_ROUNDS)), expected)


def session(program: Path, loop: Loop) -> Session:
    """Milliseconds of one round, by a process that inherits the core."""

    def run(seconds: float, cpu: int) -> Sequence[float]:
        samples: list[float] = (numbers(program, loop.symbol, "run", str(seconds)) / 1e6).tolist()
        return samples

    return run


def times_alone(timings: dict[str, Timing], form: str) -> float:
    """How many times its multiply-adds alone a loop of broadcasts takes."""
    bits, _ = BROADCASTS[form]
    alone = "alone" if bits == 512 else "half vectors alone"
    return timings[BROADCAST_LOOPS[form].symbol].over(timings[BROADCAST_LOOPS[alone].symbol])


def beyond(timings: dict[str, Timing], loop: Taps) -> float:
    """What a tile takes beyond its multiply-adds, in times of one of 512 bits."""
    alone = BROADCAST_LOOPS["alone"]
    every = timings[loop.symbol].over(timings[alone.symbol]) * alone.multiply_adds
    return (every - loop.multiply_adds) / TILES


def main() -> int:
    options = parser(__doc__.partition("\n")[0])
    arguments = options.parse_args()
    if AVX512 not in host_targets():
        print("these loops are AVX-512, which this machine does not have")
        return 0
    rounds, seconds = (3, 0.01) if arguments.quick else (15, 0.02)
    with tempfile.TemporaryDirectory(prefix="microkernels-") as scratch:
        program = build_program(Path(scratch))
        wrong = {loop.symbol: wrongness for loop in LOOPS if (wrongness := error(program, loop)) > TOLERANCE}
        if wrong:
            raise RuntimeError(f"loops that answer wrongly, with their relative errors: {wrong}")
        timings = interleave({loop.symbol: session(program, loop) for loop in LOOPS}, rounds=rounds, seconds=seconds)

    forms = {form: times_alone(timings, form) for form in BROADCASTS}
    print("A number for each of 14 multiply-adds, times the multiply-adds alone")
    print(table(("form", "times"), list(forms.items())))
    tiles = [
        {"taps": taps, "from_memory": memory, "stores": place, "beyond": beyond(timings, loop)}
        for (taps, memory, place), loop in TAP_LOOPS.items()
    ]
    print("\nA tile beyond its multiply-adds, in times of one of them; stores:")
    rows = [
        (f"{taps} taps, number {'from memory' if memory else 'loaded once'}",
         *(f"{tile['beyond']:.1f}" for tile in tiles if (tile["taps"], tile["from_memory"]) == (taps, memory)))
        for taps in TAPS for memory in (False, True)
    ]  # fmt: skip
    print(table(("tile", *STORES), rows))
    finish("microkernels", {"times_alone": forms, "tiles": tiles}, arguments.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
