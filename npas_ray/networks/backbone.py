"""The frame that a search fills: input, stem, searchable blocks, head. Pure description, no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Block:
    """One searchable layer: where it stands in the network. Its operator is the architecture's choice."""

    name: str
    in_channels: int
    out_channels: int
    stride: int
    height: int  # of its input, pixels
    width: int
    expansion: int = 4  # of 1x1+3x3dw+1x1: inner channels / in_channels

    @property
    def keeps_shape(self) -> bool:
        return self.stride == 1 and self.in_channels == self.out_channels


@dataclass(frozen=True)
class Backbone:
    """Stem (3x3 CONV + batch norm + ReLU), searchable blocks with shortcuts, global average pooling, FC.

    The FC layer is searchable (rate and scheme) when `searchable_head` is true; it is then the last layer.
    """

    name: str
    input_channels: int
    input_height: int
    input_width: int
    stem_channels: int
    stem_stride: int
    blocks: tuple[Block, ...]
    classes: int
    searchable_head: bool = False

    @property
    def layers(self) -> int:
        """Number of searchable layers."""
        return len(self.blocks) + self.searchable_head


def make_backbone(
    name: str,
    *,
    input_shape: tuple[int, int, int],
    stem: tuple[int, int],
    blocks: tuple[tuple[int, int], ...],
    classes: int,
    expansion: int = 4,
    searchable_head: bool = False,
) -> Backbone:
    """A backbone from (channels, height, width), stem (channels, stride) and blocks of (out channels, stride)."""
    channels, height, width = input_shape
    h, w = -(-height // stem[1]), -(-width // stem[1])
    described, in_channels = [], stem[0]
    for index, (out_channels, stride) in enumerate(blocks):
        described.append(Block(f"block{index}", in_channels, out_channels, stride, h, w, expansion))
        in_channels, h, w = out_channels, -(-h // stride), -(-w // stride)
    return Backbone(name, channels, height, width, *stem, tuple(described), classes, searchable_head)


DIGITS = make_backbone(
    "digits",
    input_shape=(1, 16, 16),
    stem=(32, 2),
    blocks=((32, 1), (32, 1), (64, 1), (64, 2), (64, 1), (96, 1), (96, 1)),
    classes=10,
    expansion=2,
)

BACKBONES = {backbone.name: backbone for backbone in (DIGITS,)}
