"""Small networks of many kinds: torch, ONNX Runtime and the executable agree, dense and pruned."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks._harness import OnnxRuntime, relative_error
from benchmarks._onnx import to_onnx
from device_farm.compiler import compile_network, host_target
from device_farm.compiler.frontend import import_module, import_onnx
from device_farm.compiler.graph import Shape
from device_farm.compiler.passes import prune_weights
from device_farm.compiler.testing import run_artifact


def conv(inputs: int, outputs: int, kernel: int = 1, stride: int = 1, **options: int) -> nn.Sequential:
    padding = options.pop("dilation", 1) * (kernel // 2)
    dilation = padding // max(kernel // 2, 1) or 1
    layer = nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation=dilation, bias=False, **options)  # type: ignore[arg-type]
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), nn.ReLU())


class Fire(nn.Module):
    """squeezenet: a squeeze and two expansions whose channels are joined."""

    def __init__(self, inputs: int, squeezed: int, outputs: int) -> None:
        super().__init__()
        self.squeeze, self.one = conv(inputs, squeezed), conv(squeezed, outputs)
        self.three = conv(squeezed, outputs, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.squeeze(x)
        return torch.cat([self.one(x), self.three(x)], 1)


class DenseLayer(nn.Module):
    """densenet: batch norm first, and every layer's channels stay."""

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.norm, self.layer = nn.BatchNorm2d(inputs), nn.Conv2d(inputs, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.layer(functional.relu(self.norm(x)))], 1)


class ShuffleUnit(nn.Module):
    """shufflenet v2, at stride 1."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        depthwise = nn.Sequential(nn.Conv2d(half, half, 3, padding=1, groups=half, bias=False), nn.BatchNorm2d(half))
        self.branch = nn.Sequential(conv(half, half), depthwise, conv(half, half))

    def forward(self, x: Tensor) -> Tensor:
        left, right = x.chunk(2, 1)
        return functional.channel_shuffle(torch.cat([left, self.branch(right)], 1), 2)


class Grouped(nn.Module):
    """resnext: a bottleneck of groups; with a shuffle the unit of shufflenet v1."""

    def __init__(self, channels: int, width: int, groups: int, *, shuffle: bool = False) -> None:
        super().__init__()
        first_groups = {"groups": groups} if shuffle else {}
        self.first = conv(channels, width, **first_groups)
        self.middle = conv(width, width, 3, groups=groups)
        self.last = nn.Sequential(nn.Conv2d(width, channels, 1, bias=False), nn.BatchNorm2d(channels))
        self.groups = groups if shuffle else 1

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        if self.groups > 1:
            y = functional.channel_shuffle(y, self.groups)
        return functional.relu(x + self.last(self.middle(y)))


class Pyramid(nn.Module):
    """deeplab: dilated branches and the image's mean, joined."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList([conv(channels, 9), *(conv(channels, 9, 3, dilation=d) for d in (1, 2, 3))])
        self.gate = nn.Linear(channels, 36)

    def forward(self, x: Tensor) -> Tensor:
        joined = torch.cat([branch(x) for branch in self.branches], 1)
        return joined * torch.sigmoid(self.gate(x.mean((2, 3)))).view(-1, 36, 1, 1)


class SelfGated(nn.Module):
    """Products of two images, hard swish written by hand."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.value, self.gate = conv(channels, channels, 3), nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.value(x) * torch.sigmoid(self.gate(x))
        z: Tensor = y * functional.relu6(y + 3) / 6
        return z


def head(channels: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10)]


def stem(channels: int) -> nn.Module:
    return conv(3, channels, 3, 2)


def squeezenet() -> list[nn.Module]:
    return [stem(16), nn.MaxPool2d(3, 2, ceil_mode=True), Fire(16, 5, 12), Fire(24, 8, 20), *head(40)]


def densenet() -> list[nn.Module]:
    return [stem(16), *(DenseLayer(16 + 6 * i, 6) for i in range(4)), nn.AvgPool2d(2), *head(40)]


def shufflenet_v1() -> list[nn.Module]:
    return [stem(48), Grouped(48, 24, 3, shuffle=True), Grouped(48, 24, 4, shuffle=True), *head(48)]


def shufflenet_v2() -> list[nn.Module]:
    return [stem(58), *(ShuffleUnit(58) for _ in range(3)), *head(58)]


def resnext() -> list[nn.Module]:
    return [stem(64), Grouped(64, 128, 32), Grouped(64, 64, 2), *head(64)]


def dilated() -> list[nn.Module]:
    return [stem(24), Pyramid(24), conv(36, 20, 3, dilation=4), *head(20)]


def gated() -> list[nn.Module]:
    return [stem(20), SelfGated(20), SelfGated(20), *head(20), nn.Softmax(1)]


ZOO = [squeezenet, densenet, shufflenet_v1, shufflenet_v2, resnext, dilated, gated]


@pytest.mark.parametrize("make", ZOO)
def test_torch_onnx_runtime_and_the_executable_agree(
    make: Callable[[], list[nn.Module]], cache_dir: Path, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    module, target = nn.Sequential(*make()), host_target()
    with torch.no_grad():
        module(torch.randn(16, 3, 24, 24))
    module.eval()
    image = torch.randn(1, 3, 24, 24)
    imported = import_module(module, Shape(24, 24, 3))
    for rate in (1, 3):
        graph, weights = prune_weights(imported.graph, imported.weights, rate, target.block_height)
        model = to_onnx(graph, weights)
        expected = OnnxRuntime(model.SerializeToString()).answer(image.numpy())
        if rate == 1:
            assert relative_error(expected, module(image).detach().numpy()) <= 1e-5
        again = import_onnx(model)
        assert [op.kind for op in again.graph.ops] == [op.kind for op in graph.ops]
        artifact = compile_network(graph, target=target, out_dir=tmp_path, cache_dir=cache_dir, weights=weights)
        actual = run_artifact(artifact, image.permute(0, 2, 3, 1).numpy(), scratch=tmp_path)
        assert np.ptp(expected) > 0
        assert relative_error(actual, expected) <= 1e-5
