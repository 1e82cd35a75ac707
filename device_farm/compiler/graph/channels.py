"""Operators that move whole channels and compute nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from device_farm.compiler.graph.op import Op
from device_farm.compiler.graph.shapes import Shape
from device_farm.errors import InvalidGraph


@dataclass(frozen=True)
class Concat(Op):
    """Channels of several activations of one height and width, one after the other."""

    kind: ClassVar[str] = "concat"
    arities: ClassVar[range | None] = range(1, 1 << 16)

    def output_shape(self, *inputs: Shape) -> Shape:
        if any(shape[:2] != inputs[0][:2] for shape in inputs):
            sizes = ", ".join(f"{shape.height}x{shape.width}" for shape in inputs)
            raise InvalidGraph(f"{self.name}: cannot join the channels of images of {sizes}")
        return inputs[0]._replace(channels=sum(shape.channels for shape in inputs))


@dataclass(frozen=True)
class SliceChannels(Op):
    """Channels first .. first + channels of the input."""

    kind: ClassVar[str] = "slice_channels"
    first: int = 0
    channels: int = 1

    def output_shape(self, *inputs: Shape) -> Shape:
        if self.first < 0 or self.first + self.channels > inputs[0].channels:
            raise InvalidGraph(
                f"{self.name}: channels {self.first}..{self.first + self.channels} of {inputs[0].channels}"
            )
        return inputs[0]._replace(channels=self.channels)


@dataclass(frozen=True)
class ShuffleChannels(Op):
    """Channel i * groups + g of the output is channel g * (channels / groups) + i of the input (shufflenet)."""

    kind: ClassVar[str] = "shuffle_channels"
    groups: int = 1

    def output_shape(self, *inputs: Shape) -> Shape:
        if self.groups < 1 or inputs[0].channels % self.groups:
            raise InvalidGraph(f"{self.name}: {inputs[0].channels} channels are no {self.groups} equal groups")
        return inputs[0]


@dataclass(frozen=True)
class ResizeChannels(Op):
    """Cut to the first `channels`, or fill up with zeros: the parameter-free shortcut between unequal widths."""

    kind: ClassVar[str] = "resize_channels"
    channels: int = 0

    def output_shape(self, *inputs: Shape) -> Shape:
        return inputs[0]._replace(channels=self.channels)


@dataclass(frozen=True)
class ScatterChannels(Op):
    """Channel i of the input becomes channel index[i] of `channels`; the others are zero.

    This is how the survivors of filter pruning find their places beside a shortcut.
    """

    kind: ClassVar[str] = "scatter_channels"
    channels: int = 0

    def output_shape(self, *inputs: Shape) -> Shape:
        if inputs[0].channels > self.channels:
            raise InvalidGraph(f"{self.name}: {inputs[0].channels} channels do not fit into {self.channels}")
        return inputs[0]._replace(channels=self.channels)
