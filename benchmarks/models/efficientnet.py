"""EfficientNet-B0 as torchvision defines it (its checkpoints load), and Lite0: ReLU6, no squeeze-and-excite."""

from __future__ import annotations

from torch import Tensor, nn

from benchmarks.models.blocks import ConvNormActivation, InvertedResidual, SqueezeExcitation


class EfficientNet(nn.Module):
    """x: 1 x 3 x H x W -> 1 x classes."""

    # expansion, kernel, stride of the first, channels, repeats
    SETTINGS = (
        (1, 3, 1, 16, 1),
        (6, 3, 2, 24, 2),
        (6, 5, 2, 40, 2),
        (6, 3, 2, 80, 3),
        (6, 5, 1, 112, 3),
        (6, 5, 2, 192, 4),
        (6, 3, 1, 320, 1),
    )

    def __init__(self, classes: int = 1000, *, lite: bool = False) -> None:
        super().__init__()
        activation: type[nn.Module] = nn.ReLU6 if lite else nn.SiLU
        channels = 32
        features: list[nn.Module] = [ConvNormActivation(3, channels, stride=2, activation=activation)]
        for expansion, kernel, first_stride, outputs, repeats in self.SETTINGS:
            stage: list[nn.Module] = []
            for index in range(repeats):
                inner = channels * expansion
                excitation = None
                if not lite:
                    excitation = SqueezeExcitation(inner, max(1, channels // 4), inner=nn.SiLU, gate=nn.Sigmoid)
                stride = first_stride if index == 0 else 1
                stage.append(
                    InvertedResidual(
                        channels, inner, outputs, kernel=kernel, stride=stride, activation=activation,
                        excitation=excitation,
                    )
                )  # fmt: skip
                channels = outputs
            features.append(nn.Sequential(*stage))
        last = 4 * channels
        features.append(ConvNormActivation(channels, last, 1, activation=activation))
        self.features = nn.Sequential(*features)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(last, classes))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.classifier(self.avgpool(self.features(x)).flatten(1))
        return y


def efficientnet_b0() -> nn.Module:
    return EfficientNet()


def efficientnet_lite0() -> nn.Module:
    return EfficientNet(lite=True)
