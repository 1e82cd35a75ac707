"""What changes no number: other dimensions, fewer or more channels, fewer pixels."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np

from device_farm.compiler.frontend.calls import Builder, Call, Tensor
from device_farm.compiler.graph import Concat, Pool2d, PoolKind, ResizeChannels, ShuffleChannels, SliceChannels, Softmax


def reshape(builder: Builder, call: Call) -> Tensor:
    """The same numbers under other dimensions: flat, or with ones left out. Back to four means back to the image."""
    tensor = call.tensor()
    image = (1, *builder.chw(tensor))
    split = len(call.dims) == 5 and call.dims[0] == 1 and math.prod(call.dims[1:3]) == image[1]
    if split and call.dims[3:] == image[2:]:  # channels in groups: half of a channel shuffle
        return Tensor(tensor.op, call.dims)
    same = [n for n in call.dims if n != 1] == [n for n in image if n != 1]
    if call.dims in (image, (1, math.prod(image))) or (same and len(call.dims) < 4):
        return Tensor(tensor.op, call.dims)
    raise call.unsupported(f"turns {tensor.dims} into {call.dims}", "only flattening to (1, features) is supported")


def permute_dims(builder: Builder, call: Call) -> Tensor:
    """A channel shuffle: groups and channels of (1, groups, channels, height, width) change places."""
    tensor = call.tensor()
    axes = () if call.attrs.axes is None else call.ints("axes")
    if len(tensor.dims) != 5 or axes != (0, 2, 1, 3, 4):
        raise call.unsupported(f"permutes {tensor.dims} by {axes}", "the compiler chooses the layout: leave it out")
    return builder.add(call, ShuffleChannels, tensor, groups=tensor.dims[1])


def split(builder: Builder, call: Call) -> tuple[Tensor, ...]:
    """Parts of the channels."""
    tensor, where = call.tensor(), call.attrs.indices_or_sections
    if len(tensor.dims) not in (2, 4) or int(call.attrs.axis) % len(tensor.dims) != 1:
        raise call.unsupported(f"splits axis {int(call.attrs.axis)} of {tensor.dims}", "channels (axis 1) can be split")
    channels, height, width = builder.chw(tensor)
    if len(tensor.dims) == 2 and height * width > 1:
        raise call.unsupported("splits a flattened image", "split the channels before flattening")
    if isinstance(where, int) or hasattr(where, "value"):
        step = math.ceil(channels / int(where))
        bounds = [0, *range(step, channels, step), channels]
    else:
        bounds = [0, *(int(item) for item in where), channels]
    parts = []
    for first, last in itertools.pairwise(bounds):
        part = dataclasses.replace(call, dims=(1, last - first, *tensor.dims[2:]))
        parts.append(_some_channels(builder, part, tensor, first, last - first))
    return tuple(parts)


def _some_channels(builder: Builder, call: Call, tensor: Tensor, first: int, channels: int) -> Tensor:
    if first == 0:
        return builder.add(call, ResizeChannels, tensor, channels=channels)
    return builder.add(call, SliceChannels, tensor, first=first, channels=channels)


def strided_slice(builder: Builder, call: Call) -> Tensor:
    """x[:, m:n] takes channels, x[:, :, ::s, ::s] every s-th pixel; nothing else."""
    tensor = call.tensor()
    axes, begin, end = (tuple(int(item) for item in call.args[index]) for index in (1, 2, 3))
    steps = tuple(int(item) for item in call.args[4]) if len(call.args) > 4 and call.args[4] else (1,) * len(axes)
    refusal = call.unsupported(
        f"takes {list(zip(axes, begin, end, steps, strict=True))} (axis, begin, end, step) of {tensor.dims}",
        "a range of channels, or every s-th pixel, can be taken",
    )
    if len(tensor.dims) != 4:
        raise refusal
    stride, first, channels = [1, 1], 0, tensor.dims[1]
    for axis, start, stop, step in zip(axes, begin, end, steps, strict=True):
        whole = start == 0 and stop >= tensor.dims[axis]
        if axis == 1 and step == 1:
            first, last, _ = slice(start, stop).indices(tensor.dims[1])
            channels = max(last - first, 0)
        elif axis in (2, 3) and whole and step >= 1:
            stride[axis - 2] = step
        elif not (whole and step == 1):
            raise refusal
    if channels == 0 or (channels != tensor.dims[1] and stride != [1, 1]):
        raise refusal
    if channels != tensor.dims[1]:
        return _some_channels(builder, call, tensor, first, channels)
    if stride != [1, 1]:
        return builder.add(call, Pool2d, tensor, pool=PoolKind.MAX, kernel=(1, 1), stride=tuple(stride))
    return tensor


def concat(builder: Builder, call: Call) -> Tensor:
    """Channels of activations one after the other, or zeros behind those of one."""
    parts, axis = call.args[0], int(call.attrs.axis) % len(call.dims)
    tensors = [part for part in parts if isinstance(part, Tensor)]
    images = all(len(part.dims) == 4 or builder.shapes[part.op][:2] == (1, 1) for part in tensors)
    if axis == 1 and images and len(tensors) == len(parts):
        return builder.add(call, Concat, *tensors)
    zeros = all(isinstance(part, np.ndarray) and not part.any() for part in parts[1:])
    if not (axis == 1 and images and isinstance(parts[0], Tensor) and zeros):
        raise call.unsupported(
            f"joins along axis {axis}, or constants",
            "channels (axis 1) of activations can be joined, before flattening",
        )
    return builder.add(call, ResizeChannels, parts[0], channels=call.dims[1])


def softmax(builder: Builder, call: Call) -> Tensor:
    tensor = call.tensor()
    flat = len(tensor.dims) == 2 and builder.shapes[tensor.op][:2] == (1, 1)
    if not (flat or len(tensor.dims) == 4) or int(call.attrs.axis) % len(tensor.dims) != 1:
        raise call.unsupported(f"runs over axis {int(call.attrs.axis)} of {tensor.dims}", "use the channels (axis 1)")
    return builder.add(call, Softmax, tensor)
