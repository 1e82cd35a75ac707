"""What all operators have in common, and the one that a graph begins with."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

from device_farm.compiler.graph.shapes import Shape


class Activation(StrEnum):
    """The function fused behind an operator."""

    NONE = "none"
    RELU = "relu"
    RELU6 = "relu6"
    HARD_SIGMOID = "hard_sigmoid"  # relu6(x + 3) / 6
    HARD_SWISH = "hard_swish"  # x * hard_sigmoid(x)
    SIGMOID = "sigmoid"
    SWISH = "swish"  # x * sigmoid(x), torch's SiLU


@dataclass(frozen=True)
class Op:
    """One operator. `name` is unique in its graph; `inputs` names the operators whose outputs it reads."""

    kind: ClassVar[str]
    name: str
    inputs: tuple[str, ...]

    arity: ClassVar[int] = 1
    arities: ClassVar[range | None] = None  # where several numbers of inputs are allowed

    def output_shape(self, *inputs: Shape) -> Shape:
        """Shape of the output for the shapes of the inputs. Raises InvalidGraph."""
        raise NotImplementedError

    def macs(self, *inputs: Shape) -> int:
        """Multiply-accumulates that the dense operator does."""
        return 0

    def kept_macs(self, *inputs: Shape) -> int:
        """Multiply-accumulates that are left by its sparsity."""
        return self.macs(*inputs)


_PIXEL = Shape(1, 1, 1)


@dataclass(frozen=True)
class Input(Op):
    """The image, NHWC."""

    kind: ClassVar[str] = "input"
    arity: ClassVar[int] = 0
    shape: Shape = _PIXEL

    def output_shape(self, *inputs: Shape) -> Shape:
        return self.shape
