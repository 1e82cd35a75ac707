"""Pooling over windows and over the whole image."""

from __future__ import annotations

from device_farm.compiler.frontend.calls import Builder, Call, Handler, Tensor, pair
from device_farm.compiler.graph import Padding, Pool2d, PoolKind


def pool2d(kind: PoolKind) -> Handler:
    def handler(builder: Builder, call: Call) -> Tensor:
        tensor = call.tensor()
        if str(call.attrs.layout) != "NCHW" or set(call.ints("dilation")) != {1}:
            raise call.unsupported("has a dilation or another layout than NCHW", "use dilation 1 and NCHW")
        kernel, stride = pair(call.ints("pool_size")), pair(call.ints("strides"))
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


def adaptive_pool2d(kind: PoolKind) -> Handler:
    def handler(builder: Builder, call: Call) -> Tensor:
        tensor = call.tensor()
        extents, outputs = tensor.dims[2:], call.dims[2:]
        if any(extent % out for extent, out in zip(extents, outputs, strict=True)):
            raise call.unsupported(f"pools {extents} to {outputs}", "the output size must divide the input size")
        window = tuple(extent // out for extent, out in zip(extents, outputs, strict=True))
        return builder.add(call, Pool2d, tensor, pool=kind, kernel=window, stride=window)

    return handler


def reduce(kind: PoolKind) -> Handler:
    """mean or max over height and width: a global pooling."""

    def handler(builder: Builder, call: Call) -> Tensor:
        tensor = call.tensor()
        axes = set() if call.attrs.axis is None else {axis % len(tensor.dims) for axis in call.ints("axis")}
        if len(tensor.dims) != 4 or axes != {2, 3}:
            raise call.unsupported(
                f"reduces axes {sorted(axes)} of {tensor.dims}", "reduce height and width, axes (2, 3)"
            )
        window = tensor.dims[2:]
        return builder.add(call, Pool2d, tensor, pool=kind, kernel=window, stride=window)

    return handler
