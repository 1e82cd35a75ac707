"""The arguments of the gathered GEMM, for a convolution or a band of one."""

from __future__ import annotations

from device_farm.compiler.graph import Conv2d
from device_farm.compiler.kernels.spec import ConvKernel
from device_farm.compiler.layout import Layout
from device_farm.compiler.ordering import Work, loop_order
from device_farm.compiler.packing import Group, PackedConv
from device_farm.compiler.steps import Call, Place, View
from device_farm.compiler.target import Target
from device_farm.compiler.tiling import conv_pixels, conv_tiling, part_taps, tap_unroll


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
) -> Call:
    """Computes the blocks of `group`. `recut` allows rows of another length than the image's where it is flat."""
    layouts = [view.layout for view in (x, y, residual) if view is not None]
    flat = recut and op.kernel == op.stride == (1, 1) and all(layout.contiguous for layout in layouts)
    height, width, _ = y.layout.shape
    assert group.tile is not None
    pixels = conv_pixels(group.tile, group.tap_channels, target)
    tiling = conv_tiling(height, width, flat=flat, vectors=group.tile.vectors, target=target, pixels=pixels)
    cut_anew = tiling.columns != width

    def row(layout: Layout) -> int:
        return tiling.columns * layout.pixel_stride if cut_anew else layout.row_stride

    spec = ConvKernel(
        vectors=group.tile.vectors,
        vector_lanes=group.tile.lanes,
        tap_channels=group.tap_channels,
        tile_rows=tiling.tile_rows,
        tile_columns=tiling.tile_columns,
        pixel_stride=op.stride[1] * x.layout.pixel_stride if tiling.columns > 1 else 0,
        line_stride=op.stride[0] * row(x.layout) if tiling.tile_rows > 1 else 0,
        tap_unroll=tap_unroll(tiling, group.tile.vectors),
        activation=op.activation,
        residual=residual is not None,
        part_taps=part_taps(group.kept, group.tap_channels, target),
    )
    work = Work(
        tiling,
        stride=op.stride,
        reach=((op.kernel[0] - 1) * op.dilation[0], (op.kernel[1] - 1) * op.dilation[1]),
        pixel_floats=x.layout.pixel_stride,
        blocks=len(group.kept),
        block_filters=group.height,
        weight_bytes=sum(group.kept) * (target.element.bytes * group.height + 4),
        element_bytes=target.element.bytes,
    )
    order = loop_order(work, target)
    return Call(
        spec,
        {
            "x": x.at(-op.padding.top, -op.padding.left),
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
            "x_row": op.stride[0] * row(x.layout),
            "y_row": row(y.layout),
            "y_pixel": y.layout.pixel_stride,
            "r_row": row(residual.layout) if residual else 0,
            "r_pixel": residual.layout.pixel_stride if residual else 0,
        },
        block_taps=group.kept,
    )
