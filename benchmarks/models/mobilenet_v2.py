"""MobileNetV2 as torchvision defines it: same modules, same parameter names, so its checkpoints load."""

from __future__ import annotations

from torch import Tensor, nn


def _channels(value: float) -> int:
    """Rounded to a multiple of 8, never down by more than 10 %."""
    rounded = max(8, int(value + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * value else rounded


class ConvNormActivation(nn.Sequential):
    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> None:
        padding = kernel // 2
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU6(inplace=True),
        )


class InvertedResidual(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = inputs * expansion
        layers: list[nn.Module] = [ConvNormActivation(inputs, inner, kernel=1)] if expansion != 1 else []
        layers += [
            ConvNormActivation(inner, inner, stride=stride, groups=inner),
            nn.Conv2d(inner, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        ]
        self.conv = nn.Sequential(*layers)
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return x + y if self.shortcut else y


class MobileNetV2(nn.Module):
    """x: 1 x 3 x H x W -> 1 x classes."""

    # expansion, channels, repeats, stride of the first
    SETTINGS = (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    )

    def __init__(self, classes: int = 1000, width: float = 1.0) -> None:
        super().__init__()
        channels, last = _channels(32 * width), _channels(1280 * max(1.0, width))
        features: list[nn.Module] = [ConvNormActivation(3, channels, stride=2)]
        for expansion, base, repeats, stride in self.SETTINGS:
            for index in range(repeats):
                outputs = _channels(base * width)
                features.append(InvertedResidual(channels, outputs, stride if index == 0 else 1, expansion))
                channels = outputs
        features.append(ConvNormActivation(channels, last, kernel=1))
        self.features = nn.Sequential(*features)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(last, classes))

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.adaptive_avg_pool2d(self.features(x), (1, 1)).flatten(1)
        y: Tensor = self.classifier(x)
        return y
