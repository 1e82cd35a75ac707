"""Operators that slide a window over the image."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

from device_farm.compiler.graph.op import Activation, Op
from device_farm.compiler.graph.shapes import NO_PADDING, Padding, Shape
from device_farm.compiler.sparsity import BlockSparsity, TapUnit, Units
from device_farm.errors import InvalidGraph


class PoolKind(StrEnum):
    """How a pooling window is reduced. AVERAGE divides by the whole window, zeros of the padding included."""

    AVERAGE = "average"
    MAX = "max"


@dataclass(frozen=True)
class Conv2d(Op):
    """Convolution + bias [+ residual] + activation.

    With `groups`, filters and channels are cut into as many equal parts, and a filter sees the channels of its part.
    With a residual, `inputs` has two names and the second one, of the output's shape, is added before the activation.
    """

    kind: ClassVar[str] = "conv2d"
    arities: ClassVar[range | None] = range(1, 3)
    filters: int = 0
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: Padding = NO_PADDING
    dilation: tuple[int, int] = (1, 1)
    activation: Activation = Activation.NONE
    sparsity: BlockSparsity | None = None
    groups: int = 1

    def taps(self, image: Shape) -> int:
        """Weights of one filter on an input of that shape."""
        return image.channels // self.groups * math.prod(self.kernel)

    def tap_units(self, image: Shape, unit: TapUnit) -> Units:
        """How the taps of a block are cut on an input of that shape."""
        return Units(unit, image.channels // self.groups, math.prod(self.kernel))

    def output_shape(self, *inputs: Shape) -> Shape:
        if self.groups < 1 or inputs[0].channels % self.groups or self.filters % self.groups:
            raise InvalidGraph(
                f"{self.name}: {inputs[0].channels} channels and {self.filters} filters are no {self.groups} equal "
                "groups"
            )
        out = Shape(*_window(self, inputs[0], self.kernel, self.stride, self.padding, self.dilation), self.filters)
        if len(inputs) == 2 and inputs[1] != out:
            raise InvalidGraph(f"{self.name}: the residual has shape {tuple(inputs[1])}, the output {tuple(out)}")
        if self.sparsity is not None:
            units = self.tap_units(inputs[0], self.sparsity.unit)
            problem = self.sparsity.why_impossible(
                filters=self.filters, channels=units.channels, positions=units.positions
            )
            if problem is not None:
                raise InvalidGraph(f"{self.name}: {problem}")
        return out

    def macs(self, *inputs: Shape) -> int:
        out = self.output_shape(*inputs)
        return out.elements * self.taps(inputs[0])

    def kept_macs(self, *inputs: Shape) -> int:
        if self.sparsity is None:
            return self.macs(*inputs)
        out = self.output_shape(*inputs)
        height = self.sparsity.block_height
        filters = (min(height, self.filters - b * height) for b in range(len(self.sparsity.kept)))
        return out.height * out.width * sum(f * k for f, k in zip(filters, self.sparsity.kept, strict=True))


@dataclass(frozen=True)
class DepthwiseConv2d(Op):
    """Depthwise convolution + bias + activation; as many outputs as inputs."""

    kind: ClassVar[str] = "depthwise_conv2d"
    kernel: tuple[int, int] = (3, 3)
    stride: tuple[int, int] = (1, 1)
    padding: Padding = NO_PADDING
    dilation: tuple[int, int] = (1, 1)
    activation: Activation = Activation.NONE

    def output_shape(self, *inputs: Shape) -> Shape:
        window = _window(self, inputs[0], self.kernel, self.stride, self.padding, self.dilation)
        return Shape(*window, inputs[0].channels)

    def macs(self, *inputs: Shape) -> int:
        return self.output_shape(*inputs).elements * math.prod(self.kernel)


@dataclass(frozen=True)
class Pool2d(Op):
    """Average or maximum over a window. A global pooling is a window as large as the image."""

    kind: ClassVar[str] = "pool2d"
    pool: PoolKind = PoolKind.AVERAGE
    kernel: tuple[int, int] = (2, 2)
    stride: tuple[int, int] = (2, 2)
    padding: Padding = NO_PADDING

    def output_shape(self, *inputs: Shape) -> Shape:
        window = _window(self, inputs[0], self.kernel, self.stride, self.padding, (1, 1))
        return Shape(*window, inputs[0].channels)


def _window(
    op: Op, shape: Shape, kernel: tuple[int, int], stride: tuple[int, int], padding: Padding, dilation: tuple[int, int]
) -> tuple[int, int]:
    """Output height and width of a sliding window."""
    if min(*kernel, *stride, *dilation) < 1 or min(padding) < 0:
        raise InvalidGraph(
            f"{op.name}: kernel {kernel}, stride {stride} and dilation {dilation} are at least 1, "
            f"padding {tuple(padding)} at least 0"
        )
    extents = (shape.height + padding.top + padding.bottom, shape.width + padding.left + padding.right)
    out = tuple(
        (extent - d * (k - 1) - 1) // s + 1 for extent, k, s, d in zip(extents, kernel, stride, dilation, strict=True)
    )
    if min(out) < 1:
        raise InvalidGraph(f"{op.name}: a window of {kernel} (dilation {dilation}) does not fit into {extents}")
    return out[0], out[1]
