"""The gathered GEMM with SIMD over pixels, for blocks of eight filters: x holds planes (compiler/planar.py).

Sums are turned in registers into pixels of eight filters, so that the output is what all other kernels write; or they
are stored as they are, where the output is kept as planes (compiler/chaining.py).
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
            loop("block", e.blocks, lambda block: _Tile(spec, e, index, first, block).statements()),
        )

    return e.function(symbol, loop("tile", tiles, tile))


class _Tile:
    """One tile of one block: number `index`, which begins at pixel `first`."""

    def __init__(self, spec: PlanarKernel, e: Emitter, index: Any, first: Any, block: Any) -> None:
        self.spec, self.e, self.half = spec, e, e.narrowed(2)
        self.index, self.first, self.block = index, first, block
        self.sums = [[e.accumulator(f"sum_{v}_{f}") for f in range(HEIGHT)] for v in range(spec.vectors)]
        self.singles = [self.half.accumulator(f"single_{s}") for s in range(spec.singles)]

    def statements(self) -> Any:
        e, half, block = self.e, self.half, self.block
        begin, end, bias = e.integer("begin"), e.integer("end"), block * HEIGHT
        return sequence(
            tirx.Bind(begin, e.scalar(e.pointers, block)),
            tirx.Bind(end, e.scalar(e.pointers, block + 1)),
            [tirx.AllocBuffer(vector) for vectors in (*self.sums, self.singles) for vector in vectors],
            [
                e.store(vector, e.splat(e.scalar(e.bias, bias + f)))
                for vectors in self.sums
                for f, vector in enumerate(vectors)
            ],
            [half.store(vector, half.load(e.bias, bias)) for vector in self.singles],
            loop("tap", end - begin, self._add_tap, start=begin),
            self._add_tiled_residual() if self.spec.residual and self.spec.r_tiled else [],
            self._store_planes() if self.spec.y_tiled else self._store_pixels(),
        )

    def _add_tap(self, tap: Any) -> Any:
        e, half, vectors = self.e, self.half, self.spec.vectors
        at, single_at, weights = e.integer("at"), e.integer("single_at"), e.integer("weights_at")
        pixels = [e.vector(f"x_{v}") for v in range(vectors)]
        where = e.scalar(e.taps, tap)
        if self.spec.x_tiled:
            start = self.index * e.x_tile
            places = (start + where * (vectors * e.lanes), start + e.x_singles + where)
        else:
            places = (self.first + where, self.first + where + vectors * e.lanes)
        body = [tirx.Bind(at, places[0]), tirx.Bind(single_at, places[1]), tirx.Bind(weights, tap * HEIGHT)]
        body += [tirx.Bind(x, e.load(e.x, at + v * e.lanes)) for v, x in enumerate(pixels)]
        # Weights are operands in memory, repeated: LLVM must not see that all vectors have the same (docs/kernels.md).
        for f in range(HEIGHT):
            for v, x in enumerate(pixels):
                weight = e.splat(e.scalar(e.weights, weights + f + v * e.apart))
                body.append(e.store(self.sums[v][f], e.load(self.sums[v][f]) + x * weight))
        for s, vector in enumerate(self.singles):
            value = half.splat(half.scalar(e.x, single_at + s))
            body.append(half.store(vector, half.load(vector) + value * half.load(e.weights, weights)))
        return sequence(body)

    def _tiled_places(self, tile: Any, singles: Any) -> tuple[list[list[Any]], Any]:
        """Of the vectors of pixels and of the single pixels of the block's filters in a tiled activation."""
        start, width = self.index * tile, self.spec.vectors * self.e.lanes
        planes = [
            [start + self.block * (HEIGHT * width) + f * width + v * self.e.lanes for f in range(HEIGHT)]
            for v in range(self.spec.vectors)
        ]
        return planes, start + singles + self.block * HEIGHT

    def _add_tiled_residual(self) -> list[Any]:
        e, half = self.e, self.half
        planes, singles = self._tiled_places(e.r_tile, e.r_singles)
        added = [
            e.store(vector, e.load(vector) + e.load(e.residual, place))
            for vectors, places in zip(self.sums, planes, strict=True)
            for vector, place in zip(vectors, places, strict=True)
        ]
        added += [half.store(vector, half.load(vector) + half.load(e.residual, singles)) for vector in self.singles]
        return added

    def _store_planes(self) -> list[Any]:
        e, half, activation = self.e, self.half, self.spec.activation
        planes, singles = self._tiled_places(e.y_tile, e.y_singles)
        stored = [
            e.store(e.y, e.activate(e.load(self.sums[v][f]), activation), planes[v][f])
            for f in range(HEIGHT)
            for v in range(self.spec.vectors)
        ]
        stored += [half.store(e.y, half.activate(half.load(vector), activation), singles) for vector in self.singles]
        return stored

    def _store_pixels(self) -> list[Any]:
        e, half, start = self.e, self.half, self.e.integer("start")
        statements: list[Any] = [tirx.Bind(start, self.block * HEIGHT)]

        def place(table: Any, pixel: int) -> Any:
            return start + e.scalar(table, self.first + pixel)

        def finished(value: Any, pixels: tuple[int, ...]) -> Any:
            """With residual and activation: of one or two pixels, side by side."""
            own = e if len(pixels) == 2 else half
            if self.spec.residual and not self.spec.r_tiled:
                others = [half.load(e.residual, place(e.r_targets, pixel)) for pixel in pixels]
                value = value + (e.beside(*others) if len(others) == 2 else others[0])
            return own.activate(value, self.spec.activation)

        for v, vectors in enumerate(self.sums):
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
        for s, vector in enumerate(self.singles):
            pixel = self.spec.vectors * e.lanes + s
            statements.append(half.store(e.y, finished(half.load(vector), (pixel,)), place(e.targets, pixel)))
        return statements
