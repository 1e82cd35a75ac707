"""A candidate as a torch module."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional

from npas_ray.networks.backbone import Backbone, Block
from npas_ray.networks.operators import SubLayer, body_layers, head_layer, layer_choices
from npas_ray.space.choices import Architecture, Operator

BN_EPS = 1e-5


class ConvBn(nn.Module):
    """Convolution without bias + batch norm [+ ReLU], padded to keep the extent at stride 1."""

    def __init__(self, layer: SubLayer, *, relu: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            layer.in_channels,
            layer.out_channels,
            layer.kernel,
            stride=layer.stride,
            padding=layer.kernel // 2,
            groups=layer.in_channels if layer.depthwise else 1,
            bias=False,
        )
        self.bn = nn.BatchNorm2d(layer.out_channels, eps=BN_EPS)
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        """[n, in channels, h, w] -> [n, out channels, h', w']."""
        out: Tensor = self.bn(self.conv(x))
        return functional.relu(out, inplace=True) if self.relu else out


class Shortcut(nn.Module):
    """Parameter-free way around a block: 2x2 average where it strides, channels cut or filled up with zeros."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.stride = block.stride
        self.more_channels = block.out_channels - block.in_channels

    def forward(self, x: Tensor) -> Tensor:
        """[n, in channels, h, w] -> [n, out channels, ceil(h / stride), ceil(w / stride)]."""
        if self.stride > 1:
            odd = (0, -x.shape[3] % self.stride, 0, -x.shape[2] % self.stride)
            x = functional.avg_pool2d(functional.pad(x, odd) if any(odd) else x, self.stride)
        if self.more_channels:
            x = functional.pad(x, (0, 0, 0, 0, 0, self.more_channels))  # a negative count cuts
        return x


class BlockModule(nn.Module):
    """relu(body(x) + shortcut(x)); a skip has no body."""

    def __init__(self, block: Block, operator: Operator) -> None:
        super().__init__()
        layers = body_layers(block, operator)
        self.body = nn.Sequential(
            OrderedDict((layer.name, ConvBn(layer, relu=layer is not layers[-1])) for layer in layers)
        )
        self.shortcut = Shortcut(block)

    def forward(self, x: Tensor) -> Tensor:
        """[n, in channels, h, w] -> [n, out channels, ceil(h / stride), ceil(w / stride)]; all values >= 0."""
        if not self.body:
            out: Tensor = self.shortcut(x)  # of values >= 0: a ReLU would change nothing
            return out
        return functional.relu(self.body(x) + self.shortcut(x), inplace=True)


class Network(nn.Module):
    """Stem, blocks, global average pooling, fully connected head. Parameters are called as `parameter_prefix` says."""

    def __init__(self, backbone: Backbone, architecture: Architecture) -> None:
        super().__init__()
        choices = layer_choices(backbone, architecture)
        stem = SubLayer("stem", backbone.input_channels, backbone.stem_channels, 3, backbone.stem_stride)
        self.stem = ConvBn(stem, relu=True)
        self.blocks = nn.Sequential(
            OrderedDict(
                (block.name, BlockModule(block, choice.operator))
                for block, choice in zip(backbone.blocks, choices, strict=False)
            )
        )
        head = head_layer(backbone)
        self.fc = nn.Linear(head.in_channels, head.out_channels)

    def features(self, images: Tensor) -> Tensor:
        """[n, channels, h, w] -> pooled features [n, channels of the last block]."""
        # An image of one channel has no telling layout, and torch would go on in NCHW: 2x slower with oneDNN.
        x = self.stem(images).contiguous(memory_format=torch.channels_last)
        out: Tensor = self.blocks(x)
        return out.mean((2, 3))

    def forward(self, images: Tensor) -> Tensor:
        """[n, channels, h, w] -> logits [n, classes]."""
        out: Tensor = self.fc(self.features(images))
        return out


def build_module(backbone: Backbone, architecture: Architecture) -> Network:
    """The candidate, dense and with torch's initial weights, in training mode.

    Raises ValueError if the architecture does not fit the backbone.
    """
    return Network(backbone, architecture)


def block_prefix(block: Block) -> str:
    """What the parameters of a block's body are called in a Network's state: "<prefix><sub-layer>.conv.weight"."""
    return f"blocks.{block.name}.body."


def to_channels_last(module: nn.Module) -> None:
    """Puts weights into the layout in which oneDNN trains these networks 1.2-2x faster. Values stay."""
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
