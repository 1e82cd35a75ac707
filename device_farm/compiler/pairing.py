"""Layers in low blocks of filters: an input as pairs of pixels, so that a vector is 8 filters x 2 pixels.

Blocks of half a vector would need a load for every multiply-add of half a vector. So the rows of the output are halved
and the input is first written to scratch memory with each number of the upper half's window beside its partner from
the lower half's: one load of both, repeated in all lanes, then serves a multiply-add of full width. Writing the pairs
costs about 3 * rate / filters of the layer, so it must pay.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from device_farm.compiler.blocking import lowest_only
from device_farm.compiler.graph import NO_PADDING, Conv2d, Shape
from device_farm.compiler.strides import Layout, pad_channels
from device_farm.compiler.target import Target

# Cycles on Zen 4 (docs/neon.md): for writing a pair of numbers, and what a tap of 8 filters saves for two pixels.
WRITTEN, SAVED = 1.1, 0.33


@dataclass(frozen=True)
class PairImage:
    """The input of one layer as pairs; the output's half has `rows` x `columns` pixels.

    Where the number of rows is odd, the lower half begins a row earlier, and that row is computed twice.
    """

    layout: Layout  # counts pairs
    rows: int
    columns: int
    flat: bool  # pixels of the half follow one another, whatever the image's rows: `columns` is 1
    x_step: tuple[int, int]  # rows and columns of the input from one row and column of pairs to the next
    stride: tuple[int, int]  # of the convolution of pairs
    skipped: int  # rows of the output (pixels where flat) before the lower half

    @property
    def elements(self) -> int:
        return 2 * self.layout.elements


def choose(op: Conv2d, layouts: tuple[Layout, ...], target: Target) -> PairImage | None:
    """The pairs of a layer that becomes faster by them; `layouts` of its input, output and residual."""
    if target.pair_tile is None or not lowest_only(op, target):
        return None
    image = pair_image(op, layouts, target)
    if image is None:
        return None
    x, y, *_ = layouts
    taps = math.ceil(op.filters / target.pair_tile.height) * op.kernel[0] * op.kernel[1] * x.shape.channels // op.groups
    if op.sparsity is not None:
        taps = sum(op.sparsity.kept) * op.sparsity.block_height // target.pair_tile.height
    useful = y.shape.height * y.shape.width / 2
    return image if SAVED * taps * useful > WRITTEN * image.layout.elements else None


def pair_image(op: Conv2d, layouts: tuple[Layout, ...], target: Target) -> PairImage | None:
    """None for an output of one row that cannot be halved."""
    x, y, *_ = layouts
    (height, width, _), channels = y.shape, x.shape.channels
    pointwise = op.kernel == (1, 1)
    flat = pointwise and op.stride == (1, 1) and all(layout.contiguous for layout in layouts)
    flat = flat and x.shape[:2] == y.shape[:2]
    all_rows = height * width if flat else height
    if all_rows == 1:
        return None
    rows, columns = math.ceil(all_rows / 2), 1 if flat else width
    stride = (1, 1) if pointwise else op.stride
    window_rows, window_columns = (
        (count - 1) * step + (kernel - 1) * dilation + 1
        for count, step, kernel, dilation in zip((rows, columns), stride, op.kernel, op.dilation, strict=True)
    )
    layout = Layout(Shape(window_rows, window_columns, channels), NO_PADDING, _apart(channels, target))
    step = op.stride if pointwise else (1, 1)
    return PairImage(layout, rows, columns, flat, step, stride, all_rows - rows)


def _apart(channels: int, target: Target) -> int:
    """Pairs a pixel: whole vectors, pixels not a way of the cache apart."""
    return pad_channels(2 * math.ceil(channels / target.simd_lanes) * target.simd_lanes, target) // 2
