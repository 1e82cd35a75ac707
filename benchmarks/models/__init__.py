"""Plain torch definitions of the networks that are measured."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from benchmarks.models.efficientnet import efficientnet_b0, efficientnet_lite0
from benchmarks.models.mobilenet_v2 import MobileNetV2
from benchmarks.models.mobilenet_v3 import MobileNetV3Large
from benchmarks.models.resnet import resnet18, resnet50

MODELS: dict[str, Callable[[], nn.Module]] = {
    "efficientnet_b0": efficientnet_b0,
    "efficientnet_lite0": efficientnet_lite0,
    "mobilenet_v2": MobileNetV2,
    "mobilenet_v3_large": MobileNetV3Large,
    "resnet18": resnet18,
    "resnet50": resnet50,
}


def initialised(name: str, *, seed: int = 0) -> nn.Module:
    """A model with weights from a seed, the batch norms' included."""
    torch.manual_seed(seed)
    model = MODELS[name]()
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out")
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    return model


def calibrate(model: nn.Module, *, pixels: int, seed: int = 1) -> nn.Module:
    """Give the batch norms the statistics of random images, and go to evaluation mode.

    Without them the signal of an untrained or pruned network dies on its way, and the output is the last bias: a
    comparison of outputs would show nothing.
    """
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None  # the mean over all images instead of a moving one
    model.train()
    with torch.no_grad():
        for _ in range(2):
            model(torch.randn(4, 3, pixels, pixels, generator=generator))
    return model.eval()
