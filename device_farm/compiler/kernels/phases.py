"""The four phases of an image, even and odd rows and columns, side by side as channels of an image of half the size."""

from __future__ import annotations

from typing import Any

from tvm import tirx

from device_farm.compiler.kernels.emit import Emitter, loop, sequence
from device_farm.compiler.kernels.spec import PhasesKernel
from device_farm.compiler.target import Target


def emit(spec: PhasesKernel, symbol: str, target: Target) -> Any:
    """Two neighbours of a row are one run of floats, copied in whole vectors; the later run covers what is too much."""
    e, pair = Emitter(spec, target), 2 * spec.channels

    def in_pixel(row: Any, column: Any) -> Any:
        x_start, y_start = e.integer("x_start"), e.integer("y_start")
        copies = [
            e.store(e.y, e.load(e.x, x_start + (line * e.x_row + at)), y_start + (line * pair + at))
            for line in range(2)
            for at in range(0, pair, e.lanes)
        ]
        return sequence(
            tirx.Bind(x_start, row * (2 * e.x_row) + column * pair),
            tirx.Bind(y_start, (row * e.columns + column) * spec.pixel),
            copies,
        )

    return e.function(
        symbol, loop("row", e.rows, lambda row: loop("column", e.columns, lambda column: in_pixel(row, column)))
    )
