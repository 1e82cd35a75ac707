"""What changes no number: other dimensions, fewer or more channels, fewer pixels."""

from __future__ import annotations

import math

import numpy as np

from device_farm.compiler.frontend.calls import Builder, Call, Tensor
from device_farm.compiler.graph import Pool2d, PoolKind, ResizeChannels


def reshape(builder: Builder, call: Call) -> Tensor:
    """The same numbers under other dimensions: flat, or with ones left out. Back to four means back to the image."""
    tensor = call.tensor()
    image = (1, *builder.chw(tensor))
    same = [n for n in call.dims if n != 1] == [n for n in image if n != 1]
    if call.dims in (image, (1, math.prod(image))) or (same and len(call.dims) < 4):
        return Tensor(tensor.op, call.dims)
    raise call.unsupported(f"turns {tensor.dims} into {call.dims}", "only flattening to (1, features) is supported")


def strided_slice(builder: Builder, call: Call) -> Tensor:
    """x[:, :n] cuts channels, x[:, :, ::s, ::s] takes every s-th pixel; nothing else."""
    tensor = call.tensor()
    axes, begin, end = (tuple(int(item) for item in call.args[index]) for index in (1, 2, 3))
    steps = tuple(int(item) for item in call.args[4]) if len(call.args) > 4 and call.args[4] else (1,) * len(axes)
    refusal = call.unsupported(
        f"takes {list(zip(axes, begin, end, steps, strict=True))} (axis, begin, end, step) of {tensor.dims}",
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


def concat(builder: Builder, call: Call) -> Tensor:
    """Zeros behind the channels; real concatenations have no kernel."""
    parts = call.args[0]
    first, rest = parts[0], parts[1:]
    zeros = all(isinstance(part, np.ndarray) and not part.any() for part in rest)
    if not (isinstance(first, Tensor) and len(first.dims) == 4 and int(call.attrs.axis) == 1 and zeros):
        raise call.unsupported("joins activations", "only zeros can be appended to channels: use a sum instead")
    return builder.add(call, ResizeChannels, first, channels=call.dims[1])
