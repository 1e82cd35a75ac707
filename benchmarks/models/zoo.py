"""Small networks of many kinds, each true to the blocks of the architecture that it is named after, not to its size.

They are what the compiler's answers are compared on with ONNX Runtime's; every one reads a 3-channel image and ends in
a vector. `npas bench benchmarks.models.zoo:inception --input 33x37x3` times one.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional


def conv(
    inputs: int,
    outputs: int,
    kernel: int | tuple[int, int] = 1,
    stride: int = 1,
    *,
    groups: int = 1,
    dilation: int = 1,
    activation: type[nn.Module] | None = nn.ReLU,
) -> nn.Sequential:
    """Convolution that keeps the extent (at stride 1), batch norm, activation."""
    kh, kw = (kernel, kernel) if isinstance(kernel, int) else kernel
    padding = (dilation * (kh // 2), dilation * (kw // 2))
    layer = nn.Conv2d(inputs, outputs, (kh, kw), stride, padding, dilation=dilation, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), *([activation()] if activation else []))


def head(channels: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10)]


class Residual(nn.Module):
    """relu(body(x) + shortcut(x)); the shortcut is a 1x1 convolution where shapes change."""

    def __init__(self, body: nn.Module, inputs: int, outputs: int, stride: int = 1, *, relu: bool = True) -> None:
        super().__init__()
        self.body, self.relu = body, relu
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or inputs != outputs:
            self.shortcut = conv(inputs, outputs, 1, stride, activation=None)

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x) + self.shortcut(x)
        return functional.relu(y) if self.relu else y


class Excited(nn.Module):
    """squeeze-and-excite."""

    def __init__(
        self, channels: int, inner: int, activation: type[nn.Module] = nn.ReLU, gate: type[nn.Module] = nn.Sigmoid
    ) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, inner, 1), activation(), nn.Conv2d(inner, channels, 1), gate()
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x * self.layers(x)
        return y


class Branches(nn.Module):
    """Branches side by side, their channels joined."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)


class Split(nn.Module):
    """shufflenet v2 at stride 1: half of the channels pass by, then all are shuffled."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.branch = nn.Sequential(
            conv(half, half), conv(half, half, 3, groups=half, activation=None), conv(half, half)
        )

    def forward(self, x: Tensor) -> Tensor:
        left, right = x.chunk(2, 1)
        return functional.channel_shuffle(torch.cat([left, self.branch(right)], 1), 2)


class Shuffle(nn.Module):
    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        return functional.channel_shuffle(x, self.groups)


class DenseLayer(nn.Module):
    """densenet: batch norm first, and every layer's channels stay."""

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.norm, self.layer = nn.BatchNorm2d(inputs), nn.Conv2d(inputs, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.layer(functional.relu(self.norm(x)))], 1)


class Ghost(nn.Module):
    """ghostnet: half of the channels are made of the other half by a cheap depthwise convolution."""

    def __init__(self, inputs: int, outputs: int, activation: type[nn.Module] | None = nn.ReLU) -> None:
        super().__init__()
        half = outputs // 2
        self.primary = conv(inputs, half, activation=activation)
        self.cheap = conv(half, half, 3, groups=half, activation=activation)

    def forward(self, x: Tensor) -> Tensor:
        y = self.primary(x)
        return torch.cat([y, self.cheap(y)], 1)


class SelfGated(nn.Module):
    """Products of two images, hard swish written by hand."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.value, self.gate = conv(channels, channels, 3), nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.value(x) * torch.sigmoid(self.gate(x))
        z: Tensor = y * functional.relu6(y + 3) / 6
        return z


def inverted(
    inputs: int,
    inner: int,
    outputs: int,
    kernel: int = 3,
    stride: int = 1,
    *,
    activation: type[nn.Module] = nn.ReLU6,
    excited: nn.Module | None = None,
) -> nn.Module:
    """Expand, depthwise, squeeze-and-excite if there is one, project."""
    body = nn.Sequential(
        conv(inputs, inner, activation=activation),
        conv(inner, inner, kernel, stride, groups=inner, activation=activation),
        *([excited] if excited else []),
        conv(inner, outputs, activation=None),
    )
    return Residual(body, inputs, outputs, relu=False) if stride == 1 and inputs == outputs else body


def vgg() -> nn.Module:
    pool = nn.MaxPool2d(2)
    layers = [conv(3, 16, 3), pool, conv(16, 24, 3), conv(24, 24, 3), pool, conv(24, 40, 3), pool, nn.Flatten()]
    return nn.Sequential(*layers, nn.LazyLinear(48), nn.ReLU(), nn.Dropout(), nn.Linear(48, 10))


def resnet() -> nn.Module:
    def block(inputs: int, outputs: int, stride: int = 1) -> nn.Module:
        body = nn.Sequential(conv(inputs, outputs, 3, stride), conv(outputs, outputs, 3, activation=None))
        return Residual(body, inputs, outputs, stride)

    blocks = [block(16, 16), block(16, 32, 2), block(32, 32), block(32, 48, 2)]
    return nn.Sequential(conv(3, 16, 7, 2), nn.MaxPool2d(3, 2, 1), *blocks, *head(48))


def bottleneck(inputs: int, width: int, outputs: int, stride: int = 1, *, groups: int = 1) -> nn.Module:
    middle = [conv(inputs, width), conv(width, width, 3, stride, groups=groups), conv(width, outputs, activation=None)]
    return Residual(nn.Sequential(*middle), inputs, outputs, stride)


def resnet_bottleneck() -> nn.Module:
    blocks = [bottleneck(16, 16, 64), bottleneck(64, 16, 64), bottleneck(64, 24, 96, 2)]
    return nn.Sequential(conv(3, 16, 7, 2), *blocks, *head(96))


def resnext() -> nn.Module:
    blocks = [bottleneck(64, 128, 64, groups=32), bottleneck(64, 64, 64, 2, groups=2)]
    return nn.Sequential(conv(3, 64, 3, 2), *blocks, *head(64))


def regnet() -> nn.Module:
    def block(inputs: int, outputs: int, stride: int) -> nn.Module:
        middle = conv(outputs, outputs, 3, stride, groups=outputs // 8)
        body = nn.Sequential(
            conv(inputs, outputs), middle, Excited(outputs, 6), conv(outputs, outputs, activation=None)
        )
        return Residual(body, inputs, outputs, stride)

    return nn.Sequential(conv(3, 16, 3, 2), block(16, 24, 2), block(24, 24, 1), block(24, 56, 2), *head(56))


def mobilenet_v1() -> nn.Module:
    layers: list[nn.Module] = [conv(3, 12, 3, 2)]
    for inputs, outputs, stride in ((12, 24, 1), (24, 40, 2), (40, 40, 1), (40, 72, 2)):
        layers += [conv(inputs, inputs, 3, stride, groups=inputs), conv(inputs, outputs)]
    return nn.Sequential(*layers, *head(72))


def mobilenet_v2() -> nn.Module:
    blocks = [inverted(16, 96, 24, stride=2), inverted(24, 144, 24), inverted(24, 144, 40, stride=2)]
    return nn.Sequential(
        conv(3, 16, 3, 2, activation=nn.ReLU6), *blocks, conv(40, 120, activation=nn.ReLU6), *head(120)
    )


def mobilenet_v3() -> nn.Module:
    excited = {inner: Excited(inner, 16, gate=nn.Hardsigmoid) for inner in (72, 120)}
    blocks = [
        inverted(16, 64, 24, stride=2, activation=nn.ReLU),
        inverted(24, 72, 40, 5, 2, activation=nn.ReLU, excited=excited[72]),
        inverted(40, 120, 40, 5, activation=nn.Hardswish, excited=excited[120]),
    ]
    tail = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(40, 64), nn.Hardswish(), nn.Linear(64, 10)]
    return nn.Sequential(conv(3, 16, 3, 2, activation=nn.Hardswish), *blocks, *tail)


def efficientnet() -> nn.Module:
    blocks = [
        inverted(16, 96, 24, 3, 2, activation=nn.SiLU, excited=Excited(96, 4, nn.SiLU)),
        inverted(24, 144, 24, 5, activation=nn.SiLU, excited=Excited(144, 6, nn.SiLU)),
    ]
    return nn.Sequential(conv(3, 16, 3, 2, activation=nn.SiLU), *blocks, *head(24))


def mnasnet() -> nn.Module:
    separable = [conv(16, 16, 3, groups=16), conv(16, 12, activation=None)]
    blocks = [inverted(12, 36, 24, 5, 2, activation=nn.ReLU), inverted(24, 72, 24, 5, activation=nn.ReLU)]
    return nn.Sequential(conv(3, 16, 3, 2), *separable, *blocks, conv(24, 64), *head(64))


def ghostnet() -> nn.Module:
    first = Residual(nn.Sequential(Ghost(16, 48), Ghost(48, 16, None)), 16, 16, relu=False)
    down = nn.Sequential(
        Ghost(16, 60), conv(60, 60, 5, 2, groups=60, activation=None), Excited(60, 16, gate=nn.Hardsigmoid),
        Ghost(60, 24, None),
    )  # fmt: skip
    return nn.Sequential(conv(3, 16, 3, 2), first, down, *head(24))


def shufflenet_v1() -> nn.Module:
    def unit(groups: int) -> nn.Module:
        body = [conv(48, 24, groups=groups), Shuffle(groups), conv(24, 24, 3, groups=24, activation=None)]
        return Residual(nn.Sequential(*body, conv(24, 48, groups=groups, activation=None)), 48, 48)

    return nn.Sequential(conv(3, 48, 3, 2), unit(3), unit(4), *head(48))


def shufflenet_v2() -> nn.Module:
    down = Branches(
        nn.Sequential(conv(24, 24, 3, 2, groups=24, activation=None), conv(24, 29)),
        nn.Sequential(conv(24, 29), conv(29, 29, 3, 2, groups=29, activation=None), conv(29, 29)),
    )
    return nn.Sequential(conv(3, 24, 3, 2), nn.MaxPool2d(3, 2, 1), down, Shuffle(2), Split(58), Split(58), *head(58))


def squeezenet() -> nn.Module:
    def fire(inputs: int, squeezed: int, outputs: int) -> nn.Module:
        return nn.Sequential(conv(inputs, squeezed), Branches(conv(squeezed, outputs), conv(squeezed, outputs, 3)))

    pool = nn.MaxPool2d(3, 2, ceil_mode=True)
    tail = [nn.Conv2d(40, 10, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(conv(3, 16, 3, 2), pool, fire(16, 5, 12), fire(24, 8, 20), *tail)


def densenet() -> nn.Module:
    layers = [DenseLayer(16 + 6 * index, 6) for index in range(4)]
    return nn.Sequential(conv(3, 16, 3, 2), *layers, conv(40, 20), nn.AvgPool2d(2), DenseLayer(20, 6), *head(26))


def inception() -> nn.Module:
    """1x7 and 7x1, an average of windows over the border, an odd number of everything."""
    tower = nn.Sequential(conv(22, 9), conv(9, 11, (1, 7)), conv(11, 13, (7, 1)))
    pooled = nn.Sequential(nn.AvgPool2d(3, 1, 1), conv(22, 7))
    block = Branches(conv(22, 15), tower, pooled)
    down = Branches(conv(35, 17, 3, 2), nn.MaxPool2d(3, 2, 1), conv(35, 12, (1, 3), 2))
    return nn.Sequential(conv(3, 22, 3, 2), block, down, conv(64, 30, (3, 1)), *head(30))


class Pyramid(nn.Module):
    """deeplab: dilated branches, and a gate of the whole image's mean."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branches = Branches(conv(channels, 9), *(conv(channels, 9, 3, dilation=d) for d in (1, 2, 3)))
        self.gate = nn.Linear(channels, 36)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.branches(x) * torch.sigmoid(self.gate(x.mean((2, 3)))).view(-1, 36, 1, 1)
        return y


def deeplab() -> nn.Module:
    backbone = [conv(3, 16, 3, 2), conv(16, 24, 3, dilation=2), conv(24, 24, 3, groups=24, dilation=2)]
    return nn.Sequential(*backbone, Pyramid(24), conv(36, 20, 3, dilation=4), *head(20))


def gated() -> nn.Module:
    return nn.Sequential(conv(3, 20, 3, 2), SelfGated(20), SelfGated(20), *head(20), nn.Softmax(1))


ZOO: dict[str, Callable[[], nn.Module]] = {
    make.__name__: make
    for make in (
        deeplab, densenet, efficientnet, gated, ghostnet, inception, mnasnet, mobilenet_v1, mobilenet_v2, mobilenet_v3,
        regnet, resnet, resnet_bottleneck, resnext, shufflenet_v1, shufflenet_v2, squeezenet, vgg,
    )
}  # fmt: skip
EXTENTS = {"inception": (33, 37), "densenet": (29, 32), "resnet": (64, 64)}  # height, width; the others: 32 x 32


def make(name: str, *, seed: int = 0) -> nn.Module:
    """A network with weights from a seed and the batch norms' statistics of random images, in evaluation mode.

    Without statistics the signal of an untrained network dies on its way, and a comparison would show nothing.
    """
    torch.manual_seed(seed)
    module = ZOO[name]()
    images = torch.randn(8, 3, *EXTENTS.get(name, (32, 32)))
    with torch.no_grad():
        module(images)
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.reset_running_stats()
                part.momentum = None  # the mean over all images instead of a moving one
                nn.init.uniform_(part.weight, 0.5, 1.5)
                nn.init.uniform_(part.bias, -0.5, 0.5)
        module(images)
    return module.eval()
