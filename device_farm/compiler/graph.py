"""The network that the compiler sees: operators, shapes and sparsity. No framework, no weights.

Activations are NHWC with batch 1, so a shape is (height, width, channels) and a vector is (1, 1, channels).
Weights travel beside the graph, by name, in torch's layout:

    Conv2d            "<name>.weight" [filters, channels/groups, kh, kw]   "<name>.bias" [filters]
    DepthwiseConv2d   "<name>.weight" [channels, 1, kh, kw]         "<name>.bias" [channels]
    ScatterChannels   "<name>.index"  int32 [input channels], strictly increasing

A fully connected layer is a Conv2d whose kernel covers the whole input without padding.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

from device_farm.compiler.sparsity import BlockSparsity as BlockSparsity
from device_farm.compiler.sparsity import TapUnit as TapUnit
from device_farm.compiler.sparsity import Units
from device_farm.errors import InvalidGraph


class Shape(NamedTuple):
    """Extent of one activation, NHWC with batch 1."""

    height: int
    width: int
    channels: int

    @property
    def elements(self) -> int:
        return self.height * self.width * self.channels


class Padding(NamedTuple):
    """Zeros around an image, in pixels."""

    top: int = 0
    left: int = 0
    bottom: int = 0
    right: int = 0

    @classmethod
    def same(cls, kernel: int) -> Padding:
        """The padding that torch's `padding=kernel // 2` gives."""
        return cls(*(kernel // 2,) * 4)


NO_PADDING = Padding()


class Activation(StrEnum):
    """The function fused behind an operator."""

    NONE = "none"
    RELU = "relu"
    RELU6 = "relu6"
    HARD_SIGMOID = "hard_sigmoid"  # relu6(x + 3) / 6
    HARD_SWISH = "hard_swish"  # x * hard_sigmoid(x)
    SIGMOID = "sigmoid"
    SWISH = "swish"  # x * sigmoid(x), torch's SiLU


class PoolKind(StrEnum):
    """How a pooling window is reduced. AVERAGE divides by the whole window, zeros of the padding included."""

    AVERAGE = "average"
    MAX = "max"


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


OPS: dict[str, type[Op]] = {
    op.kind: op
    for op in (
        Input, Conv2d, DepthwiseConv2d, Pool2d, Add, Multiply, Activate, Softmax, Concat, SliceChannels,
        ShuffleChannels, ResizeChannels, ScatterChannels,
    )
}  # fmt: skip


@dataclass(frozen=True)
class Graph:
    """Operators in topological order; the last one is the output. Checked when it is made.

    Raises InvalidGraph: duplicate name, unknown input, wrong number of inputs, impossible shape, no or several Inputs.
    """

    ops: tuple[Op, ...]

    def __post_init__(self) -> None:
        if sum(isinstance(op, Input) for op in self.ops) != 1 or not isinstance(self.ops[0], Input):
            raise InvalidGraph("a graph begins with its one Input")
        _ = self.shapes

    @cached_property
    def shapes(self) -> Mapping[str, Shape]:
        """Output shape of every operator, by name."""
        shapes: dict[str, Shape] = {}
        for op in self.ops:
            if op.name in shapes:
                raise InvalidGraph(f"two operators are called {op.name!r}")
            expected = (op.arity,) if op.arities is None else op.arities
            if len(op.inputs) not in expected:
                raise InvalidGraph(f"{op.name}: {len(op.inputs)} inputs, expected {expected[0]}")
            missing = [name for name in op.inputs if name not in shapes]
            if missing:
                raise InvalidGraph(f"{op.name}: input {missing[0]!r} is not defined before it")
            shape = op.output_shape(*(shapes[name] for name in op.inputs))
            if min(shape) < 1:
                raise InvalidGraph(f"{op.name}: empty output {tuple(shape)}")
            shapes[op.name] = shape
        return shapes

    @property
    def input(self) -> Input:
        first = self.ops[0]
        assert isinstance(first, Input)
        return first

    @property
    def output(self) -> Op:
        return self.ops[-1]

    def input_shapes(self, op: Op) -> tuple[Shape, ...]:
        return tuple(self.shapes[name] for name in op.inputs)

    @property
    def macs(self) -> int:
        return sum(op.macs(*self.input_shapes(op)) for op in self.ops)

    @property
    def kept_macs(self) -> int:
        return sum(op.kept_macs(*self.input_shapes(op)) for op in self.ops)

    @cached_property
    def key(self) -> str:
        """Content hash: equal for equal graphs, on every machine."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()

    def to_json(self) -> list[dict[str, Any]]:
        """Plain lists, dicts, strings and numbers; `from_json` gives an equal graph back."""
        return [{"kind": op.kind} | dataclasses.asdict(op) for op in self.ops]

    @classmethod
    def from_json(cls, data: Any) -> Graph:
        """Inverse of `to_json`. Raises InvalidGraph on anything that it would not have written."""
        if not isinstance(data, list):
            raise InvalidGraph(f"a graph is a list of operators, got {type(data).__name__}")
        return cls(tuple(_op_from_json(item) for item in data))


def _op_from_json(item: Any) -> Op:
    if not isinstance(item, dict) or item.get("kind") not in OPS:
        raise InvalidGraph(f"not an operator: {str(item)[:80]}")
    op = OPS[item["kind"]]
    fields = {key: value for key, value in item.items() if key != "kind"}
    converters: dict[str, Callable[[Any], Any]] = {
        "inputs": tuple, "kernel": tuple, "stride": tuple, "dilation": tuple,
        "padding": lambda v: Padding(*v), "shape": lambda v: Shape(*v),
        "activation": Activation, "pool": PoolKind,
        "sparsity": lambda v: v and BlockSparsity(v["block_height"], tuple(v["kept"]), TapUnit(v["unit"])),
    }  # fmt: skip
    try:
        return op(**{key: converters[key](value) if key in converters else value for key, value in fields.items()})
    except (TypeError, ValueError, KeyError) as error:
        raise InvalidGraph(f"{item.get('name', op.kind)}: {error}") from error
