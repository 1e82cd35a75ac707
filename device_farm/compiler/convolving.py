"""The arguments of the gathered GEMM, for a convolution or a band of one."""

from __future__ import annotations

import math
from collections.abc import Iterator

from device_farm.compiler.graph import Conv2d
from device_farm.compiler.kernels.spec import ConvKernel, PlanarKernel, PlanesKernel
from device_farm.compiler.ordering import Work, plan
from device_farm.compiler.packing import Group, PackedConv
from device_farm.compiler.planar import PlanarImage
from device_farm.compiler.steps import Argument, Call, Place, Table, TiledView, View
from device_farm.compiler.strides import Layout
from device_farm.compiler.target import Target
from device_farm.compiler.tiling import Tiling, conv_pixels, conv_tiling, part_taps, prefetches_weights, tap_unroll

SMALLER_TILES = (20, 14, 10)  # pixels, tried beside the largest tile of a target


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
) -> Call:
    """Computes the blocks of `group`.

    `recut` allows rows of another length than the image's where it is flat. `fixed` makes y's distance of pixels a
    constant of the kernel: faster, and another kernel for every distance.
    """
    layouts = [view.layout for view in (x, y, residual) if view is not None]
    flat = recut and op.kernel == op.stride == (1, 1) and all(layout.contiguous for layout in layouts)
    height, width, _ = y.layout.shape
    assert group.tile is not None
    most = conv_pixels(group.tile, group.tap_channels, target)
    vectors = group.tile.vectors
    made = plan(
        (
            conv_tiling(height, width, flat=flat, vectors=vectors, target=target, pixels=pixels)
            for pixels in dict.fromkeys((most, *(p for p in SMALLER_TILES if p < most)))
        ),
        Work(
            Tiling(height, width, 1, 1),
            stride=op.stride,
            reach=((op.kernel[0] - 1) * op.dilation[0], (op.kernel[1] - 1) * op.dilation[1]),
            pixel_floats=x.layout.pixel_stride,
            blocks=len(group.kept),
            block_filters=group.height,
            weight_bytes=sum(group.kept) * (target.element.bytes * group.height + 4),
            element_bytes=target.element.bytes,
        ),
        target,
    )
    tiling, order = made.tiling, made.order

    def row(layout: Layout) -> int:
        return tiling.columns * layout.pixel_stride if flat else layout.row_stride

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
        prefetch_weights=prefetches_weights(group.kept, tiling, order.band * order.strip, target),
        y_pixel=y.layout.pixel_stride if fixed else 0,
    )
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
            "apart": 0,
        },
        block_taps=group.kept,
    )


def planar_calls(
    op: Conv2d,
    packed: PackedConv,
    group: Group,
    image: PlanarImage,
    *,
    x: View | TiledView,
    y: View | TiledView,
    residual: View | TiledView | None,
    planes: Place,
) -> Iterator[Call]:
    """Band by band: its input as planes, unless it is kept so, and what is computed from them."""
    lanes, others = image.tile.lanes, residual or y
    spec = PlanarKernel(
        image.tile.vectors,
        image.tile.singles,
        op.activation,
        residual is not None,
        *(isinstance(view, TiledView) for view in (x, y, others)),
    )
    always: dict[str, Argument] = {
        "weights": Place("parameters", group.weights),
        "bias": Place("parameters", packed.bias + group.first_filter),
        "taps": Place("parameters", group.taps),
        "pointers": Place("parameters", group.pointers),
        "targets": _places(image, y),
        "r_targets": _places(image, others),
        "blocks": len(group.kept),
        "pixels": image.pixels,
        "apart": 0,
        **{
            f"{name}_{what}": getattr(view.planes, what) if isinstance(view, TiledView) else 0
            for name, view in (("x", x), ("y", y), ("r", others))
            for what in ("tile", "singles")
        },
    }
    sources = Table(image.sources(x.layout)) if isinstance(x, View) else None
    for start in image.starts:
        if sources is not None:
            assert isinstance(x, View)
            yield Call(
                PlanesKernel(),
                {
                    "x": x.at(start * op.stride[0] - op.padding.top, -op.padding.left),
                    "y": planes,
                    "sources": sources,
                    "groups": image.groups,
                    "vectors": math.ceil(image.channels / lanes),
                    "plane": image.plane,
                },
            )
        places: dict[str, Argument] = {
            "x": x.at() if isinstance(x, TiledView) else planes,
            "y": _row(y, start, image),
            "residual": _row(others, start, image),
        }
        yield Call(spec, always | places, block_taps=group.kept)


def _places(image: PlanarImage, view: View | TiledView) -> Table:
    """Where each pixel of a band lies; nobody asks where it is kept as planes."""
    return Table(image.targets(view.layout) if isinstance(view, View) else ())


def _row(view: View | TiledView, row: int, image: PlanarImage) -> Place:
    return view.at(row) if isinstance(view, View) else view.at(row * image.columns)
