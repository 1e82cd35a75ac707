"""Sums and activations that no convolution could take in."""

from __future__ import annotations

from typing import Any

from device_farm.compiler.kernels.emit import Emitter, loop
from device_farm.compiler.kernels.spec import ElementwiseKernel
from device_farm.compiler.target import Target


def emit(spec: ElementwiseKernel, symbol: str, target: Target) -> Any:
    e = Emitter(spec, target)

    def at(row: Any, vector: Any) -> Any:
        value = e.load(e.a, row * e.a_row + vector * e.lanes)
        if spec.operands == 2:
            value = value + e.load(e.b, row * e.b_row + vector * e.lanes)
        return e.store(e.y, e.activate(value, spec.activation), row * e.y_row + vector * e.lanes)

    return e.function(
        symbol, loop("row", e.rows, lambda row: loop("vector", e.vectors, lambda vector: at(row, vector)))
    )
