"""What the mobile networks share, under torchvision's parameter names."""

from __future__ import annotations

from torch import Tensor, nn


def rounded_channels(value: float) -> int:
    """Rounded to a multiple of 8, never down by more than 10 %."""
    rounded = max(8, int(value + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * value else rounded


class ConvNormActivation(nn.Sequential):
    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 3,
        stride: int = 1,
        *,
        activation: type[nn.Module] | None,
        groups: int = 1,
        epsilon: float = 1e-5,
    ) -> None:
        layers: list[nn.Module] = [
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(outputs, eps=epsilon),
        ]
        super().__init__(*layers, *([activation()] if activation else []))


class SqueezeExcitation(nn.Module):
    def __init__(self, channels: int, squeezed: int, *, inner: type[nn.Module], gate: type[nn.Module]) -> None:
        super().__init__()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc1, self.fc2 = nn.Conv2d(channels, squeezed, 1), nn.Conv2d(squeezed, channels, 1)
        self.activation, self.scale_activation = inner(), gate()

    def forward(self, x: Tensor) -> Tensor:
        scale: Tensor = self.scale_activation(self.fc2(self.activation(self.fc1(self.avgpool(x)))))
        return scale * x


class InvertedResidual(nn.Module):
    """Expand, depthwise, squeeze-and-excite if there is one, project; a shortcut where the shapes allow it."""

    def __init__(
        self,
        inputs: int,
        inner: int,
        outputs: int,
        *,
        kernel: int,
        stride: int,
        activation: type[nn.Module],
        excitation: SqueezeExcitation | None,
        epsilon: float = 1e-5,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        if inner != inputs:
            layers.append(ConvNormActivation(inputs, inner, 1, activation=activation, epsilon=epsilon))
        layers.append(
            ConvNormActivation(inner, inner, kernel, stride, groups=inner, activation=activation, epsilon=epsilon)
        )
        if excitation is not None:
            layers.append(excitation)
        layers.append(ConvNormActivation(inner, outputs, 1, activation=None, epsilon=epsilon))
        self.block = nn.Sequential(*layers)
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.block(x)
        return x + y if self.shortcut else y
