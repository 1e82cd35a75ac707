"""What the walk over relax hands to the mapping of operators: plain Python values, no TVM."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_farm.compiler.frontend.limits import check_activation
from device_farm.compiler.graph import DepthwiseConv2d, Input, Op, Padding, Shape
from device_farm.errors import UnsupportedOperator

Array = NDArray[Any]
USE_RELU = "use ReLU, ReLU6, hard swish or swish in its place (and fine-tune)"


@dataclass(frozen=True)
class Tensor:
    """An activation: the operator whose output it is, and the dimensions that relax sees, NCHW or flat (1, N)."""

    op: str
    dims: tuple[int, ...]


@dataclass(frozen=True)
class Call:
    """One relax call. Constants are numpy arrays (floats in float64); `dims` are those of the (first) result."""

    operator: str  # relax's name of it, without "relax."
    layer: str  # where it stands in the user's model
    args: tuple[Any, ...]
    attrs: Any
    dims: tuple[int, ...]
    dtype: str = "float32"  # of the (first) result

    def unsupported(self, reason: str, remedy: str) -> UnsupportedOperator:
        """The error that names layer, operator, reason and way out."""
        return UnsupportedOperator(f"layer {self.layer!r}: operator {self.operator!r} {reason}; {remedy}")

    def ints(self, attribute: str) -> tuple[int, ...]:
        """An attribute that is one integer or several."""
        value = getattr(self.attrs, attribute)
        return (int(value),) if isinstance(value, int) else tuple(int(item) for item in value)

    def tensor(self, index: int = 0) -> Tensor:
        value = self.args[index]
        if not isinstance(value, Tensor):
            raise self.unsupported(
                "reads a constant where an activation is expected", "compute the constant beforehand"
            )
        return value

    def constant(self, index: int) -> Array:
        value = self.args[index]
        if isinstance(value, np.ndarray):
            return value
        if isinstance(value, int | float):
            return np.asarray(value, np.float64)
        raise self.unsupported("needs weights that are constant", "weights computed from the input cannot be compiled")


def last_line(error: Exception) -> str:
    """What an error of TVM says in the end, behind its C++ stack."""
    lines = str(error).strip().splitlines()
    return (lines[-1] if lines else type(error).__name__)[:300]


Handler = Callable[["Builder", Call], Any]


class Builder:
    """Collects the operators of the graph and their weights, in float64 until everything is folded."""

    def __init__(self, input_shape: Shape) -> None:
        self.ops: dict[str, Op] = {}
        self.shapes: dict[str, Shape] = {}
        self.weights: dict[str, Array] = {}
        self._append(Input("input", (), input_shape))

    def add(
        self,
        call: Call,
        make: Callable[..., Op],
        *inputs: Tensor,
        weights: Mapping[str, Array] | None = None,
        **fields: Any,
    ) -> Tensor:
        """Append an operator under the layer's name; a flat activation stays flat where it is a vector."""
        name = self._unique(call.layer)
        self._append(make(name, tuple(tensor.op for tensor in inputs), **fields))
        for suffix, value in (weights or {}).items():
            self.weights[f"{name}.{suffix}"] = value
        return Tensor(name, call.dims)

    def affine(
        self, call: Call, tensor: Tensor, scale: Array, shift: Array, *, padding: Padding | None = None
    ) -> Tensor:
        """scale * x + shift for every channel, as the 1x1 depthwise convolution that passes can fold."""
        channels = self.shapes[tensor.op].channels
        weights = {
            "weight": np.broadcast_to(scale, (channels,)).astype(np.float64).reshape(channels, 1, 1, 1),
            "bias": np.broadcast_to(shift, (channels,)).astype(np.float64),
        }
        border = padding or Padding()
        if call.layer in self.ops:  # the bias of a convolution: leave the plain names to what is run in the end
            call = dataclasses.replace(call, layer=f"{call.layer}/affine")
        return self.add(call, DepthwiseConv2d, tensor, weights=weights, kernel=(1, 1), padding=border)

    def chw(self, tensor: Tensor) -> tuple[int, int, int]:
        """The extents behind an activation, in torch's order."""
        shape = self.shapes[tensor.op]
        return shape.channels, shape.height, shape.width

    def _append(self, op: Op) -> None:
        shape = op.output_shape(*(self.shapes[name] for name in op.inputs))
        check_activation(op.name, shape)
        self.shapes[op.name] = shape
        self.ops[op.name] = op

    def _unique(self, layer: str) -> str:
        count, name = 1, layer
        while name in self.ops:
            count += 1
            name = f"{layer}#{count}"
        return name


def pair(values: tuple[int, ...]) -> tuple[int, int]:
    """(vertical, horizontal) of an attribute that may be one number for both."""
    return (values[0], values[0]) if len(values) == 1 else (values[0], values[1])
