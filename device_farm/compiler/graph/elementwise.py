"""Operators that see one number, or one pixel, at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from device_farm.compiler.graph.op import Activation, Op
from device_farm.compiler.graph.shapes import Shape
from device_farm.errors import InvalidGraph


@dataclass(frozen=True)
class Add(Op):
    """Sum of two activations of one shape + activation."""

    kind: ClassVar[str] = "add"
    arity: ClassVar[int] = 2
    activation: Activation = Activation.NONE

    def output_shape(self, *inputs: Shape) -> Shape:
        if inputs[0] != inputs[1]:
            raise InvalidGraph(f"{self.name}: cannot add {tuple(inputs[0])} and {tuple(inputs[1])}")
        return inputs[0]


@dataclass(frozen=True)
class Multiply(Op):
    """Product of two activations + activation. The second may be a vector: a factor a channel (squeeze-and-excite)."""

    kind: ClassVar[str] = "multiply"
    arity: ClassVar[int] = 2
    activation: Activation = Activation.NONE

    def output_shape(self, *inputs: Shape) -> Shape:
        image, factor = inputs
        if factor not in (image, Shape(1, 1, image.channels)):
            raise InvalidGraph(
                f"{self.name}: cannot multiply {tuple(image)} by {tuple(factor)}; expected the same shape or "
                f"(1, 1, {image.channels})"
            )
        return image


@dataclass(frozen=True)
class Activate(Op):
    """An activation on its own."""

    kind: ClassVar[str] = "activate"
    activation: Activation = Activation.RELU

    def output_shape(self, *inputs: Shape) -> Shape:
        return inputs[0]


@dataclass(frozen=True)
class Softmax(Op):
    """Softmax over the channels of every pixel."""

    kind: ClassVar[str] = "softmax"

    def output_shape(self, *inputs: Shape) -> Shape:
        return inputs[0]
