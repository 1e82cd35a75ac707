"""MobileNetV3-Large as torchvision defines it: same modules, same parameter names, so its checkpoints load."""

from __future__ import annotations

from torch import Tensor, nn

from benchmarks.models.blocks import ConvNormActivation, InvertedResidual, SqueezeExcitation, rounded_channels

EPSILON = 1e-3


class MobileNetV3Large(nn.Module):
    """x: 1 x 3 x H x W -> 1 x classes."""

    # kernel, expanded channels, channels, squeeze-and-excite, hard swish, stride
    SETTINGS = (
        (3, 16, 16, False, False, 1),
        (3, 64, 24, False, False, 2),
        (3, 72, 24, False, False, 1),
        (5, 72, 40, True, False, 2),
        (5, 120, 40, True, False, 1),
        (5, 120, 40, True, False, 1),
        (3, 240, 80, False, True, 2),
        (3, 200, 80, False, True, 1),
        (3, 184, 80, False, True, 1),
        (3, 184, 80, False, True, 1),
        (3, 480, 112, True, True, 1),
        (3, 672, 112, True, True, 1),
        (5, 672, 160, True, True, 2),
        (5, 960, 160, True, True, 1),
        (5, 960, 160, True, True, 1),
    )

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        channels = 16
        features: list[nn.Module] = [
            ConvNormActivation(3, channels, stride=2, activation=nn.Hardswish, epsilon=EPSILON)
        ]
        for kernel, inner, outputs, excited, hard_swish, stride in self.SETTINGS:
            excitation = None
            if excited:
                excitation = SqueezeExcitation(inner, rounded_channels(inner // 4), inner=nn.ReLU, gate=nn.Hardsigmoid)
            features.append(
                InvertedResidual(
                    channels, inner, outputs, kernel=kernel, stride=stride, excitation=excitation, epsilon=EPSILON,
                    activation=nn.Hardswish if hard_swish else nn.ReLU,
                )
            )  # fmt: skip
            channels = outputs
        last = 6 * channels
        features.append(ConvNormActivation(channels, last, 1, activation=nn.Hardswish, epsilon=EPSILON))
        self.features = nn.Sequential(*features)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(
            nn.Linear(last, 1280), nn.Hardswish(), nn.Dropout(0.2), nn.Linear(1280, classes)
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.classifier(self.avgpool(self.features(x)).flatten(1))
        return y
