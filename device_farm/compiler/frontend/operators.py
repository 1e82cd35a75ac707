"""relax operators -> operators of the graph. No TVM in here: a call is plain values.

Whatever is not mapped exactly is refused with UnsupportedOperator; nothing is approximated or skipped.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from device_farm.compiler.frontend.calls import Array, Builder, Call, Tensor
from device_farm.compiler.graph import (
    Activate,
    Activation,
    Add,
    Conv2d,
    DepthwiseConv2d,
    Padding,
    Pool2d,
    PoolKind,
    ResizeChannels,
    ScatterChannels,
)

Handler = Callable[[Builder, Call], Any]
_USE_RELU = "use ReLU or ReLU6 in its place (and fine-tune)"


def map_call(builder: Builder, call: Call) -> Any:
    """Append what the call computes to the graph; returns its value (a Tensor, or a tuple). Raises UnsupportedOperator."""
    handler = _HANDLERS.get(call.operator)
    if handler is None:
        raise call.unsupported("has no kernel", _REMEDIES.get(call.operator, "replace it by supported operators"))
    value = handler(builder, call)
    first = value[0] if isinstance(value, tuple) else value
    if isinstance(first, Tensor) and math.prod(first.dims) != builder.shapes[first.op].elements:
        raise call.unsupported(
            f"gives {first.dims} where the graph has {tuple(builder.shapes[first.op])}", "this is a bug: please report it"
        )
    return value


# --- convolutions -----------------------------------------------------------------------------------------------------


def _conv2d(builder: Builder, call: Call) -> Tensor:
    tensor, weight = call.tensor(), call.constant(1)  # weight: filters x channels/groups x kh x kw
    layouts = tuple(str(getattr(call.attrs, name)) for name in ("data_layout", "kernel_layout"))
    if layouts != ("NCHW", "OIHW"):
        raise call.unsupported(f"has layouts {layouts}", "export the model in NCHW")
    channels, (groups,) = builder.chw(tensor)[0], call.ints("groups")
    top, left, bottom, right = call.ints("padding")
    fields: dict[str, Any] = {
        "kernel": weight.shape[2:],
        "stride": _pair(call.ints("strides")),
        "padding": Padding(top, left, bottom, right),
        "dilation": _pair(call.ints("dilation")),
    }
    weights = {"weight": weight, "bias": np.zeros(len(weight))}
    if groups == 1:
        return builder.add(call, Conv2d, tensor, weights=weights, filters=len(weight), **fields)
    if groups == channels == len(weight):
        return builder.add(call, DepthwiseConv2d, tensor, weights=weights, **fields)
    raise call.unsupported(
        f"has groups={groups} for {channels} input channels and {len(weight)} filters",
        "use groups=1, or groups = input channels = filters (depthwise)",
    )


def _matmul(builder: Builder, call: Call) -> Tensor:
    """A linear layer: a convolution whose kernel covers the whole input."""
    tensor, matrix = call.tensor(), call.constant(1)  # N x M
    if len(tensor.dims) != 2 or matrix.ndim != 2:
        raise call.unsupported(f"multiplies {tensor.dims} by {matrix.shape}", "flatten to (1, features) before a linear layer")
    chw = builder.chw(tensor)
    weight = matrix.T.reshape(matrix.shape[1], *chw)  # the flat input is in torch's order: channel, row, column
    weights = {"weight": weight, "bias": np.zeros(len(weight))}
    return builder.add(call, Conv2d, tensor, weights=weights, filters=len(weight), kernel=chw[1:])


def _batch_norm(builder: Builder, call: Call) -> tuple[Tensor, None, None]:
    if bool(getattr(call.attrs, "training", False)):
        raise call.unsupported("is in training mode", "call module.eval() before the export")
    if call.ints("axis") != (1,):
        raise call.unsupported(f"normalises axis {call.ints('axis')}", "normalise channels (axis 1)")
    gamma, beta, mean, variance = (call.constant(index) for index in range(1, 5))
    scale = (gamma if call.attrs.scale else 1.0) / np.sqrt(variance + float(call.attrs.epsilon))
    shift = (beta if call.attrs.center else 0.0) - mean * scale
    return builder.affine(call, call.tensor(), scale, shift), None, None


def _pad(builder: Builder, call: Call) -> Tensor:
    tensor, width = call.tensor(), call.ints("pad_width")
    before, after = width[::2], width[1::2]
    mode, value = str(call.attrs.pad_mode), float(getattr(call.attrs, "pad_value", 0.0))
    if mode != "constant" or value != 0 or len(tensor.dims) != 4 or min(width) < 0:
        raise call.unsupported(f"pads {tensor.dims} by {width}, {mode} {value:g}", "only zeros around an image can be padded")
    channels = tensor.dims[1]
    if after[1] and not any((before[1], *before[2:], *after[2:])):
        return builder.add(call, ResizeChannels, tensor, channels=channels + after[1])
    if before[1] and not any((*before[2:], *after[2:])):
        index = np.arange(before[1], before[1] + channels, dtype=np.int32)
        return builder.add(call, ScatterChannels, tensor, weights={"index": index}, channels=call.dims[1])
    if before[1] or after[1]:
        raise call.unsupported(f"pads channels and image at once ({width})", "pad them one after the other")
    border = Padding(before[2], before[3], after[2], after[3])
    return builder.affine(call, tensor, np.ones(1), np.zeros(1), border)


# --- pooling ----------------------------------------------------------------------------------------------------------


def _pool2d(kind: PoolKind) -> Handler:
    def handler(builder: Builder, call: Call) -> Tensor:
        tensor = call.tensor()
        if str(call.attrs.layout) != "NCHW" or set(call.ints("dilation")) != {1}:
            raise call.unsupported("has a dilation or another layout than NCHW", "use dilation 1 and NCHW")
        kernel, stride = _pair(call.ints("pool_size")), _pair(call.ints("strides"))
        top, left, bottom, right = call.ints("padding")
        # with ceil_mode the last window may begin inside the image and end outside: as if the border were wider
        extents = (tensor.dims[2] + top, tensor.dims[3] + left)
        missing = [(out - 1) * s + k - e for out, s, k, e in zip(call.dims[2:], stride, kernel, extents, strict=True)]
        ends = (max(bottom, missing[0]), max(right, missing[1]))
        if kind is PoolKind.AVERAGE:
            if ends != (bottom, right):
                raise call.unsupported("averages over partial windows", "use ceil_mode=False")
            if any((top, left, bottom, right)) and not call.attrs.count_include_pad:
                raise call.unsupported("does not count its padding", "use count_include_pad=True or no padding")
        padding = Padding(top, left, *ends)
        return builder.add(call, Pool2d, tensor, pool=kind, kernel=kernel, stride=stride, padding=padding)

    return handler


def _adaptive_pool2d(kind: PoolKind) -> Handler:
    def handler(builder: Builder, call: Call) -> Tensor:
        tensor = call.tensor()
        extents, outputs = tensor.dims[2:], call.dims[2:]
        if any(extent % out for extent, out in zip(extents, outputs, strict=True)):
            raise call.unsupported(f"pools {extents} to {outputs}", "the output size must divide the input size")
        window = tuple(extent // out for extent, out in zip(extents, outputs, strict=True))
        return builder.add(call, Pool2d, tensor, pool=kind, kernel=window, stride=window)

    return handler


def _reduce(kind: PoolKind) -> Handler:
    """mean or max over height and width: a global pooling."""

    def handler(builder: Builder, call: Call) -> Tensor:
        tensor = call.tensor()
        axes = set() if call.attrs.axis is None else {axis % len(tensor.dims) for axis in call.ints("axis")}
        if len(tensor.dims) != 4 or axes != {2, 3}:
            raise call.unsupported(f"reduces axes {sorted(axes)} of {tensor.dims}", "reduce height and width, axes (2, 3)")
        window = tensor.dims[2:]
        return builder.add(call, Pool2d, tensor, pool=kind, kernel=window, stride=window)

    return handler


# --- elementwise ------------------------------------------------------------------------------------------------------


def _activate(activation: Activation) -> Handler:
    return lambda builder, call: builder.add(call, Activate, call.tensor(), activation=activation)


def _clip(builder: Builder, call: Call) -> Tensor:
    low, high = (float(call.constant(index)) for index in (1, 2))
    if low != 0 or high not in (6, math.inf):
        raise call.unsupported(f"clips to [{low:g}, {high:g}]", "[0, 6] (ReLU6) and [0, inf) (ReLU) have kernels")
    return builder.add(call, Activate, call.tensor(), activation=Activation.RELU6 if high == 6 else Activation.RELU)


def _maximum(builder: Builder, call: Call) -> Tensor:
    tensor, bound = _with_constant(call)
    if bound is None or np.any(bound != 0):
        raise call.unsupported("compares with something else than 0", _USE_RELU)
    return builder.add(call, Activate, tensor, activation=Activation.RELU)


def _minimum(builder: Builder, call: Call) -> Tensor:
    """The second half of a clip, as the ONNX front end writes it: min(max(x, 0), 6)."""
    tensor, bound = _with_constant(call)
    producer = builder.ops[tensor.op]
    if bound is None or not (isinstance(producer, Activate) and producer.activation is not Activation.NONE):
        raise call.unsupported("is not behind a ReLU", _USE_RELU)
    if np.all(bound == math.inf):
        return tensor
    if np.any(bound != 6):
        raise call.unsupported(f"clips to [0, {bound.ravel()[0]:g}]", "[0, 6] (ReLU6) and [0, inf) (ReLU) have kernels")
    return builder.add(call, Activate, Tensor(producer.inputs[0], tensor.dims), activation=Activation.RELU6)


def _add(builder: Builder, call: Call) -> Tensor:
    tensor, constant = _with_constant(call)
    if constant is not None:
        return builder.affine(call, tensor, np.ones(1), _per_channel(builder, call, tensor, constant))
    other = call.tensor(1)
    if builder.shapes[tensor.op] != builder.shapes[other.op]:
        raise call.unsupported(f"adds {tensor.dims} and {other.dims}", "activations must have the same shape")
    return builder.add(call, Add, tensor, other)


def _subtract(builder: Builder, call: Call) -> Tensor:
    tensor, constant = _with_constant(call)
    if constant is None:
        raise call.unsupported("takes the difference of two activations", "use a sum: move the sign into the weights")
    shift = _per_channel(builder, call, tensor, constant)
    if tensor is call.args[0]:
        return builder.affine(call, tensor, np.ones(1), -shift)
    return builder.affine(call, tensor, -np.ones(1), shift)


def _multiply(builder: Builder, call: Call) -> Tensor:
    tensor, constant = _with_constant(call)
    if constant is None:
        raise call.unsupported("multiplies two activations", "squeeze-and-excitation and gates have no kernel: leave them out")
    return builder.affine(call, tensor, _per_channel(builder, call, tensor, constant), np.zeros(1))


def _divide(builder: Builder, call: Call) -> Tensor:
    tensor, constant = _with_constant(call)
    if constant is None or tensor is not call.args[0]:
        raise call.unsupported("divides by an activation", "only constants can be divided by")
    return builder.affine(call, tensor, 1.0 / _per_channel(builder, call, tensor, constant), np.zeros(1))


def _negative(builder: Builder, call: Call) -> Tensor:
    return builder.affine(call, call.tensor(), -np.ones(1), np.zeros(1))


# --- shapes -----------------------------------------------------------------------------------------------------------


def _reshape(builder: Builder, call: Call) -> Tensor:
    """Only the name of the dimensions may change: an image stays an image, or becomes flat."""
    tensor = call.tensor()
    image = (1, *builder.chw(tensor))
    if call.dims in (image, (1, math.prod(image))):
        return Tensor(tensor.op, call.dims)
    raise call.unsupported(f"turns {tensor.dims} into {call.dims}", "only flattening to (1, features) is supported")


def _strided_slice(builder: Builder, call: Call) -> Tensor:
    """x[:, :n] cuts channels, x[:, :, ::s, ::s] takes every s-th pixel; nothing else."""
    tensor = call.tensor()
    axes, begin, end = (tuple(int(item) for item in call.args[index]) for index in (1, 2, 3))
    steps = tuple(int(item) for item in call.args[4]) if len(call.args) > 4 and call.args[4] else (1,) * len(axes)
    refusal = call.unsupported(
        f"takes [{', '.join(map(str, zip(axes, begin, end, steps, strict=True)))}] (axis, begin, end, step) of {tensor.dims}",
        "the first channels, or every s-th pixel, can be taken",
    )
    if len(tensor.dims) != 4 or any(begin):
        raise refusal
    stride, channels = [1, 1], tensor.dims[1]
    for axis, stop, step in zip(axes, end, steps, strict=True):
        whole = stop >= tensor.dims[axis]
        if axis == 1 and step == 1 and stop > 0:
            channels = min(stop, channels)
        elif axis in (2, 3) and whole and step >= 1:
            stride[axis - 2] = step
        elif not (whole and step == 1):
            raise refusal
    if channels != tensor.dims[1] and stride != [1, 1]:
        raise refusal
    if channels != tensor.dims[1]:
        return builder.add(call, ResizeChannels, tensor, channels=channels)
    if stride != [1, 1]:
        return builder.add(call, Pool2d, tensor, pool=PoolKind.MAX, kernel=(1, 1), stride=tuple(stride))
    return tensor


def _concat(builder: Builder, call: Call) -> Tensor:
    """Zeros behind the channels; real concatenations have no kernel."""
    parts = call.args[0]
    first, rest = parts[0], parts[1:]
    zeros = all(isinstance(part, np.ndarray) and not part.any() for part in rest)
    if not (isinstance(first, Tensor) and len(first.dims) == 4 and int(call.attrs.axis) == 1 and zeros):
        raise call.unsupported("joins activations", "only zeros can be appended to channels: use a sum instead")
    return builder.add(call, ResizeChannels, first, channels=call.dims[1])


def _identity(_: Builder, call: Call) -> Tensor:
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


def _pair(values: tuple[int, ...]) -> tuple[int, int]:
    return (values[0], values[0]) if len(values) == 1 else (values[0], values[1])


_HANDLERS: dict[str, Handler] = {
    "add": _add,
    "astype": _identity,  # from float32 to float32: the walk refuses every other dtype
    "clip": _clip,
    "concat": _concat,
    "divide": _divide,
    "expand_dims": _reshape,
    "flatten": _reshape,
    "matmul": _matmul,
    "max": _reduce(PoolKind.MAX),
    "maximum": _maximum,
    "mean": _reduce(PoolKind.AVERAGE),
    "minimum": _minimum,
    "multiply": _multiply,
    "negative": _negative,
    "nn.adaptive_avg_pool2d": _adaptive_pool2d(PoolKind.AVERAGE),
    "nn.adaptive_max_pool2d": _adaptive_pool2d(PoolKind.MAX),
    "nn.avg_pool2d": _pool2d(PoolKind.AVERAGE),
    "nn.batch_flatten": _reshape,
    "nn.batch_norm": _batch_norm,
    "nn.conv2d": _conv2d,
    "nn.dropout": lambda _, call: (call.tensor(), None),  # inference: nothing is dropped
    "nn.max_pool2d": _pool2d(PoolKind.MAX),
    "nn.pad": _pad,
    "nn.relu": _activate(Activation.RELU),
    "nn.relu6": _activate(Activation.RELU6),
    "reshape": _reshape,
    "squeeze": _reshape,
    "strided_slice": _strided_slice,
    "subtract": _subtract,
}

_REMEDIES = {
    "nn.gelu": _USE_RELU,
    "nn.leakyrelu": _USE_RELU,
    "nn.log_softmax": "leave it out of the network: the order of the logits is the same",
    "nn.silu": _USE_RELU,
    "nn.softmax": "leave it out of the network: the order of the logits is the same",
    "permute_dims": "the compiler chooses the layout: leave the permutation out",
    "sigmoid": _USE_RELU,
    "tanh": _USE_RELU,
}
