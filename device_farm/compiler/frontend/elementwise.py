"""Activations, and arithmetic with another activation or with constants of the channels."""

from __future__ import annotations

import math

import numpy as np

from device_farm.compiler.frontend import gates
from device_farm.compiler.frontend.calls import USE_RELU, Array, Builder, Call, Handler, Tensor
from device_farm.compiler.graph import Activate, Activation, Add, Multiply


def activate(activation: Activation) -> Handler:
    return lambda builder, call: builder.add(call, Activate, call.tensor(), activation=activation)


def clip(builder: Builder, call: Call) -> Tensor:
    """Bounds at 0 and 6, both or one after the other, and the hard sigmoid's at 0 and 1."""
    low, high = (float(call.constant(index)) for index in (1, 2))
    tensor = call.tensor()
    if (low, high) == (0, 6):
        return gates.relu6(builder, call, tensor)
    if (low, high) == (0, math.inf):
        return builder.add(call, Activate, tensor, activation=Activation.RELU)
    if low == -math.inf:
        return _cut(builder, call, tensor, high)
    if (low, high) == (0, 1) and (sigmoid := gates.unit_clip(builder, call, tensor)) is not None:
        return sigmoid
    raise call.unsupported(f"clips to [{low:g}, {high:g}]", USE_RELU)


def maximum(builder: Builder, call: Call) -> Tensor:
    tensor, bound = _with_constant(call)
    if bound is None or np.any(bound != 0):
        raise call.unsupported("compares with something else than 0", USE_RELU)
    return builder.add(call, Activate, tensor, activation=Activation.RELU)


def minimum(builder: Builder, call: Call) -> Tensor:
    """The second half of a clip, as the ONNX front end writes it: min(max(x, 0), 6)."""
    tensor, bound = _with_constant(call)
    if bound is None or np.ptp(bound) != 0:
        raise call.unsupported("compares with something else than one number", USE_RELU)
    return _cut(builder, call, tensor, float(bound.flat[0]))


def _cut(builder: Builder, call: Call, tensor: Tensor, high: float) -> Tensor:
    """min(x, high) of what is a ReLU already."""
    producer = builder.ops[tensor.op]
    if high == math.inf:
        return tensor
    if not (isinstance(producer, Activate) and producer.activation in (Activation.RELU, Activation.RELU6)):
        raise call.unsupported("is not behind a ReLU", USE_RELU)
    before = Tensor(producer.inputs[0], tensor.dims)
    if high == 6:
        return gates.relu6(builder, call, before)
    if high == 1 and (sigmoid := gates.unit_clip(builder, call, before)) is not None:
        return sigmoid
    raise call.unsupported(f"clips to [0, {high:g}]", USE_RELU)


def add(builder: Builder, call: Call) -> Tensor:
    tensor, constant = _with_constant(call)
    if constant is not None:
        return gates.affine(builder, call, tensor, np.ones(1), _per_channel(builder, call, tensor, constant))
    other = call.tensor(1)
    if builder.shapes[tensor.op] != builder.shapes[other.op]:
        raise call.unsupported(f"adds {tensor.dims} and {other.dims}", "activations must have the same shape")
    return builder.add(call, Add, tensor, other)


def subtract(builder: Builder, call: Call) -> Tensor:
    tensor, constant = _with_constant(call)
    if constant is None:
        raise call.unsupported("takes the difference of two activations", "use a sum: move the sign into the weights")
    shift = _per_channel(builder, call, tensor, constant)
    if tensor is call.args[0]:
        return gates.affine(builder, call, tensor, np.ones(1), -shift)
    return gates.affine(builder, call, tensor, -np.ones(1), shift)


def multiply(builder: Builder, call: Call) -> Tensor:
    tensor, constant = _with_constant(call)
    if constant is not None:
        return gates.affine(builder, call, tensor, _per_channel(builder, call, tensor, constant), np.zeros(1))
    pairs = ((tensor, call.tensor(1)), (call.tensor(1), tensor))
    for x, gate in pairs:
        if (activated := gates.self_gated(builder, call, x, gate)) is not None:
            return activated
    for x, gate in pairs:
        image, factor = builder.shapes[x.op], builder.shapes[gate.op]
        if len(x.dims) == len(gate.dims) and factor in (image, image._replace(height=1, width=1)):
            return builder.add(call, Multiply, x, gate)
    raise call.unsupported(
        f"multiplies {tensor.dims} by {call.tensor(1).dims}",
        "factors must have the same shape, or be one a channel: (1, channels, 1, 1)",
    )


def divide(builder: Builder, call: Call) -> Tensor:
    tensor, constant = _with_constant(call)
    if constant is None or tensor is not call.args[0]:
        raise call.unsupported("divides by an activation", "only constants can be divided by")
    return gates.affine(builder, call, tensor, 1.0 / _per_channel(builder, call, tensor, constant), np.zeros(1))


def negative(builder: Builder, call: Call) -> Tensor:
    return gates.affine(builder, call, call.tensor(), -np.ones(1), np.zeros(1))


def identity(_: Builder, call: Call) -> Tensor:
    return call.tensor()


def _with_constant(call: Call) -> tuple[Tensor, Array | None]:
    """(activation, constant) of an operator on two; the constant is None if both are activations."""
    first, second = call.args
    if isinstance(first, Tensor):
        return first, None if isinstance(second, Tensor) else call.constant(1)
    return call.tensor(1), call.constant(0)


def _per_channel(builder: Builder, call: Call, tensor: Tensor, constant: Array) -> Array:
    """One number for every channel, from a constant that is broadcast over an activation."""
    if constant.size == 1:
        return constant.reshape(1)
    channels, height, width = builder.chw(tensor)
    dims = (1,) * (len(tensor.dims) - constant.ndim) + constant.shape
    flat_image = len(tensor.dims) == 2 and height * width > 1
    if len(dims) != len(tensor.dims) or constant.size != channels or dims[1] != channels or flat_image:
        raise call.unsupported(
            f"combines {tensor.dims} with a constant of {constant.shape}", "constants may vary along the channels only"
        )
    return constant.reshape(channels)
