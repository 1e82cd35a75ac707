"""Plain torch definitions of the networks that are measured."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from benchmarks.models.mobilenet_v2 import MobileNetV2
from benchmarks.models.resnet18 import ResNet18

MODELS: dict[str, Callable[[], nn.Module]] = {"mobilenet_v2": MobileNetV2, "resnet18": ResNet18}


def calibrated(name: str, *, pixels: int = 224, seed: int = 0) -> nn.Module:
    """A model with weights from a seed and batch-norm statistics of random images, in evaluation mode.

    Without the statistics the signal of an untrained network dies on its way, and the output is the last bias: a
    comparison of outputs would show nothing.
    """
    torch.manual_seed(seed)
    model = MODELS[name]()
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out")
        elif isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the mean over all images instead of a moving one
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    model.train()
    with torch.no_grad():
        for _ in range(2):
            model(torch.randn(4, 3, pixels, pixels))
    return model.eval()
