"""The arguments of the gathered GEMM, for a convolution or a band of one."""

from __future__ import annotations

import math

from device_farm.compiler.graph import Conv2d
from device_farm.compiler.kernels.spec import ConvKernel, PairsKernel
from device_farm.compiler.ordering import Work, plan
from device_farm.compiler.packing import Group, PackedConv
from device_farm.compiler.pairing import PairImage
from device_farm.compiler.steps import Call, Place, View
from device_farm.compiler.strides import Layout
from device_farm.compiler.target import Target
from device_farm.compiler.tiling import Tiling, conv_pixels, conv_tiling, part_taps, prefetches_weights, tap_unroll

SMALLER_TILES = (20, 14, 10)  # pixels, tried beside the largest tile of a target
FEWEST_PAIRS = 7  # tried too, as pairs fill the first level twice as fast


def conv_call(
    op: Conv2d,
    packed: PackedConv,
    group: Group,
    *,
    x: View,
    y: View,
    residual: View | None,
    target: Target,
    recut: bool = True,
    fixed: bool = False,
    pairs: PairImage | None = None,
) -> Call:
    """Computes the blocks of `group`.

    `recut` allows rows of another length than the image's where it is flat. `fixed` makes y's distance of pixels a
    constant of the kernel: faster, and another kernel for every distance. With `pairs`, x holds those.
    """
    layouts = [view.layout for view in (x, y, residual) if view is not None]
    flat = recut and op.kernel == op.stride == (1, 1) and all(layout.contiguous for layout in layouts)
    height, width, _ = y.layout.shape
    stride, lower = op.stride, 0
    if pairs is not None:
        flat, height, width, stride, lower = pairs.flat, pairs.rows, pairs.columns, pairs.stride, pairs.skipped
    assert group.tile is not None
    most = conv_pixels(group.tile, group.tap_channels, target)
    vectors = group.tile.vectors
    smaller = SMALLER_TILES if pairs is None else (*SMALLER_TILES, FEWEST_PAIRS)
    made = plan(
        (
            conv_tiling(height, width, flat=flat, vectors=vectors, target=target, pixels=pixels)
            for pixels in dict.fromkeys((most, *(p for p in smaller if p < most)))
        ),
        Work(
            Tiling(height, width, 1, 1),
            stride=stride,
            reach=((op.kernel[0] - 1) * op.dilation[0], (op.kernel[1] - 1) * op.dilation[1]),
            pixel_floats=x.layout.pixel_stride * group.tile.lane_pixels,
            blocks=len(group.kept),
            block_filters=group.height,
            weight_bytes=sum(group.kept) * (target.element.bytes * group.height + 4),
            element_bytes=target.element.bytes,
            lane_pixels=group.tile.lane_pixels,
        ),
        target,
    )
    tiling, order = made.tiling, made.order

    def row(layout: Layout) -> int:
        return tiling.columns * layout.pixel_stride if flat else layout.row_stride

    def half(layout: Layout) -> int:
        return lower * (layout.pixel_stride if flat else layout.row_stride)

    spec = ConvKernel(
        vectors=group.tile.vectors,
        vector_lanes=group.tile.lanes,
        tap_channels=group.tap_channels,
        lane_pixels=group.tile.lane_pixels,
        tile_rows=tiling.tile_rows,
        tile_columns=tiling.tile_columns,
        pixel_stride=stride[1] * x.layout.pixel_stride if tiling.columns > 1 else 0,
        line_stride=stride[0] * row(x.layout) if tiling.tile_rows > 1 else 0,
        tap_unroll=tap_unroll(tiling, group.tile.vectors),
        activation=op.activation,
        residual=residual is not None,
        part_taps=part_taps(group.kept, group.tap_channels, target),
        prefetch_weights=prefetches_weights(group.kept, order.band * order.strip, target),
        y_pixel=y.layout.pixel_stride if fixed else 0,
    )
    return Call(
        spec,
        {
            "x": x.at() if pairs else x.at(-op.padding.top, -op.padding.left),
            "y": y.at(channel=group.first_filter),
            "weights": Place("parameters", group.weights),
            "bias": Place("parameters", packed.bias + group.first_filter),
            "residual": (residual or y).at(channel=group.first_filter),
            "taps": Place("parameters", group.taps),
            "pointers": Place("parameters", group.pointers),
            "blocks": len(group.kept),
            "band": order.band,
            "strip": order.strip,
            "rows": tiling.rows,
            "columns": tiling.columns,
            "x_row": stride[0] * row(x.layout),
            "y_row": row(y.layout),
            "y_pixel": y.layout.pixel_stride,
            "y_lower": half(y.layout),
            "r_row": row(residual.layout) if residual else 0,
            "r_pixel": residual.layout.pixel_stride if residual else 0,
            "r_lower": half(residual.layout) if residual else 0,
            "apart": 0,
        },
        block_taps=group.kept,
    )


def pairs_call(op: Conv2d, pairs: PairImage, *, x: View, scratch: Place, target: Target) -> Call:
    """Writes the pairs of a layer's input to the scratch memory."""
    source, made, (down, across) = x.layout, pairs.layout, pairs.x_step
    row, pixel = down * source.row_stride, across * source.pixel_stride
    return Call(
        PairsKernel(),
        {
            "x": x.at(-op.padding.top, -op.padding.left),
            "y": scratch,
            "rows": made.shape.height,
            "columns": made.shape.width,
            "vectors": math.ceil(made.shape.channels / target.simd_lanes),
            "lower": pairs.skipped * (pixel if pairs.flat else op.stride[0] * source.row_stride),
            "x_row": pixel if pairs.flat else row,
            "x_pixel": pixel,
            "y_row": 2 * made.row_stride,
            "y_pixel": 2 * made.pixel_stride,
        },
    )
