"""Sums, products and activations that no convolution could take in."""

from __future__ import annotations

from typing import Any

from device_farm.compiler.kernels.emit import Emitter, loop
from device_farm.compiler.kernels.spec import Elementwise, ElementwiseKernel
from device_farm.compiler.target import Target


def emit(spec: ElementwiseKernel, symbol: str, target: Target) -> Any:
    e = Emitter(spec, target)

    def at(row: Any, column: Any, vector: Any) -> Any:
        place = column * e.pixel + vector * e.lanes
        value = e.load(e.a, row * e.a_row + place)
        if spec.operation is not Elementwise.NOTHING:
            other = e.load(e.b, row * e.b_row + vector * e.lanes)
            value = value + other if spec.operation is Elementwise.ADD else value * other
        return e.store(e.y, e.activate(value, spec.activation), row * e.y_row + place)

    def pixel(row: Any, column: Any) -> Any:
        return loop("vector", e.vectors, lambda vector: at(row, column, vector))

    return e.function(
        symbol, loop("row", e.rows, lambda row: loop("column", e.columns, lambda column: pixel(row, column)))
    )
