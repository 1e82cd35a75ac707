"""Convolutions and what can be folded into them: linear layers, batch norm, borders."""

from __future__ import annotations

from typing import Any

import numpy as np

from device_farm.compiler.frontend.calls import Builder, Call, Tensor, pair
from device_farm.compiler.graph import Conv2d, DepthwiseConv2d, Padding, ResizeChannels, ScatterChannels


def conv2d(builder: Builder, call: Call) -> Tensor:
    tensor, weight = call.tensor(), call.constant(1)  # weight: filters x channels/groups x kh x kw
    layouts = tuple(str(getattr(call.attrs, name)) for name in ("data_layout", "kernel_layout"))
    if layouts != ("NCHW", "OIHW"):
        raise call.unsupported(f"has layouts {layouts}", "export the model in NCHW")
    channels, (groups,) = builder.chw(tensor)[0], call.ints("groups")
    top, left, bottom, right = call.ints("padding")
    fields: dict[str, Any] = {
        "kernel": weight.shape[2:],
        "stride": pair(call.ints("strides")),
        "padding": Padding(top, left, bottom, right),
        "dilation": pair(call.ints("dilation")),
    }
    weights = {"weight": weight, "bias": np.zeros(len(weight))}
    if groups == channels == len(weight) and groups > 1:
        return builder.add(call, DepthwiseConv2d, tensor, weights=weights, **fields)
    return builder.add(call, Conv2d, tensor, weights=weights, filters=len(weight), groups=groups, **fields)


def matmul(builder: Builder, call: Call) -> Tensor:
    """A linear layer: a convolution whose kernel covers the whole input."""
    tensor, matrix = call.tensor(), call.constant(1)  # N x M
    if len(tensor.dims) != 2 or tensor.dims[0] != 1 or matrix.ndim != 2:
        raise call.unsupported(
            f"multiplies {tensor.dims} by {matrix.shape}", "flatten to (1, features) before a linear layer"
        )
    chw = builder.chw(tensor)
    weight = matrix.T.reshape(matrix.shape[1], *chw)  # the flat input is in torch's order: channel, row, column
    weights = {"weight": weight, "bias": np.zeros(len(weight))}
    return builder.add(call, Conv2d, tensor, weights=weights, filters=len(weight), kernel=chw[1:])


def batch_norm(builder: Builder, call: Call) -> tuple[Tensor, None, None]:
    if bool(getattr(call.attrs, "training", False)):
        raise call.unsupported("is in training mode", "call module.eval() before the export")
    if call.ints("axis") != (1,):
        raise call.unsupported(f"normalises axis {call.ints('axis')}", "normalise channels (axis 1)")
    gamma, beta, mean, variance = (call.constant(index) for index in range(1, 5))
    scale = (gamma if call.attrs.scale else 1.0) / np.sqrt(variance + float(call.attrs.epsilon))
    shift = (beta if call.attrs.center else 0.0) - mean * scale
    return builder.affine(call, call.tensor(), scale, shift), None, None


def pad(builder: Builder, call: Call) -> Tensor:
    tensor, width = call.tensor(), call.ints("pad_width")
    before, after = width[::2], width[1::2]
    mode, value = str(call.attrs.pad_mode), float(getattr(call.attrs, "pad_value", 0.0))
    if mode != "constant" or value != 0 or len(tensor.dims) != 4 or min(width) < 0:
        raise call.unsupported(
            f"pads {tensor.dims} by {width}, {mode} {value:g}", "only zeros around an image can be padded"
        )
    channels = tensor.dims[1]
    if after[1] and not any((before[1], *before[2:], *after[2:])):
        return builder.add(call, ResizeChannels, tensor, channels=channels + after[1])
    if before[1] and not any((*before[2:], *after[2:])):
        index = np.arange(before[1], before[1] + channels, dtype=np.int32)
        return builder.add(call, ScatterChannels, tensor, weights={"index": index}, channels=call.dims[1])
    if before[1] or after[1]:
        raise call.unsupported(f"pads channels and image at once ({width})", "pad them one after the other")
    border = Padding(before[2], before[3], after[2], after[3])
    return builder.affine(call, tensor, np.ones(1), np.zeros(1), padding=border)
