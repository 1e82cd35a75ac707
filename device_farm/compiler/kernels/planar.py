"""The gathered GEMM with SIMD over pixels, for blocks of eight filters: x holds planes (compiler/planar.py).

Sums are turned in registers into pixels of eight filters, so that the output is what all other kernels write.
"""

from __future__ import annotations

from typing import Any

from tvm import tirx

from device_farm.compiler.kernels.emit import Emitter, loop, sequence, tile_count, tile_start
from device_farm.compiler.kernels.spec import PlanarKernel
from device_farm.compiler.target import Target

HEIGHT = 8  # filters of a block


def emit(spec: PlanarKernel, symbol: str, target: Target) -> Any:
    """tile -> block -> taps: a tile's planes stay near for all blocks, the weights stream."""
    e = Emitter(spec, target)
    pixels = spec.vectors * e.lanes + spec.singles
    tiles = tile_count(e.pixels, pixels)

    def tile(index: Any) -> Any:
        first = e.integer("first")
        return sequence(
            tirx.Bind(first, tile_start(index, pixels, e.pixels)),
            loop("block", e.blocks, lambda block: _tile(spec, e, block, first)),
        )

    return e.function(symbol, loop("tile", tiles, tile))


def _tile(spec: PlanarKernel, e: Emitter, block: Any, first: Any) -> Any:
    half = e.narrowed(2)
    sums = [[e.accumulator(f"sum_{v}_{f}") for f in range(HEIGHT)] for v in range(spec.vectors)]
    singles = [half.accumulator(f"single_{s}") for s in range(spec.singles)]
    begin, end, start = e.integer("begin"), e.integer("end"), e.integer("start")
    bias = block * HEIGHT
    statements = [
        tirx.Bind(begin, e.scalar(e.pointers, block)),
        tirx.Bind(end, e.scalar(e.pointers, block + 1)),
        tirx.Bind(start, block * HEIGHT),
        *(tirx.AllocBuffer(vector) for vectors in (*sums, singles) for vector in vectors),
        *(
            e.store(vector, e.splat(e.scalar(e.bias, bias + f)))
            for vectors in sums
            for f, vector in enumerate(vectors)
        ),
        *(half.store(vector, half.load(e.bias, bias)) for vector in singles),
    ]  # fmt: skip

    def add_tap(tap: Any) -> Any:
        at, weights = e.integer("at"), e.integer("weights_at")
        pixels = [e.vector(f"x_{v}") for v in range(spec.vectors)]
        body = [tirx.Bind(at, first + e.scalar(e.taps, tap)), tirx.Bind(weights, tap * HEIGHT)]
        body += [tirx.Bind(x, e.load(e.x, at + v * e.lanes)) for v, x in enumerate(pixels)]
        # Weights are operands in memory, repeated: LLVM must not see that all vectors have the same (docs/kernels.md).
        for f in range(HEIGHT):
            for v, x in enumerate(pixels):
                weight = e.splat(e.scalar(e.weights, weights + f + v * e.apart))
                body.append(e.store(sums[v][f], e.load(sums[v][f]) + x * weight))
        for s, vector in enumerate(singles):
            value = half.splat(half.scalar(e.x, at + spec.vectors * e.lanes + s))
            body.append(half.store(vector, half.load(vector) + value * half.load(e.weights, weights)))
        return sequence(body)

    def place(table: Any, pixel: int) -> Any:
        return start + e.scalar(table, first + pixel)

    statements.append(loop("tap", end - begin, add_tap, start=begin))

    def finished(value: Any, pixels: tuple[int, ...]) -> Any:
        """With residual and activation: of one or two pixels, side by side."""
        own = e if len(pixels) == 2 else half
        if spec.residual:
            others = [half.load(e.residual, place(e.r_targets, pixel)) for pixel in pixels]
            value = value + (e.beside(*others) if len(others) == 2 else others[0])
        return own.activate(value, spec.activation)

    for v, vectors in enumerate(sums):
        filters = [e.vector(f"filter_{v}_{f}") for f in range(HEIGHT)]
        statements += [tirx.Bind(name, e.load(vector)) for name, vector in zip(filters, vectors, strict=True)]
        steps, pairs = e.transposed_half(filters)
        statements += steps
        results = {}
        for low, high, pair in pairs:
            result = e.vector(f"result_{v}_{low}")
            statements.append(tirx.Bind(result, finished(pair, (v * e.lanes + low, v * e.lanes + high))))
            results[low], results[high] = e.halves(result)
        # Ascending: what was computed between two rows is overwritten by the pixel behind it.
        statements += [
            half.store(e.y, results[pixel], place(e.targets, v * e.lanes + pixel)) for pixel in range(e.lanes)
        ]
    for s, vector in enumerate(singles):
        pixel = spec.vectors * e.lanes + s
        statements.append(half.store(e.y, finished(half.load(vector), (pixel,)), place(e.targets, pixel)))
    return sequence(statements)
