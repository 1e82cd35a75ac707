"""Layer shapes of well-known networks at 224x224: what is distinct among them and costs time."""

from __future__ import annotations

from dataclasses import dataclass

from device_farm.compiler.graph import (
    NO_PADDING,
    Activation,
    BlockSparsity,
    Conv2d,
    DepthwiseConv2d,
    Graph,
    Input,
    Op,
    Padding,
    Pool2d,
    Shape,
)
from device_farm.compiler.testing import chain

NAME = "layer"  # of the operator in question in a layer's graph


@dataclass(frozen=True)
class Layer:
    """One layer on an image of `size` x `size` x `channels`; `kind` is its class in the table."""

    network: str
    kind: str  # "1x1", "1x1 s2", "3x3", "3x3 s2", "depthwise", "stem", "fc"
    size: int
    channels: int
    filters: int
    kernel: int = 1
    stride: int = 1
    activation: Activation = Activation.RELU

    @property
    def name(self) -> str:
        kernel = "fc" if self.kind == "fc" else f"{self.kernel}x{self.kernel}"
        depthwise, stride = "dw " * self.is_depthwise, f"/{self.stride}" * (self.stride > 1)
        return f"{self.network} {depthwise}{kernel}{stride} {self.channels}->{self.filters} @{self.size}"

    @property
    def is_depthwise(self) -> bool:
        return self.kind == "depthwise"

    @property
    def prunable(self) -> bool:
        return self.kind not in ("depthwise", "stem")

    @property
    def taps(self) -> int:
        """Weights of one filter."""
        return self.kernel**2 * (1 if self.is_depthwise else self.channels)

    def graph(self) -> Graph:
        """The layer, and a pooling behind it, which keeps the answer small."""
        kernel, stride = (self.kernel, self.kernel), (self.stride, self.stride)
        padding = Padding.same(self.kernel) if self.kernel > 1 else NO_PADDING
        image = Input("x", (), Shape(self.size, self.size, self.channels))
        if self.is_depthwise:
            op: Conv2d | DepthwiseConv2d = DepthwiseConv2d(
                NAME, ("x",), kernel=kernel, stride=stride, padding=padding, activation=self.activation
            )
        else:
            op = Conv2d(NAME, ("x",), self.filters, kernel, stride, padding, activation=self.activation)
        ops: tuple[Op, ...] = (image, op)
        height, width, _ = Graph(ops).shapes[NAME]
        return Graph(ops if height == width == 1 else (*ops, Pool2d("mean", (NAME,), kernel=(height, width))))

    def chained(self, rate: float, height: int) -> Graph:
        """The layer, a 1x1, pruned in blocks of so many filters, between two others of its kind."""

        def pruned(name: str, channels: int, filters: int, rate: float) -> Conv2d:
            blocks = BlockSparsity(height, (max(1, round(channels / rate)),) * (filters // height))
            return Conv2d(name, (), filters, activation=self.activation, sparsity=blocks)

        before = pruned("before", self.channels, self.channels, 10.0)
        layer = pruned(NAME, self.channels, self.filters, rate)
        after = pruned("after", self.filters, 2 * height, 10.0)
        return chain((self.size, self.size, self.channels), before, layer, after)


def _pointwise(network: str, *shapes: tuple[int, int, int], linear: bool = False) -> list[Layer]:
    activation = Activation.NONE if linear else Activation.RELU6
    return [Layer(network, "1x1", *shape, activation=activation) for shape in shapes]


def _depthwise(network: str, *shapes: tuple[int, int, int, int]) -> list[Layer]:
    """(size, channels, kernel, stride)"""
    return [
        Layer(network, "depthwise", size, channels, channels, kernel, stride, Activation.RELU6)
        for size, channels, kernel, stride in shapes
    ]


def _square(network: str, *shapes: tuple[int, int, int], stride: int = 1) -> list[Layer]:
    kind = "3x3" if stride == 1 else f"3x3 s{stride}"
    return [Layer(network, kind, *shape, kernel=3, stride=stride) for shape in shapes]


LAYERS: tuple[Layer, ...] = (
    Layer("mobilenet_v2", "stem", 224, 3, 32, 3, 2, Activation.RELU6),
    *_pointwise("mobilenet_v2", (112, 16, 96), (56, 24, 144), (28, 32, 192), (14, 64, 384), (14, 96, 576)),
    *_pointwise("mobilenet_v2", (7, 160, 960), (7, 320, 1280)),
    *_pointwise("mobilenet_v2", (112, 32, 16), (56, 144, 24), (28, 192, 32), (14, 384, 64), linear=True),
    *_pointwise("mobilenet_v2", (14, 576, 96), (7, 576, 160), (7, 960, 320), linear=True),
    *_depthwise("mobilenet_v2", (112, 32, 3, 1), (112, 96, 3, 2), (56, 144, 3, 1), (28, 192, 3, 1), (14, 384, 3, 1)),
    *_depthwise("mobilenet_v2", (14, 576, 3, 2), (7, 960, 3, 1)),
    Layer("mobilenet_v2", "fc", 1, 1280, 1000, activation=Activation.NONE),
    *_pointwise("mobilenet_v3", (28, 40, 120), (14, 80, 200), (14, 112, 672), (14, 480, 112)),
    *_depthwise("mobilenet_v3", (56, 72, 5, 2), (28, 120, 5, 1), (14, 672, 5, 2), (7, 960, 5, 1)),
    *_pointwise("efficientnet_b0", (28, 40, 240), (14, 80, 480), (7, 192, 1152), (7, 1152, 320)),
    *_depthwise("efficientnet_b0", (28, 240, 5, 1), (14, 480, 5, 1)),
    Layer("resnet50", "stem", 224, 3, 64, 7, 2),
    *_pointwise("resnet50", (56, 64, 64), (56, 64, 256), (56, 256, 64), (28, 128, 512), (28, 512, 128)),
    *_pointwise("resnet50", (14, 256, 1024), (14, 1024, 256), (7, 512, 2048), (7, 2048, 512)),
    Layer("resnet50", "1x1 s2", 56, 256, 512, 1, 2, Activation.NONE),
    Layer("resnet50", "1x1 s2", 14, 1024, 2048, 1, 2, Activation.NONE),
    *_square("resnet50", (56, 64, 64), (28, 128, 128), (14, 256, 256), (7, 512, 512)),
    *_square("resnet50", (56, 128, 128), (28, 256, 256), (14, 512, 512), stride=2),
    *_square("vgg16", (224, 64, 64), (112, 64, 128), (112, 128, 128), (56, 256, 256), (28, 512, 512), (14, 512, 512)),
    Layer("vgg16", "fc", 1, 4096, 4096),
)  # fmt: skip
