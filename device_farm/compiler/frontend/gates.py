"""Sigmoids and their products, which arrive in pieces: x * clip(x + 3, 0, 6) / 6 is one activation again.

A number that multiplies or shifts every channel alike is looked through, in whatever order the pieces come.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

import numpy as np

from device_farm.compiler.frontend.calls import Array, Builder, Call, Tensor
from device_farm.compiler.graph import Activate, Activation, DepthwiseConv2d, Padding

_PRODUCTS = {Activation.SIGMOID: Activation.SWISH, Activation.HARD_SIGMOID: Activation.HARD_SWISH}
_CLOSE = 3e-7  # constants such as 1/6 come as float32


def affine(builder: Builder, call: Call, tensor: Tensor, scale: Array, shift: Array) -> Tensor:
    """scale * x + shift; nothing at all where it takes back what the operators before it did."""
    if np.ptp(scale) == 0 and np.ptp(shift) == 0:
        a, b = float(scale.flat[0]), float(shift.flat[0])
        for source, before, offset in _levels(builder, tensor):
            if source != tensor.op and _close(a * before, 1) and _close(a * offset + b, 0):
                return Tensor(source, call.dims)
    return builder.affine(call, tensor, scale, shift)


def relu6(builder: Builder, call: Call, tensor: Tensor) -> Tensor:
    """min(max(x, 0), 6); of x + 3 it is six times the hard sigmoid."""
    source = _find(builder, tensor, 1, 3)
    if source is None:
        return builder.add(call, Activate, tensor, activation=Activation.RELU6)
    sigmoid = builder.add(call, Activate, source, activation=Activation.HARD_SIGMOID)
    return builder.affine(call, sigmoid, np.full(1, 6.0), np.zeros(1))


def unit_clip(builder: Builder, call: Call, tensor: Tensor) -> Tensor | None:
    """min(max(x / 6 + 1 / 2, 0), 1); None for any other argument."""
    source = _find(builder, tensor, 1 / 6, 1 / 2)
    return None if source is None else builder.add(call, Activate, source, activation=Activation.HARD_SIGMOID)


def self_gated(builder: Builder, call: Call, x: Tensor, gate: Tensor) -> Tensor | None:
    """x * sigmoid(x), hard or not, as the activation that it is; None for any other product."""
    for name, factor, shift in _levels(builder, gate):
        sigmoid = builder.ops[name]
        if shift == 0 and isinstance(sigmoid, Activate) and sigmoid.activation in _PRODUCTS:
            for source, other, offset in _levels(builder, x):
                if source == sigmoid.inputs[0] and offset == 0:
                    product = builder.add(
                        call, Activate, Tensor(source, x.dims), activation=_PRODUCTS[sigmoid.activation]
                    )
                    again = dataclasses.replace(call, dims=x.dims)
                    return _scaled(builder, again, product, factor * other)
    return None


def _scaled(builder: Builder, call: Call, tensor: Tensor, factor: float) -> Tensor:
    return tensor if _close(factor, 1) else builder.affine(call, tensor, np.full(1, factor), np.zeros(1))


def _find(builder: Builder, tensor: Tensor, scale: float, shift: float) -> Tensor | None:
    """The x for which the tensor is scale * x + shift."""
    for source, a, b in _levels(builder, tensor):
        if _close(a, scale) and _close(b, shift):
            return Tensor(source, tensor.dims)
    return None


def _levels(builder: Builder, tensor: Tensor) -> Iterator[tuple[str, float, float]]:
    """(x, a, b) with tensor = a * x + b, beginning with the tensor itself."""
    name, a, b = tensor.op, 1.0, 0.0
    while True:
        yield name, a, b
        op = builder.ops[name]
        if not isinstance(op, DepthwiseConv2d) or op != DepthwiseConv2d(name, op.inputs, (1, 1), padding=Padding()):
            return
        scale, shift = builder.weights[f"{name}.weight"], builder.weights[f"{name}.bias"]
        if np.ptp(scale) != 0 or np.ptp(shift) != 0:
            return
        name, a, b = op.inputs[0], a * float(scale.flat[0]), a * float(shift.flat[0]) + b


def _close(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=_CLOSE, abs_tol=_CLOSE)
